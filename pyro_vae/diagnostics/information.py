"""What a code costs, what it says of x, and what it is good for.

    rate        R = E_x KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z))
    distortion  D = -E_x E_q[log p(x|z)],    ELBO = -(R + D)

with q(z) = E_x q(z|x), the aggregated posterior, and I(x; z) the mutual information under q
(Hoffman & Johnson 2016; Alemi et al. 2018). q(z) is not known; among N examples there are two
estimates of it for the code of one of them, and neither is without bias (Poole et al. 2019):

- the mean over all N, that example's own q(z|x) included, is too large at its code. I comes out too
  small in the mean, and never above log N. Of the N examples, taken as all there are, it is exact.
- the mean over the N - 1 others is too small there. I comes out too large in the mean.

The truth is between the two, in expectation; both come from the same draws. R is above I too.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.errors import InputError
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


@dataclass(frozen=True)
class Information:
    """What `measure` found, each example's share, in nats, shape [N]; means are what is meant.

    Attributes:
        rate: R.
        distortion: D.
        prior_distortion: -log p(x|z) with z drawn from the prior instead: what the decoder can do
            without being told about x. Where that is no more than D, it does not use z.
        mutual_information: I(x; z), from below; at most log N.
        mutual_information_above: I(x; z), from above.
    """

    rate: Tensor
    distortion: Tensor
    prior_distortion: Tensor
    mutual_information: Tensor
    mutual_information_above: Tensor

    @property
    def marginal_kl(self) -> Tensor:
        """KL(q(z) || p(z)), from above, as the mutual information is from below."""
        return self.rate - self.mutual_information

    @property
    def gain(self) -> Tensor:
        """What z, drawn from q(z|x) and not from p(z), adds to log p(x|z)."""
        return self.prior_distortion - self.distortion

    def to_dict(self) -> dict[str, Any]:
        """Return the mean and the standard error over examples of each."""
        return {
            name: mean_and_error(getattr(self, name))
            for name in (
                *("rate", "distortion", "prior_distortion", "gain"),
                *("mutual_information", "mutual_information_above", "marginal_kl"),
            )
        }


def measure(model: Program, guide: Program, x: Tensor, seed: int = 0) -> Information:
    """Measure rate, distortion and mutual information, from one draw of z for each example.

    It scores the code of every example under every other's posterior: N^2 densities, for each of
    which an autoregressive flow takes a pass for each dimension; memory is of 200 N codes at once.

    Args:
        model: a Pyro program, called as `model(x)`, in evaluation mode.
        guide: a Pyro program, called as `guide(x)`, with one dimension of plates.
        x: examples, shape [N, *event], two at least.
        seed: of the draws.

    Raises:
        InputError: if there is one example only, or there are plates beside that of the data.
    """
    if len(x) < 2:
        raise InputError("mutual information needs two examples or more")
    devices = [x.device] if x.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        if plate_nesting(model, guide, x[:2]) != 1:
            raise InputError("mutual information knows no plates beside that of the data")
        parts: list[tuple[Tensor, ...]] = []
        for part in x.split(250):
            model_trace, guide_trace = traces(model, guide, part)
            log_q = log_prob_per_example(guide_trace, "data", 0)
            log_prior = log_prob_per_example(model_trace, "data", 0, is_latent)
            log_likelihood = log_prob_per_example(model_trace, "data", 0, is_observed)
            guessed = poutine.trace(model).get_trace(part)
            from_prior = log_prob_per_example(guessed, "data", 0, is_observed)
            pairs = _log_q_of_all(guide, guide_trace, len(part), x)
            parts.append((log_q, log_prior, log_likelihood, from_prior, pairs))
        log_q, log_prior, log_likelihood, from_prior, pairs = map(
            torch.cat, zip(*parts, strict=True)
        )
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        with_own = pairs.logsumexp(1) - math.log(len(x))
        others = pairs.masked_fill(own, -math.inf).logsumexp(1) - math.log(len(x) - 1)
        return Information(
            rate=log_q - log_prior,
            distortion=-log_likelihood,
            prior_distortion=-from_prior,
            mutual_information=pairs.diagonal() - with_own,
            mutual_information_above=pairs.diagonal() - others,
        )


def mean_and_error(values: Tensor) -> dict[str, float | None]:
    """Return a mean and its standard error, None where it is not finite."""
    numbers = {
        "mean": values.mean().item(),
        "se": (values.double().std() / len(values) ** 0.5).item(),
    }
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def _log_q_of_all(guide: Program, trace: poutine.Trace, size: int, x: Tensor) -> Tensor:
    """Return log q(z_i | x_j) for the `size` codes z_i of a trace, and all x_j: [size, N]."""
    rows = []
    for indices in torch.arange(size).split(200):
        held = with_values(trace, partial(_for_each, indices, len(x)))
        held.nodes.pop("data", None)  # which examples the trace was of
        many = pyro.plate(PARTICLES, len(indices), dim=-2)(poutine.replay(guide, trace=held))
        rows.append(log_prob_per_example(poutine.trace(many).get_trace(x), "data", 2))
    return torch.cat(rows)


def _for_each(indices: Tensor, count: int, z: Tensor) -> Tensor:
    """Choose codes, and repeat them for each of `count` examples: [I, count, *event]."""
    return z[indices].unsqueeze(1).expand(len(indices), count, *z.shape[1:])
