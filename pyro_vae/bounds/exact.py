"""Exact log p(x), where it can be had."""

import math

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.bounds.weights import PARTICLES, Program, log_prob_per_example, sample_sites


def quadrature(
    model: Program,
    x: Tensor,
    *,
    site: str = "z",
    plate: str = "data",
    half_width: float = 6.0,
    points: int = 400,
    tolerance: float = 1e-3,
) -> Tensor:
    """Integrate a latent variable of one or two dimensions out, by the trapezoid rule.

    The rule converges faster than any power of the spacing for smooth integrands that vanish at
    the boundary. Both conditions are checked, so what is returned can be taken as exact.

    Args:
        model: a Pyro program, called as `model(x)`, whose one latent site has event shape [1] or
            [2]; every site has to be in the data plate, and that the only plate.
        x: the examples, along the first dimension.
        site: the name of the latent site.
        plate: the name of the data plate.
        half_width: the grid covers [-half_width, half_width] in each dimension.
        points: of the grid, in each dimension.
        tolerance: how far, in nats, the result may be from that of every second point.

    Returns:
        log p(x_i) in nats, `float64`, shape [len(x)].

    Raises:
        ValueError: if there is not just the one latent site, or it has more than two dimensions,
            or the grid is too narrow or too coarse for it.
    """
    with torch.no_grad():
        sites = dict(sample_sites(poutine.trace(model).get_trace(x[:1])))
        latent = [name for name, drawn in sites.items() if not drawn["is_observed"]]
        if latent != [site]:
            raise ValueError(f"quadrature is for one latent site, and the model has {latent}")
        drawn = sites[site]
        prior, dtype = drawn["fn"], drawn["value"].dtype
        dims = prior.event_shape.numel()
        if prior.event_dim != 1 or dims > 2:
            raise ValueError(
                f"site '{site}' has event shape {list(prior.event_shape)}: quadrature is for one "
                "or two dimensions"
            )
        line = torch.linspace(-half_width, half_width, points, device=x.device, dtype=dtype)
        index = torch.cartesian_prod(*[torch.arange(points, device=x.device)] * dims)
        index = index.reshape(-1, dims)
        spacing = 2 * half_width / (points - 1)
        inner = ((index > 0) & (index < points - 1)).all(1)
        coarse = (index % 2 == 0).all(1)
        sums = [torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)] * 3
        for part in torch.arange(len(index), device=x.device).split(max(1, 200_000 // len(x))):
            z = line[index[part]][:, None, :]  # the same for all examples, and decoded once
            particles = pyro.plate(PARTICLES, len(part), dim=-2)
            trace = poutine.trace(particles(poutine.condition(model, {site: z}))).get_trace(x)
            log_joint = log_prob_per_example(trace, plate, 2).double()
            for i, chosen in enumerate([torch.ones_like(inner), coarse, ~inner]):
                sums[i] = sums[i].logaddexp(log_joint[chosen[part]].logsumexp(0))
    log_p, half, edge = (total + dims * math.log(spacing) for total in sums)
    half = half + dims * math.log(2)
    if not (edge - log_p).max() <= math.log(tolerance):
        raise ValueError(f"the posterior reaches the edge of the grid: widen it from {half_width}")
    if not (half - log_p).abs().max() <= tolerance:
        raise ValueError(f"a grid of {points} points is too coarse: the posterior is narrower")
    return log_p
