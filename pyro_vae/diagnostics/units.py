"""The single dimensions of a code: which of them move with x, and what they cost."""

import pyro
import torch
from pyro import poutine
from pyro.distributions import Independent
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.bounds.weights import PARTICLES, Program, sample_sites, traces

THRESHOLD = 0.01  # of Burda et al.


def unit_means(
    guide: Program, x: Tensor, num_samples: int = 32
) -> dict[str, tuple[Tensor, Tensor]]:
    """Estimate E_q[z_d | x], from draws, so that any guide will do.

    Args:
        guide: a Pyro program, called as `guide(x)`.
        x: examples, shape [N, *event].
        num_samples: how many draws there are for each example, two at least.

    Returns:
        By the name of each latent site: the means, shape [N, D], and how large the variance of
        their noise is, in the mean over x, shape [D].
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
    found = {}
    for name, parts in draws.items():
        z = torch.cat(parts, 1)  # [num_samples, N, D]
        found[name] = z.mean(0), z.var(0).mean(0) / num_samples
    return found


def unit_variances(guide: Program, x: Tensor, num_samples: int = 32) -> dict[str, Tensor]:
    """Estimate Var_x(E_q[z_d | x]) of each dimension, less what the noise of draws adds to it.

    A collapsed dimension has q(z_d | x) = p(z_d) for all x, and a variance of zero.

    Args:
        guide: a Pyro program, called as `guide(x)`.
        x: examples, shape [N, *event].
        num_samples: how many draws there are for each example, two at least.

    Returns:
        By the name of each latent site, shape [D].
    """
    means = unit_means(guide, x, num_samples)
    return {name: mean.var(0, correction=0) - noise for name, (mean, noise) in means.items()}


def active_units(
    guide: Program, x: Tensor, threshold: float = THRESHOLD, num_samples: int = 32
) -> dict[str, int]:
    """Count the dimensions of each latent site whose posterior mean moves with x.

    A dimension is active if Var_x(E_q[z_d | x]) > threshold (Burda, Grosse & Salakhutdinov 2016).

    Args:
        guide: a Pyro program, called as `guide(x)`.
        x: examples, shape [N, *event].
        threshold: on the variance.
        num_samples: how many draws there are for each example, two at least.

    Returns:
        The number of active dimensions, by the name of the site.
    """
    variances = unit_variances(guide, x, num_samples)
    return {name: int((variance > threshold).sum()) for name, variance in variances.items()}


def kl_per_unit(model: Program, guide: Program, x: Tensor) -> dict[str, Tensor | None]:
    """Share out the KL of each latent site among its dimensions, where they are independent.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`.
        x: examples, shape [N, *event].

    Returns:
        By the name of the site, nats, the mean over x, shape [D]: in closed form where there is
        one, and otherwise from one draw for each x. None where posterior or prior knows no
        independent dimensions: then there is no sharing it out.
    """
    found: dict[str, list[Tensor] | None] = {}
    with torch.no_grad():
        for part in x.split(250):
            model_trace, guide_trace = traces(model, guide, part)
            for name, site in sample_sites(guide_trace):
                q, p = site["fn"], model_trace.nodes[name]["fn"]
                if not all(
                    isinstance(d, Independent) and d.reinterpreted_batch_ndims == 1 for d in (q, p)
                ):
                    found[name] = None
                    continue
                q, p = q.base_dist, p.base_dist
                try:
                    kl = kl_divergence(q, p)
                except NotImplementedError:
                    kl = q.log_prob(site["value"]) - p.log_prob(site["value"])
                parts = found.setdefault(name, [])
                if parts is not None:
                    parts.append(kl)
    return {name: None if kl is None else torch.cat(kl).mean(0) for name, kl in found.items()}
