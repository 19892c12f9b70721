"""The cost of a code, its information about x, and its worth to the decoder.

    rate        R = E_x KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z))
    distortion  D = -E_x E_q[log p(x|z)],    ELBO = -(R + D)

Here q(z) = E_x q(z|x) is the aggregated posterior, and I(x; z) is the mutual information under q
(Hoffman & Johnson 2016; Alemi et al. 2018). q(z) is not known. N examples give two estimates of it
at the code of one of them, and both are biased (Poole et al. 2019):

- The mean over all N, which includes the example's own q(z|x), is too large at its code. On
  average I comes out too small, and never above log N. It is exact if the N examples are the whole
  population.
- The mean over the N - 1 others is too small there. On average I comes out too large.

In expectation the truth is between the two. Both come from the same draws. R is above I, too.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.diagnostics.means import mean_and_error
from pyro_vae.errors import InputError
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.traces import (
    PARTICLES,
    Program,
    is_latent,
    is_observed,
    log_prob_per_example,
    plate_nesting,
    traces,
    with_values,
)

PART = 250  # examples whose codes are drawn at once
CODES = 200  # codes that are scored at once under the posteriors of all examples


@dataclass(frozen=True)
class Information:
    """What `measure` returns: a value for each example, in nats, shape [N].

    The quantities of the module's docstring are the means over the examples.

    Attributes:
        rate: R.
        distortion: D.
        prior_distortion: -log p(x|z) with z drawn from the prior: the distortion if the decoder is
            told nothing about x. If it is no more than D, the decoder does not use z.
        mutual_information: I(x; z), estimated from below; at most log N.
        mutual_information_above: I(x; z), estimated from above.
    """

    rate: Tensor
    distortion: Tensor
    prior_distortion: Tensor
    mutual_information: Tensor
    mutual_information_above: Tensor

    @property
    def marginal_kl(self) -> Tensor:
        """KL(q(z) || p(z)), estimated from above: R minus the mutual information from below."""
        return self.rate - self.mutual_information

    @property
    def gain(self) -> Tensor:
        """The increase of log p(x|z) when z is drawn from q(z|x) instead of p(z)."""
        return self.prior_distortion - self.distortion

    def to_dict(self) -> dict[str, Any]:
        """Return the mean over examples and its standard error, for each quantity, in nats."""
        return {
            name: mean_and_error(getattr(self, name))
            for name in (
                *("rate", "distortion", "prior_distortion", "gain"),
                *("mutual_information", "mutual_information_above", "marginal_kl"),
            )
        }


def measure(model: Program, guide: Program, x: Tensor, seed: int = 0) -> Information:
    """Measure rate, distortion and mutual information, from one draw of z for each example.

    The density of each example's code is computed under the posterior of every example. These are
    N^2 densities, and for each of them an autoregressive flow needs one pass for each dimension of
    z. Memory holds the densities of 200 N codes at once.

    Args:
        model: a Pyro program, called as `model(x)`, in evaluation mode.
        guide: a Pyro program, called as `guide(x)`, with one dimension of plates.
        x: examples, shape [N, *event], two at least.
        seed: seed of the draws.

    Raises:
        InputError: if there is only one example, or there are plates other than the data's.
    """
    if len(x) < 2:
        raise InputError("mutual information needs two examples or more")
    with torch.no_grad(), preserve_rng_state(x):
        torch.manual_seed(seed)
        if plate_nesting(*traces(model, guide, x[:2])) != 1:
            raise InputError("mutual information supports no plate other than the data's")
        parts = [_measure_part(model, guide, part, x) for part in x.split(PART)]
        log_q, log_prior, log_likelihood, log_likelihood_of_prior, pairs = map(
            torch.cat, zip(*parts, strict=True)
        )
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        mean_of_all = pairs.logsumexp(1) - math.log(len(x))
        mean_of_others = pairs.masked_fill(own, -math.inf).logsumexp(1) - math.log(len(x) - 1)
        return Information(
            rate=log_q - log_prior,
            distortion=-log_likelihood,
            prior_distortion=-log_likelihood_of_prior,
            mutual_information=pairs.diagonal() - mean_of_all,
            mutual_information_above=pairs.diagonal() - mean_of_others,
        )


def _measure_part(model: Program, guide: Program, part: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Draw a code for each example of a part of x, and return log-densities.

    Returns:
        For each code log q(z|x), log p(z) and log p(x|z), and log p(x|z) of a z from the prior; and
        log q(z | x_j) for all examples x_j, shape [part, N].
    """
    model_trace, guide_trace = traces(model, guide, part)
    log_q = log_prob_per_example(guide_trace, "data", 0)
    log_prior = log_prob_per_example(model_trace, "data", 0, is_latent)
    log_likelihood = log_prob_per_example(model_trace, "data", 0, is_observed)
    prior_trace = poutine.trace(model).get_trace(part)
    log_likelihood_of_prior = log_prob_per_example(prior_trace, "data", 0, is_observed)
    pairs = _log_q_of_all(guide, guide_trace, len(part), x)
    return log_q, log_prior, log_likelihood, log_likelihood_of_prior, pairs


def _log_q_of_all(guide: Program, trace: poutine.Trace, size: int, x: Tensor) -> Tensor:
    """Return log q(z_i | x_j) for the `size` codes z_i of a trace, and all x_j: [size, N]."""
    rows = []
    for indices in torch.arange(size).split(CODES):
        codes = with_values(trace, partial(_repeat_for_each, indices, len(x)))
        codes.nodes.pop("data", None)  # the plate of the trace, which has another size
        scored = pyro.plate(PARTICLES, len(indices), dim=-2)(poutine.replay(guide, trace=codes))
        rows.append(log_prob_per_example(poutine.trace(scored).get_trace(x), "data", 2))
    return torch.cat(rows)


def _repeat_for_each(indices: Tensor, count: int, z: Tensor) -> Tensor:
    """Return the codes of some indices, repeated for `count` examples: [I, count, *event]."""
    return z[indices].unsqueeze(1).expand(len(indices), count, *z.shape[1:])
