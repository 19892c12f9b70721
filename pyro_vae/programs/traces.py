"""Traces of Pyro programs: their sites, and the log-probability of each example."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vae.errors import InputError

Program = Callable[..., Any]  # a Pyro model or guide
Site = dict[str, Any]  # a site, as a trace holds it
PARTICLES = (
    "num_particles_vectorized"  # the name of the particle plate, the same as in Pyro's ELBOs
)


def plate_nesting(*program_traces: poutine.Trace) -> int:
    """Return how many batch dimensions the plates in some traces use."""
    dims = [
        frame.dim
        for trace in program_traces
        for _, site in sample_sites(trace)
        for frame in plates(site)
    ]
    return -min(dims, default=0)


def plates(site: Site) -> list[Any]:
    """Return the frames of the vectorised plates that a site is in, the outermost first."""
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized]


def check_plate(site: Site, plate: str | None) -> None:
    """Refuse a site that is not in the plate of the examples.

    Raises:
        InputError: with the name of the site.
    """
    if plate is not None and plate not in {frame.name for frame in plates(site)}:
        raise InputError(
            f"site '{site['name']}' is not in a plate named '{plate}': a bound for each example "
            "needs every site inside the plate of the examples, and the name of that plate",
            "plate",
        )


def per_example(values: Tensor, site: Site, plate: str | None, batch_dims: int) -> Tensor:
    """Sum a site's values over every dimension but the particles and the plate of the examples.

    Args:
        values: one value for each independent draw of the site, its log-probabilities for example.
            The shape is the batch shape of the site.
        site: the site, as the trace holds it.
        plate: the name of the plate of the examples; None sums over all plates.
        batch_dims: the number of batch dimensions, including that of the particles, which is the
            leftmost; 0 for a program that was run without a plate of particles.

    Returns:
        Sums, shape [particles, batch], or [batch] without particles. With no plate, batch is one.

    Raises:
        InputError: if the site is not in the plate, or the values do not fit its plates.
    """
    check_plate(site, plate)
    frames = plates(site)
    dims = [frame.dim for frame in frames if frame.name == plate]
    values = values.reshape((1,) * (-min(dims, default=0) - values.dim()) + values.shape)
    sizes = {frame.dim: frame.size for frame in frames}
    for dim in range(-values.dim(), 0):
        size = sizes.get(dim, 1)
        if values.shape[dim] != size and size != -1:  # -1 is the size of a plate without one
            raise InputError(
                f"site '{site['name']}' has an invalid log_prob shape: {list(values.shape)} does "
                f"not fit its plates { ({frame.name: frame.dim for frame in frames}) }: declare "
                "every dimension by pyro.plate or by to_event"
            )
    remaining = {dims[0] % values.dim()} if dims else set()
    if batch_dims:
        values = values.reshape((1,) * (batch_dims - values.dim()) + values.shape)
        remaining = {0, *(dim % batch_dims for dim in dims[:1])}
    summed = [dim for dim in range(values.dim()) if dim not in remaining]
    values = values.sum(summed) if summed else values
    return values if dims else values.unsqueeze(-1)


def log_prob_per_example(
    trace: poutine.Trace,
    plate: str | None,
    batch_dims: int,
    include: Callable[[Site], bool] = lambda site: True,
    *,
    scaled: bool = False,
) -> Tensor:
    """Sum a trace's log-probabilities over every dimension but the particles and the examples.

    Args:
        trace: the trace of a program whose plates use at most `batch_dims` dimensions. If there is
            a plate of particles, it is the leftmost one.
        plate: the name of the plate of the examples; None if there is one number for all data.
        batch_dims: the number of batch dimensions, including that of the particles; 0 for a program
            that was run without a plate of particles.
        include: a predicate on sites: only sites for which it is true are summed. By default all.
        scaled: whether the scales of the sites count. Masks always count.

    Returns:
        Log-probabilities in nats, shape [particles, batch], or [batch] without particles.
    """
    total = torch.zeros(())
    trace.compute_log_prob()
    for _, site in sample_sites(trace):
        if include(site):
            scale = site["scale"] if scaled else 1.0
            log_prob = scale_and_mask(site["unscaled_log_prob"], scale, site["mask"])
            total = total + per_example(log_prob, site, plate, batch_dims)
    return total


def with_values(trace: poutine.Trace, change: Callable[[Tensor], Tensor]) -> poutine.Trace:
    """Copy a trace, with `change` applied to the value of each latent site."""
    copy = trace.copy()
    for name, site in sample_sites(trace):
        if not site["is_observed"]:
            copy.nodes[name] = {**site, "value": change(site["value"])}
    return copy


def is_observed(site: Site) -> bool:
    """Return whether a site is observed."""
    return bool(site["is_observed"])


def is_latent(site: Site) -> bool:
    """Return whether a site is latent, that is, not observed."""
    return not site["is_observed"]


def sample_sites(trace: poutine.Trace) -> list[tuple[str, Site]]:
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
