"""Data drawn from a model, with the latent values from which they were drawn."""

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.traces import Program, sample_sites


def simulate(model: Program, arguments: Arguments) -> tuple[dict[str, Tensor], Arguments]:
    """Draw latent sites and data from a model: z is an exact draw from p(z|x) for the drawn x.

    Args:
        model: a Pyro program that observes one or more of its arguments, unchanged.
        arguments: a template of the data. It has the number, shape and type of the examples to
            draw; its values can be any that the model accepts.

    Returns:
        The values of the latent sites, and the arguments with the observed ones replaced by draws.

    Raises:
        InputError: if the model observes something else than its arguments.
    """
    with torch.no_grad():
        observed = {
            name: node["value"]
            for name, node in sample_sites(arguments.call(poutine.trace(model).get_trace))
            if node["is_observed"]
        }
        trace = arguments.call(poutine.trace(poutine.uncondition(model)).get_trace)
    tensors = list(arguments.tensors())
    for name, value in observed.items():
        places = [
            i
            for i, tensor in enumerate(tensors)
            if tensor is value
            or (tensor.shape == value.shape and tensor.dtype == value.dtype and tensor.equal(value))
        ]
        drawn = trace.nodes[name]["value"]
        if len(places) != 1 or drawn.shape != value.shape:
            raise InputError(
                "data can be simulated from a model that observes its arguments as they are, and "
                f"site '{name}' observes something else",
                "model",
            )
        tensors[places[0]] = drawn.to(value.dtype)
    if not observed:
        raise InputError("data can be simulated from a model with an observed site", "model")
    latents = {n: node["value"] for n, node in sample_sites(trace) if n not in observed}
    simulated = arguments.with_tensors(tuple(tensors))
    _check_simulation(model, simulated, latents, trace)
    return latents, simulated


def _check_simulation(
    model: Program, simulated: Arguments, latents: dict[str, Tensor], drawn: poutine.Trace
) -> None:
    """Check that a model gives simulated data the log-probability with which it drew them.

    Raises:
        InputError: if it does not: it changes what it observes, or reads it elsewhere.
    """
    with torch.no_grad():
        known = poutine.condition(model, latents)
        observing = simulated.call(poutine.trace(known).get_trace)
        for trace in (drawn, observing):
            trace.compute_log_prob()
    for name, node in sample_sites(drawn):
        one, other = (trace.nodes[name]["unscaled_log_prob"] for trace in (drawn, observing))
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise InputError(
                "data can be simulated from a model that observes its arguments as they are, and "
                f"does not read them elsewhere: site '{node['name']}' has another log-probability "
                "with the simulated data",
                "model",
            )
