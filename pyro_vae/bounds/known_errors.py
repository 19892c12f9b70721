"""When a Monte Carlo error can be stated: the rule for all estimates.

The variance v of a log-mean L = log(1/K sum_k w_k) is estimated by the delta method, which gives at
most 1: it cannot tell a spread of 2 nats from one of 2,000. So v is checked against two numbers
that are not too small.

1. **The jackknife variance** (K - 1) / K sum_k (L_(-k) - mean)^2, where L_(-k) leaves draw k out.
   Its expectation is not below (K - 1) / K times the variance of a log-mean of K - 1 draws, however
   heavy the tails are (Efron & Stein 1981). In simulations with log-normal weights (sigma 0.3 to
   20) and Pareto weights (tail index 3 to 0.1), K = 5 to 5000, it was 0.8 to 1.3 times the variance
   over reruns; the delta method was down to 0.004 times. But it is noisy: a single example whose
   weights are heavy can have a jackknife variance that is too small by chance.
2. **The Poincare limit** c Var(log w) v. The derivative of L with respect to log w_k is the share
   p_k of the weight. Poincare's inequality gives Var(L) <= c Var(log w) E[sum_k p_k^2], with c = 1
   if log w is normal and c = 4 if it is exponential (Pareto weights); sum p^2 is v + 1/K. The
   variance of log w is known well even if one draw has nearly all the weight. For weights with
   light tails this limit is far too large. So it is used, with c = 2 and at least 2 v, where k-hat
   is above its limit. With c = 1 it is used for the weights of fewer than 26 draws, which have no
   k-hat, and for annealed weights of fewer than 30 examples, whose log w is a sum of many terms.

The larger one is the limit of v. A single example's error is unknown if the limit is above
`TOLERANCE` v, so always if its k-hat is above the limit. The error of a mean is unknown

- if the sum of the limits is above `TOLERANCE` times the sum of the variances: it may be more than
  1.3 times too small. No share of heavy examples is harmless: 4 % with a spread of 6 nats made an
  error 4 times too small. None is harmful in itself either: what counts is their variance;
- if it is estimated with fewer than nine degrees of freedom over all examples. With one, an error
  is 1.3 times too small more often than not; with nine, in one case of six.

Nothing is corrected: an error is as the formula gives it, or unknown. In simulations with 300
examples of one kind no error that was stated was more than 1.35 times too small. Two cases are
left. If k-hat is below its limit by chance for the few examples that have nearly all the variance,
the error is stated, and may be several times too small. And no sample shows draws that it lacks.
"""

import torch
from torch import Tensor

from pyro_vae.bounds.khat import good_k

TOLERANCE = 1.3**2  # of a variance
FREEDOM = 9
MANY = 30  # examples, over which the noise of jackknife variances averages out


def variance_limit(variance: Tensor, jackknife: Tensor, factor: Tensor) -> Tensor:
    """Return a variance of a log-mean weight that is not too small, for each example.

    Args:
        variance: the variance by the delta method, shape [N].
        jackknife: the jackknife variance, shape [N].
        factor: the Poincare limit over the variance, shape [N]; 0 for the jackknife alone.
    """
    return torch.stack([variance, jackknife, factor * variance]).amax(0)


def tail_factor(spread: Tensor, khat: Tensor, num_samples: int) -> Tensor:
    """Return the factor of the Poincare limit where k-hat is above its limit, else 0, shape [N].

    Args:
        spread: the variance of the log-weights of an example, shape [N].
        khat: the Pareto k-hat of each example's weights, shape [N].
        num_samples: the number of weights of an example.
    """
    heavy = (khat > good_k(num_samples)).to(spread.device)
    return torch.where(heavy, 2 * spread.clamp(min=1), 0.0)


def upper_spread(log_w: Tensor) -> Tensor:
    """Return the variance of log-weights about their median, from those above it, shape [N].

    It is their variance if they are symmetric. How small the small weights are does not count.

    Args:
        log_w: log-weights in nats, shape [K, N].
    """
    log_w = log_w.contiguous()  # the median of an expanded dimension is wrong in PyTorch 2.14
    above = (log_w - log_w.median(0).values).clamp(min=0)
    return 2 * above.square().mean(0)


def unknown(variance: Tensor, limit: Tensor) -> Tensor:
    """Return for each example whether its Monte Carlo variance is unknown, shape [N]."""
    return ~(limit <= TOLERANCE * variance)


def is_known(variance: Tensor, limit: Tensor, freedom: float) -> bool:
    """Whether the Monte Carlo error of a mean can be stated.

    Args:
        variance: the variance of each example's part of the mean, shape [N].
        limit: a variance of each part that is not too small, shape [N].
        freedom: the degrees of freedom with which each variance is estimated.
    """
    return len(variance) * freedom >= FREEDOM and bool(limit.sum() <= TOLERANCE * variance.sum())
