"""Traces of Pyro programs: their sites, and the log-probability of each example."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vae.programs.random_streams import preserve_rng_state

Program = Callable[..., Any]  # a Pyro model or guide
PARTICLES = (
    "num_particles_vectorized"  # the name of the particle plate, the same as in Pyro's ELBOs
)


def plate_nesting(model: Program, guide: Program, x: Any) -> int:
    """Run a model and a guide once, and return how many batch dimensions their plates use."""
    with torch.no_grad(), preserve_rng_state(x):
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
    include: Callable[[dict[str, Any]], bool] = lambda site: True,
) -> Tensor:
    """Sum a trace's log-probabilities over every dimension but the particles and the data plate.

    Args:
        trace: the trace of a program whose plates use at most `batch_dims` dimensions. If there is
            a plate of particles, it is the leftmost one.
        plate: the name of the data plate.
        batch_dims: the number of batch dimensions, including that of the particles; 0 for a program
            that was run without a plate of particles.
        include: a predicate on sites: only sites for which it is true are summed. By default all.

    Returns:
        Log-probabilities in nats, shape [particles, batch], or [batch] without particles.
    """
    total = torch.zeros(())
    trace.compute_log_prob()
    for name, site in sample_sites(trace):
        if not include(site):
            continue
        log_prob = scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])
        total = total + per_example(log_prob, name, site, plate, batch_dims)
    return total


def per_example(
    values: Tensor, name: str, site: dict[str, Any], plate: str, batch_dims: int
) -> Tensor:
    """Sum a site's values over every dimension but the particles and the data plate.

    Args:
        values: one value for each independent draw of the site, its log-probabilities for example.
            The shape is the batch shape of the site.
        name: the name of the site.
        site: the site, as the trace holds it.
        plate: the same as in `log_prob_per_example`.
        batch_dims: the same as in `log_prob_per_example`.

    Returns:
        Sums, shape [particles, batch], or [batch] without particles.

    Raises:
        ValueError: if the site is not in the data plate, or the values do not fit its plates.
    """
    frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    dims = [frame.dim for frame in frames if frame.name == plate]
    if not dims:
        raise ValueError(
            f"site '{name}' is not in a plate named '{plate}': a bound for each example needs "
            "every site inside the data plate, and the name of that plate"
        )
    sizes = {frame.dim: frame.size for frame in frames}
    if any(values.shape[dim] != sizes.get(dim, 1) for dim in range(-values.dim(), 0)):
        raise ValueError(
            f"site '{name}': log-probabilities of shape {list(values.shape)} do not fit its "
            f"plates { ({frame.name: frame.dim for frame in frames}) }"
        )
    remaining = {dims[0] % values.dim()}
    if batch_dims:
        values = values.reshape((1,) * (batch_dims - values.dim()) + values.shape)
        remaining = {0, dims[0] % batch_dims}
    summed = [dim for dim in range(values.dim()) if dim not in remaining]
    return values.sum(summed) if summed else values


def traces(
    model: Program, guide: Program, x: Any, change: Callable[[Tensor], Tensor] | None = None
) -> tuple[poutine.Trace, poutine.Trace]:
    """Run a guide, then the model with the values that the guide drew.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`.
        x: the data.
        change: a function that is applied to each value that the guide drew before the model gets
            it. By default the model gets the values unchanged.

    Returns:
        The traces of the model and of the guide.

    Raises:
        ValueError: if the latent sites of the two differ, or the guide has a point estimate.
    """
    guide_trace = poutine.trace(guide).get_trace(x)
    replayed = guide_trace if change is None else with_values(guide_trace, change)
    model_trace = poutine.trace(poutine.replay(model, trace=replayed)).get_trace(x)
    latent = {name for name, site in sample_sites(model_trace) if not site["is_observed"]}
    guided = dict(sample_sites(guide_trace))
    auxiliary = {name for name, site in guided.items() if site["infer"].get("is_auxiliary")}
    for name in latent - guided.keys():
        raise ValueError(f"the guide has no site '{name}', which the model samples")
    for name, site in guided.items():
        if name not in latent | auxiliary or site["is_observed"]:
            raise ValueError(f"the guide's site '{name}' is no latent site of the model")
        if not auxiliary and isinstance(site["fn"], Delta):
            raise ValueError(f"the guide's site '{name}' is a point estimate, which gives no bound")
    return model_trace, guide_trace


def with_values(trace: poutine.Trace, change: Callable[[Tensor], Tensor]) -> poutine.Trace:
    """Copy a trace, with `change` applied to the value of each latent site."""
    copy = trace.copy()
    for name, site in sample_sites(trace):
        if not site["is_observed"]:
            copy.nodes[name] = {**site, "value": change(site["value"])}
    return copy


def is_observed(site: dict[str, Any]) -> bool:
    """Return whether a site is observed."""
    return bool(site["is_observed"])


def is_latent(site: dict[str, Any]) -> bool:
    """Return whether a site is latent, that is, not observed."""
    return not site["is_observed"]


def sample_sites(trace: poutine.Trace) -> list[tuple[str, dict[str, Any]]]:
    """Return names and sites of the random variables, in the order in which they were run.

    `pyro.deterministic` sites and the subsampling sites of plates are left out.
    """
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site["infer"].get("_deterministic")
        and not poutine.util.site_is_subsample(site)
    ]
