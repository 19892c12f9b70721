"""The single dimensions of a code: which of them depend on x, and their KL."""

import contextlib
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta, Independent
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.diagnostics.local_codes import check_codes, latent_sites, look_at_codes
from pyro_vae.errors import InputError
from pyro_vae.programs.agreement import between_batches, between_particles
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.pair import Pair
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.site_values import by_example
from pyro_vae.programs.sites import base, plate_of_examples
from pyro_vae.programs.traces import Program, Site, plate_nesting

THRESHOLD = 0.01  # Burda, Grosse & Salakhutdinov (2016)
PART = 1000  # examples whose codes are drawn at once


def unit_means(
    guide: Program, x: Any, num_samples: int = 32, *, plate: str | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Estimate the mean and the variance of q(z_d | x), from draws, so that any guide can be used.

    Args:
        guide: a Pyro program whose latent sites are all in the plate of the examples.
        x: the data, which the guide is called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`.
        num_samples: the number of draws for each example, two at least.
        plate: the name of the plate of the examples; by default it is found.

    Returns:
        By the name of each latent site: the means, shape [N, D], and the mean over x of the
        variances, shape [D]. D counts all values that an example has, in other plates too.

    Raises:
        InputError: if some latent site is outside the plate of the examples, or masked, or has
            integer values.
    """
    arguments = Arguments.of(x)
    draws: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        pair = _look_at_guide(guide, arguments, plate)
        # Published numbers have the noise that follows a run of the guide on one example.
        with contextlib.suppress(Exception):
            arguments.take(slice(1)).call(guide)
        count = num_samples if pair.vectorize else None
        for part in arguments.split(pair.batch_size):
            runs = [
                pair.run_guide(part, count, poutine.Trace())
                for _ in range(1 if pair.vectorize else num_samples)
            ]
            for name, _ in latent_sites(runs[0]):
                values = [by_example(run.nodes[name], pair.plate) for run in runs]
                z = values[0] if pair.vectorize else torch.stack(values)
                draws.setdefault(name, []).append(z.reshape(*z.shape[:2], -1))
    moments = {}
    for name, parts in draws.items():
        z = torch.cat(parts, 1)  # [num_samples, N, D]
        moments[name] = z.mean(0), z.var(0).mean(0)
    return moments


def _look_at_guide(guide: Program, arguments: Arguments, plate: str | None) -> Pair:
    """Return how a guide may be run, as a pair in which it is the model too."""
    with preserve_rng_state(arguments):
        trace = arguments.call(poutine.trace(guide).get_trace)
        sites = latent_sites(trace)
        plate = plate_of_examples(sites, arguments, plate)
        check_codes(sites, plate)
        for name, site in sites:
            if not site["value"].is_floating_point():
                raise InputError(
                    f"the values of site '{name}' are integers, whose mean says nothing of a code: "
                    "draw one-hot vectors, as OneHotCategorical does",
                    "guide",
                )
        pair = Pair(
            guide, guide, plate, plate_nesting(trace), vectorize=False, batch_size=len(arguments)
        )
        # Computed values are not compared, since each program computes its own.
        if any(isinstance(base(site["fn"]), Delta) for _, site in sites):
            return pair
        whole = pair.draw(arguments, 1, always_a_dimension=False)
        if len(arguments) > PART and not between_batches(pair, arguments, whole, PART):
            pair = replace(pair, batch_size=PART)
        part = arguments.take(slice(pair.batch_size))
        vectorized = replace(pair, vectorize=True)
        return pair if between_particles(vectorized, part) else vectorized


def unit_shares(
    guide: Program, x: Any, num_samples: int = 32, *, plate: str | None = None
) -> dict[str, Tensor]:
    """Estimate the share of the variance of each dimension that is the variance of its mean.

        Var_x(E_q[z_d | x]) / (Var_x(E_q[z_d | x]) + E_x(Var_q[z_d | x]))

    A collapsed dimension has q(z_d | x) = p(z_d) for all x, and a share of zero. Where the prior is
    N(0, 1) the denominator is about one, and this is the variance of Burda, Grosse & Salakhutdinov
    (2016); other priors have other scales. The variance that the noise of the draws adds to the
    means is subtracted.

    Args:
        guide: as in `unit_means`.
        x: as in `unit_means`.
        num_samples: the number of draws for each example, two at least.
        plate: as in `unit_means`.

    Returns:
        By the name of each latent site, shape [D]; 0 for a dimension that is constant.

    Raises:
        InputError: as `unit_means`.
    """
    shares = {}
    for name, (mean, within) in unit_means(guide, x, num_samples, plate=plate).items():
        between = mean.var(0, correction=0) - within / num_samples
        shares[name] = between / (between + within).clamp(min=1e-30)
    return shares


def active_units(
    guide: Program,
    x: Any,
    threshold: float = THRESHOLD,
    num_samples: int = 32,
    *,
    plate: str | None = None,
) -> dict[str, int]:
    """Count the dimensions of each latent site whose posterior mean depends on x.

    A dimension is active if the variance of its posterior mean is more than the share `threshold`
    of its variance (Burda, Grosse & Salakhutdinov 2016; see `unit_shares`).

    Args:
        guide: as in `unit_means`.
        x: as in `unit_means`.
        threshold: the share above which a dimension is active.
        num_samples: the number of draws for each example, two at least.
        plate: as in `unit_means`.

    Returns:
        The number of active dimensions, by the name of the site.

    Raises:
        InputError: as `unit_means`.
    """
    shares = unit_shares(guide, x, num_samples, plate=plate)
    return {name: int((share > threshold).sum()) for name, share in shares.items()}


def kl_per_unit(
    model: Program, guide: Program, x: Any, *, plate: str | None = None
) -> dict[str, Tensor | None]:
    """Return the KL of each dimension of each latent site, where dimensions are independent.

    Args:
        model: a Pyro program, whose latent sites are all in the plate of the examples.
        guide: a Pyro program, the model's guide.
        x: the data, which both programs are called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`.
        plate: the name of the plate of the examples; by default it is found.

    Returns:
        By the name of the site, the mean over x in nats, shape [D]: in closed form where there is
        one, and otherwise from one draw for each x. None where the dimensions of the posterior or
        of the prior are not independent, so that the KL is not a sum over dimensions, or where the
        guide computes the values from other noise.

    Raises:
        InputError: if the latent sites are no code of single examples.
    """
    arguments = Arguments.of(x)
    return kl_per_unit_of_pair(look_at_codes(model, guide, arguments, plate, 250), arguments)


def kl_per_unit_of_pair(pair: Pair, arguments: Arguments) -> dict[str, Tensor | None]:
    """Do the same for programs that have been looked at.

    Args:
        pair: the programs, from `look_at_codes`.
        arguments: what they are called with, for all examples.
    """
    parts_by_site: dict[str, list[Tensor] | None] = {}
    with torch.no_grad():
        for part in arguments.split(pair.batch_size):
            draws = pair.draw(part, 1, always_a_dimension=False)
            ((model_trace, guide_trace),) = draws.runs
            check_codes(latent_sites(guide_trace), pair.plate)
            for name, site in latent_sites(guide_trace):
                kl = _kl_of_dimensions(site, model_trace.nodes[name]["fn"])
                if kl is None:
                    parts_by_site[name] = None
                    continue
                parts = parts_by_site.setdefault(name, [])
                if parts is not None:
                    kl = by_example({**site, "value": kl}, pair.plate)
                    parts.append(kl.reshape(len(kl), -1))
    return {
        name: None if parts is None else torch.cat(parts).mean(0)
        for name, parts in parts_by_site.items()
    }


def _kl_of_dimensions(site: Site, p: Any) -> Tensor | None:
    """Return the KL of each dimension of a site, in the shape of its values, or one draw of it."""
    q, dims = site["fn"], site["fn"].event_dim
    if dims != p.event_dim or isinstance(base(q), Delta):
        return None
    if dims:
        if not all(
            isinstance(d, Independent) and d.reinterpreted_batch_ndims == dims for d in (q, p)
        ):
            return None
        q, p = q.base_dist, p.base_dist
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return q.log_prob(site["value"]) - p.log_prob(site["value"])
