"""Traces of Pyro programs: their sites, and the log-probabilities of each example."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vae.programs.random_streams import undisturbed

Program = Callable[..., Any]
PARTICLES = "num_particles_vectorized"


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
