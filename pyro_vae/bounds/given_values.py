"""Models that run with many given values of their latent sites."""

import pyro
from pyro import poutine
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.pair import Draws, Pair
from pyro_vae.programs.traces import PARTICLES, Program, Site, plates, sample_sites

MAX_BATCH = 200_000  # pairs of a latent value and an example that are decoded at once


def latent_sites(model: Program, arguments: Arguments) -> dict[str, Site]:
    """Return the latent sites of a model, which are not masked.

    Raises:
        InputError: if one is masked.
    """
    trace = arguments.call(poutine.trace(model).get_trace)
    sites = {name: site for name, site in sample_sites(trace) if not site["is_observed"]}
    for name, site in sites.items():
        if site["mask"] is not None and site["mask"] is not True:
            raise InputError(f"site '{name}' is masked: its density has no integral", "model")
    return sites


def axis_of_examples(site: Site, plate: str | None) -> int | None:
    """Return the dimension of the examples in the batch shape of a site; None if there is none."""
    dims = [frame.dim for frame in plates(site) if frame.name == plate]
    return len(site["fn"].batch_shape) + dims[0] if dims else None


def with_latents(
    pair: Pair, arguments: Arguments, values: dict[str, Tensor], batch_dims: dict[str, int]
) -> Draws:
    """Run a model with given values of all its latent sites.

    Args:
        pair: the model, with its prior as the guide.
        arguments: what it is called with.
        values: the values of each site, [P, *batch, *event], one for each run.
        batch_dims: the number of batch dimensions of each site.

    Raises:
        InputError: if the model has other latent sites, for some of the values.
    """
    count = len(next(iter(values.values())))
    if pair.vectorize:
        padded = {
            name: value.reshape(count, *[1] * (pair.nesting - batch_dims[name]), *value.shape[1:])
            for name, value in values.items()
        }
        particles = pyro.plate(PARTICLES, count, dim=-1 - pair.nesting)
        programs = [particles(poutine.condition(pair.model, padded))]
    else:
        programs = [
            poutine.condition(pair.model, {name: value[k] for name, value in values.items()})
            for k in range(count)
        ]
    runs = [(arguments.call(poutine.trace(run).get_trace), poutine.Trace()) for run in programs]
    draws = Draws(pair, arguments, runs, count if pair.vectorize else None, False)
    for site in draws.sites(model=True):
        if not site["is_observed"]:
            raise InputError(
                f"site '{site['name']}' exists for some values of other sites only, and is not "
                "integrated out",
                "model",
            )
    return draws
