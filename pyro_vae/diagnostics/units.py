"""The single dimensions of a code: which of them depend on x, and their KL."""

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Independent
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.errors import InputError
from pyro_vae.programs.traces import PARTICLES, Program, sample_sites, traces

THRESHOLD = 0.01  # Burda, Grosse & Salakhutdinov (2016)


def unit_means(
    guide: Program, x: Tensor, num_samples: int = 32
) -> dict[str, tuple[Tensor, Tensor]]:
    """Estimate the mean and the variance of q(z_d | x), from draws, so that any guide can be used.

    Args:
        guide: a Pyro program, called as `guide(x)`, with one dimension of plates.
        x: examples, shape [N, *event].
        num_samples: the number of draws for each example, two at least.

    Returns:
        By the name of each latent site: the means, shape [N, D], and the mean over x of the
        variances, shape [D].

    Raises:
        InputError: if there are plates other than the data's.
    """
    draws: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        trace = poutine.trace(guide).get_trace(x[:1])
        frames = [frame for _, site in _latent_sites(trace) for frame in site["cond_indep_stack"]]
        if {frame.dim for frame in frames if frame.vectorized} != {-1}:
            raise InputError(
                "the units of a code can be measured only in programs whose one plate is the data's"
            )
        vectorized = pyro.plate(PARTICLES, num_samples, dim=-2)(guide)
        for part in x.split(1000):
            for name, site in _latent_sites(poutine.trace(vectorized).get_trace(part)):
                drawn = site["value"].reshape(num_samples, len(part), -1)
                draws.setdefault(name, []).append(drawn)
    moments = {}
    for name, parts in draws.items():
        z = torch.cat(parts, 1)  # [num_samples, N, D]
        moments[name] = z.mean(0), z.var(0).mean(0)
    return moments


def unit_shares(guide: Program, x: Tensor, num_samples: int = 32) -> dict[str, Tensor]:
    """Estimate the share of the variance of each dimension that is the variance of its mean.

        Var_x(E_q[z_d | x]) / (Var_x(E_q[z_d | x]) + E_x(Var_q[z_d | x]))

    A collapsed dimension has q(z_d | x) = p(z_d) for all x, and a share of zero. Where the prior is
    N(0, 1) the denominator is about one, and this is the variance of Burda, Grosse & Salakhutdinov
    (2016); other priors have other scales. The variance that the noise of the draws adds to the
    means is subtracted.

    Args:
        guide: a Pyro program, called as `guide(x)`, with one dimension of plates.
        x: examples, shape [N, *event].
        num_samples: the number of draws for each example, two at least.

    Returns:
        By the name of each latent site, shape [D]; 0 for a dimension that is constant.

    Raises:
        InputError: if there are plates other than the data's.
    """
    shares = {}
    for name, (mean, within) in unit_means(guide, x, num_samples).items():
        between = mean.var(0, correction=0) - within / num_samples
        shares[name] = between / (between + within).clamp(min=1e-30)
    return shares


def active_units(
    guide: Program, x: Tensor, threshold: float = THRESHOLD, num_samples: int = 32
) -> dict[str, int]:
    """Count the dimensions of each latent site whose posterior mean depends on x.

    A dimension is active if the variance of its posterior mean is more than the share `threshold`
    of its variance (Burda, Grosse & Salakhutdinov 2016; see `unit_shares`).

    Args:
        guide: a Pyro program, called as `guide(x)`.
        x: examples, shape [N, *event].
        threshold: the share above which a dimension is active.
        num_samples: the number of draws for each example, two at least.

    Returns:
        The number of active dimensions, by the name of the site.
    """
    shares = unit_shares(guide, x, num_samples)
    return {name: int((share > threshold).sum()) for name, share in shares.items()}


def kl_per_unit(model: Program, guide: Program, x: Tensor) -> dict[str, Tensor | None]:
    """Return the KL of each dimension of each latent site, where dimensions are independent.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`.
        x: examples, shape [N, *event].

    Returns:
        By the name of the site, the mean over x in nats, shape [D]: in closed form where there is
        one, and otherwise from one draw for each x. None where the dimensions of the posterior or
        of the prior are not independent, so that the KL is not a sum over dimensions.
    """
    parts_by_site: dict[str, list[Tensor] | None] = {}
    with torch.no_grad():
        for part in x.split(250):
            model_trace, guide_trace = traces(model, guide, part)
            for name, site in _latent_sites(guide_trace):
                q, p = site["fn"], model_trace.nodes[name]["fn"]
                if not all(
                    isinstance(d, Independent) and d.reinterpreted_batch_ndims == 1 for d in (q, p)
                ):
                    parts_by_site[name] = None
                    continue
                q, p = q.base_dist, p.base_dist
                try:
                    kl = kl_divergence(q, p)
                except NotImplementedError:
                    kl = q.log_prob(site["value"]) - p.log_prob(site["value"])
                parts = parts_by_site.setdefault(name, [])
                if parts is not None:
                    parts.append(kl)
    return {
        name: None if parts is None else torch.cat(parts).mean(0)
        for name, parts in parts_by_site.items()
    }


def _latent_sites(trace: poutine.Trace) -> list[tuple[str, dict[str, Any]]]:
    """Return the sites of a guide that are sites of the model too."""
    return [(n, site) for n, site in sample_sites(trace) if not site["infer"].get("is_auxiliary")]
