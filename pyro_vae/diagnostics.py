"""What the latent code carries."""

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.bounds.weights import PARTICLES, Program, sample_sites


def active_units(
    guide: Program, x: Tensor, threshold: float = 0.01, num_samples: int = 32
) -> dict[str, int]:
    """Count the dimensions of each latent site whose posterior mean moves with x.

    A dimension is active if Var_x(E_q[z_d | x]) > threshold (Burda, Grosse & Salakhutdinov
    2016). A collapsed dimension has q(z_d | x) = p(z_d) for all x, and a variance of zero. The
    variance is estimated from draws, so that any guide will do, less what their noise adds to it.

    Args:
        guide: a Pyro program, called as `guide(x)`.
        x: examples, shape [N, *event].
        threshold: on the variance.
        num_samples: how many draws there are for each example, two at least.

    Returns:
        The number of active dimensions, by the name of the site.
    """
    draws: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        first = poutine.trace(guide).get_trace(x[:1])
        frames = [f for _, site in sample_sites(first) for f in site["cond_indep_stack"]]
        left = min(frame.dim for frame in frames) - 1  # of all of the guide's own plates
        many = pyro.plate(PARTICLES, num_samples, dim=left)(guide)
        for part in x.split(1000):
            for name, site in sample_sites(poutine.trace(many).get_trace(part)):
                draws.setdefault(name, []).append(site["value"].flatten(2))
    counts = {}
    for name, parts in draws.items():
        z = torch.cat(parts, 1)  # [num_samples, N, D]
        noise = z.var(0).mean(0) / num_samples
        counts[name] = int((z.mean(0).var(0, correction=0) - noise > threshold).sum())
    return counts
