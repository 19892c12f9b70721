"""The score-function gradient, for sites of the guide that are not reparameterised.

The gradient of E_q[cost] with respect to a parameter of such a site z is E_q[cost grad log q(z)].
The cost of z is the sum of the terms of the loss that z can have an influence on. Plates say that
their elements are independent of each other: so the cost of one element has all terms outside of
the plates of z, and within these plates only the terms of the same element. The other terms have
mean zero in the product, and would be noise. This is what `pyro.infer.Trace_ELBO` does.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Independent, Rejector
from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.infer.util import MultiFrameTensor
from torch import Tensor

from pyro_vae.programs.pair import Draws
from pyro_vae.programs.sites import base
from pyro_vae.programs.traces import Site, sample_sites

Run = tuple[poutine.Trace, poutine.Trace]  # the traces of the model and of the guide


def score_term(
    draws: Draws,
    costs: Callable[[Draws, Run], Iterable[tuple[Site, Tensor]]],
) -> Tensor:
    """Return the sum over draws and sites of the cost times the score, to be differentiated.

    Args:
        draws: the draws.
        costs: a function that returns the terms of the loss of one run, in nats. Each term has the
            batch shape of a site, and comes with this site.
    """
    total = torch.zeros(())
    for run in draws.runs:
        summed = MultiFrameTensor()
        for site, cost in costs(draws, run):
            summed.add((site["cond_indep_stack"], cost.detach()))
        model_sites = dict(sample_sites(run[0]))
        for name, site in sample_sites(run[1]):
            if is_reparameterised(site):
                continue
            mask = model_sites[name]["mask"] if name in model_sites else site["mask"]
            score = scale_and_mask(_score(site), mask=mask)
            total = total + (summed.sum_to(site["cond_indep_stack"]) * score).sum()
    return total


def is_reparameterised(site: Site) -> bool:
    """Return whether the whole gradient of a site goes through its value."""
    return site["fn"].has_rsample and not isinstance(base(site["fn"]), Rejector)


def _score(site: Site) -> Tensor:
    """Return the log-probabilities whose gradient is the score, in the batch shape of the site.

    Rejection samplers are reparameterised in part: their score is that of the acceptance.
    """
    if isinstance(base(site["fn"]), Rejector):
        return _score_of_acceptance(site["fn"], site["value"])
    return site["unscaled_log_prob"]


def _score_of_acceptance(fn: Any, value: Tensor) -> Tensor:
    if isinstance(fn, Independent):  # its own score_parts would leave the score out
        score = _score_of_acceptance(fn.base_dist, value)
        return sum_rightmost(score, fn.reinterpreted_batch_ndims)
    return fn.score_parts(value).score_function
