"""The single dimensions of a code: which of them move with x, and what they cost."""

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Independent
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.errors import InputError
from pyro_vae.programs.traces import PARTICLES, Program, sample_sites, traces

THRESHOLD = 0.01  # of Burda et al.


def unit_means(
    guide: Program, x: Tensor, num_samples: int = 32
) -> dict[str, tuple[Tensor, Tensor]]:
    """Estimate the mean and the variance of q(z_d | x), from draws, so that any guide will do.

    Args:
        guide: a Pyro program, called as `guide(x)`, with one dimension of plates.
        x: examples, shape [N, *event].
        num_samples: how many draws there are for each example, two at least.

    Returns:
        By the name of each latent site: the means, shape [N, D], and the variances in the mean over
        x, shape [D].

    Raises:
        InputError: if there are plates beside that of the data.
    """
    draws: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        first = poutine.trace(guide).get_trace(x[:1])
        frames = [frame for _, site in _latent(first) for frame in site["cond_indep_stack"]]
        if {frame.dim for frame in frames if frame.vectorized} != {-1}:
            raise InputError("single units are known of programs with no plate but the data's")
        many = pyro.plate(PARTICLES, num_samples, dim=-2)(guide)
        for part in x.split(1000):
            for name, site in _latent(poutine.trace(many).get_trace(part)):
                drawn = site["value"].reshape(num_samples, len(part), -1)
                draws.setdefault(name, []).append(drawn)
    found = {}
    for name, parts in draws.items():
        z = torch.cat(parts, 1)  # [num_samples, N, D]
        found[name] = z.mean(0), z.var(0).mean(0)
    return found


def unit_shares(guide: Program, x: Tensor, num_samples: int = 32) -> dict[str, Tensor]:
    """Estimate which share of the variance of each dimension is that of its posterior mean.

        Var_x(E_q[z_d | x]) / (Var_x(E_q[z_d | x]) + E_x(Var_q[z_d | x]))

    A collapsed dimension has q(z_d | x) = p(z_d) for all x, and a share of zero. Where the prior is
    N(0, 1) the denominator is about one, and this is the variance of Burda, Grosse & Salakhutdinov
    (2016); other priors have other scales. What the noise of draws adds to the means is taken off.

    Args:
        guide: a Pyro program, called as `guide(x)`, with one dimension of plates.
        x: examples, shape [N, *event].
        num_samples: how many draws there are for each example, two at least.

    Returns:
        By the name of each latent site, shape [D]; 0 for a dimension that never moves.

    Raises:
        InputError: if there are plates beside that of the data.
    """
    shares = {}
    for name, (mean, within) in unit_means(guide, x, num_samples).items():
        between = mean.var(0, correction=0) - within / num_samples
        shares[name] = between / (between + within).clamp(min=1e-30)
    return shares


def active_units(
    guide: Program, x: Tensor, threshold: float = THRESHOLD, num_samples: int = 32
) -> dict[str, int]:
    """Count the dimensions of each latent site whose posterior mean moves with x.

    A dimension is active if the variance of its mean is more than `threshold` of its own (Burda,
    Grosse & Salakhutdinov 2016; see `unit_shares`).

    Args:
        guide: a Pyro program, called as `guide(x)`.
        x: examples, shape [N, *event].
        threshold: on the share.
        num_samples: how many draws there are for each example, two at least.

    Returns:
        The number of active dimensions, by the name of the site.
    """
    variances = unit_shares(guide, x, num_samples)
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
            for name, site in _latent(guide_trace):
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


def _latent(trace: poutine.Trace) -> list[tuple[str, dict[str, Any]]]:
    """Return the sites of a guide that are the model's too."""
    return [(n, site) for n, site in sample_sites(trace) if not site["infer"].get("is_auxiliary")]
