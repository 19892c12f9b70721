"""Log-weights: the one tensor that every bound on log p(x) is a reduction of.

    log_w[k, i] = log p(x_i, z_ki) - log q(z_ki | x_i),    z_ki ~ q(z | x_i)

They are read off the traces of any Pyro model and guide that share a data plate.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vae.errors import InputError

Program = Callable[..., Any]

PARTICLES = "num_particles_vectorized"


def log_weights(
    model: Program,
    guide: Program,
    x: Any,
    num_samples: int,
    *,
    plate: str = "data",
    vectorize: bool = True,
    max_plate_nesting: int | None = None,
) -> Tensor:
    """Draw from the guide, and weigh each draw for each example.

    Args:
        model: a Pyro program, called as `model(x)`; its observed sites are the data.
        guide: a Pyro program, called as `guide(x)`, with a site for each latent one of the model.
            Of its other sites only those that are marked as auxiliary are taken, as Pyro's
            autoguides have them: noise of which the latent sites are a function.
        x: the data. Every sample site of both programs has to be in the data plate.
        num_samples: K, the number of draws for each example.
        plate: the name of the data plate.
        vectorize: draw all samples at once, in an outermost plate. Programs that do not broadcast
            over a dimension to the left of their own want False, which is slower.
        max_plate_nesting: how many dimensions the programs' plates take. Found by running the two
            once if it is not given.

    Returns:
        Log-weights in nats, shape [num_samples, batch], differentiable in the parameters. Scales
        (of a subsampled plate, say) are left out, since they would make the result no bound on the
        examples' own log p(x_i); masks are honoured.

    Raises:
        InputError: if num_samples < 1.
        ValueError: if a site is not in the data plate, or model and guide do not match.
    """
    if num_samples < 1:
        raise InputError(f"num_samples has to be at least 1, and {num_samples} is not")
    if not vectorize:
        draws = [_log_weight(model, guide, x, plate, 0) for _ in range(num_samples)]
        return torch.stack(draws)
    if max_plate_nesting is None:
        max_plate_nesting = plate_nesting(model, guide, x)
    particles = pyro.plate(PARTICLES, num_samples, dim=-1 - max_plate_nesting)
    return _log_weight(particles(model), particles(guide), x, plate, max_plate_nesting + 1)


def plate_nesting(model: Program, guide: Program, x: Any) -> int:
    """Run a model and a guide once, and return how many dimensions their plates take."""
    with torch.no_grad(), undisturbed(x):
        dims = [
            frame.dim
            for trace in traces(model, guide, x)
            for _, site in sample_sites(trace)
            for frame in site["cond_indep_stack"]
            if frame.vectorized
        ]
    return -min(dims, default=0)


def log_prob_per_example(
    trace: poutine.Trace,
    plate: str,
    batch_dims: int,
    counts: Callable[[dict[str, Any]], bool] = lambda site: True,
) -> Tensor:
    """Sum a trace's log-probabilities over all but the particles and the data plate.

    Args:
        trace: of a program, in `batch_dims` dimensions of plates; the leftmost of them, if there
            are more than the program's own, is that of the particles.
        plate: the name of the data plate.
        batch_dims: 0 for a program that was run as it is, without particles.
        counts: which sites are summed over; all of them, unless it says otherwise.

    Returns:
        Nats, shape [particles, batch], or [batch] without particles.
    """
    total = torch.zeros(())
    trace.compute_log_prob()
    for name, site in sample_sites(trace):
        if not counts(site):
            continue
        log_prob = scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])
        total = total + per_example(log_prob, name, site, plate, batch_dims)
    return total


def per_example(
    values: Tensor, name: str, site: dict[str, Any], plate: str, batch_dims: int
) -> Tensor:
    """Sum what a site has for each draw over all but the particles and the data plate.

    Args:
        values: of the site's batch shape: its log-probabilities, say.
        name: of the site.
        site: as it is in a trace.
        plate: as in `log_prob_per_example`.
        batch_dims: as in `log_prob_per_example`.

    Returns:
        Shape [particles, batch], or [batch] without particles.
    """
    frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    dims = [frame.dim for frame in frames if frame.name == plate]
    if not dims:
        raise ValueError(
            f"site '{name}' is not in a plate named '{plate}': bounds for each example need "
            "every site in the data plate, and its name"
        )
    sizes = {frame.dim: frame.size for frame in frames}
    if any(values.shape[dim] != sizes.get(dim, 1) for dim in range(-values.dim(), 0)):
        raise ValueError(
            f"site '{name}': log-probabilities of shape {list(values.shape)} do not fit its "
            f"plates { ({frame.name: frame.dim for frame in frames}) }"
        )
    kept = {dims[0] % values.dim()}
    if batch_dims:
        values = values.reshape((1,) * (batch_dims - values.dim()) + values.shape)
        kept = {0, dims[0] % batch_dims}
    others = [dim for dim in range(values.dim()) if dim not in kept]
    return values.sum(others) if others else values


def _log_weight(model: Program, guide: Program, x: Any, plate: str, batch_dims: int) -> Tensor:
    model_trace, guide_trace = traces(model, guide, x)
    return log_prob_per_example(model_trace, plate, batch_dims) - log_prob_per_example(
        guide_trace, plate, batch_dims
    )


def undisturbed(x: Any) -> contextlib.AbstractContextManager[None]:
    """Leave the global random generators as they were, after what is done with x in between."""
    return torch.random.fork_rng([x.device] if isinstance(x, Tensor) and x.is_cuda else [])


def traces(
    model: Program, guide: Program, x: Any, tap: Callable[[Tensor], Tensor] | None = None
) -> tuple[poutine.Trace, poutine.Trace]:
    """Run a guide, and a model on what the guide drew.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`.
        x: the data.
        tap: what is done to each drawn value on its way from the guide into the model.

    Returns:
        The traces of the model and of the guide.

    Raises:
        ValueError: if the two do not match.
    """
    guide_trace = poutine.trace(guide).get_trace(x)
    drawn = guide_trace if tap is None else with_values(guide_trace, tap)
    model_trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x)
    latent = {name for name, site in sample_sites(model_trace) if not site["is_observed"]}
    guided = dict(sample_sites(guide_trace))
    auxiliary = {name for name, site in guided.items() if site["infer"].get("is_auxiliary")}
    for name in latent - guided.keys():
        raise ValueError(f"the guide has no site '{name}', which the model samples")
    for name, site in guided.items():
        if name not in latent | auxiliary or site["is_observed"]:
            raise ValueError(f"the guide's site '{name}' is no latent site of the model")
        if not auxiliary and isinstance(site["fn"], Delta):
            raise ValueError(
                f"the guide's site '{name}' is a point: there is no bound without q(z|x)"
            )
    return model_trace, guide_trace


def with_values(trace: poutine.Trace, change: Callable[[Tensor], Tensor]) -> poutine.Trace:
    """Copy a trace, to be replayed, with the values of its latent sites changed."""
    copy = trace.copy()
    for name, site in sample_sites(trace):
        if not site["is_observed"]:
            copy.nodes[name] = {**site, "value": change(site["value"])}
    return copy


def is_observed(site: dict[str, Any]) -> bool:
    """Say whether a site is observed."""
    return bool(site["is_observed"])


def is_latent(site: dict[str, Any]) -> bool:
    """Say whether a site is not observed."""
    return not site["is_observed"]


def sample_sites(trace: poutine.Trace) -> list[tuple[str, dict[str, Any]]]:
    """Return the sites that count: neither deterministic ones nor the subsampling of plates."""
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site["infer"].get("_deterministic")
        and not poutine.util.site_is_subsample(site)
    ]
