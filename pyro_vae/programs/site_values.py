"""The values of a site, with one dimension for each of its plates, in a known order."""

import math

import torch
from torch import Tensor

from pyro_vae.programs.traces import PARTICLES, Site, plates


def by_example(site: Site, plate: str | None) -> Tensor:
    """Return a site's values, with the dimensions of draws and examples first.

    Args:
        site: the site of a trace. Its value may be broadcast over its plates.
        plate: the name of the plate of the examples.

    Returns:
        Values of shape [draws, examples, other plates.., event..]. The first two dimensions are
        missing if the site is not in these plates, and dimensions without a plate are left out.
        Real values that a mask takes out are NaN.
    """
    value = torch.as_tensor(site["value"])
    event_dim, frames = site["fn"].event_dim, {frame.dim: frame for frame in plates(site)}
    if site["mask"] is not None and value.is_floating_point():
        mask = torch.as_tensor(site["mask"], device=value.device)
        value = torch.where(mask.reshape(mask.shape + (1,) * event_dim), value, math.nan)
    batch_dims = max(value.dim() - event_dim, -min(frames, default=0))
    value = value.reshape((1,) * (batch_dims + event_dim - value.dim()) + value.shape)
    sizes = [*value.shape]
    for dim, frame in frames.items():
        if frame.size != -1:  # the size of a plate without one
            sizes[batch_dims + dim] = frame.size
    value = value.expand(sizes)
    first = {PARTICLES: 0, plate: 1}
    ordered = sorted(frames, key=lambda dim: (first.get(frames[dim].name, 2), dim))
    axes = [batch_dims + dim for dim in ordered] + list(range(batch_dims, value.dim()))
    without_plate = [axis for axis in range(value.dim()) if axis not in axes]
    return value.permute([*axes, *without_plate]).reshape([sizes[axis] for axis in axes])
