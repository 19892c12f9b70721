"""A number for each example, and what can be said of their mean.

Two errors are kept apart. The standard error is over examples: how far the mean may be from that
over all examples of their kind. The Monte Carlo error is over draws of z, for the examples at hand:
the standard deviation of the mean over reruns. It is estimated from the variance of the weights,
and comes out too small where a few draws carry all the weight: see the Pareto k-hat.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A bound, or a difference of bounds, for each example.

    Attributes:
        values: nats, `float64`, shape [N].
        mc_variance: the Monte Carlo variance of each value, shape [N].
    """

    values: Tensor
    mc_variance: Tensor

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The paired difference of two independent estimates for the same examples."""
        return Estimate(self.values - other.values, self.mc_variance + other.mc_variance)

    def __getitem__(self, chosen: Tensor) -> "Estimate":
        """The same for some of the examples."""
        return Estimate(self.values[chosen], self.mc_variance[chosen])

    @property
    def mean(self) -> float:
        """The mean over the examples, in nats."""
        return self.values.mean().item()

    @property
    def se(self) -> float:
        """The standard error of the mean over examples; NaN for a single one."""
        return standard_error(self.values)

    @property
    def mc_se(self) -> float:
        """The Monte Carlo error of the mean, for these examples; NaN where K = 1 hides it."""
        return (self.mc_variance.sum().sqrt() / len(self.values)).item()

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval of the mean over the population of examples, by Student's t."""
        return interval(self.mean, self.se, len(self.values) - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return mean, se, ci95 and mc_se, with None for what is not finite."""
        return {
            "mean": finite(self.mean),
            "se": finite(self.se),
            "ci95": [finite(end) for end in self.ci95],
            "mc_se": finite(self.mc_se),
        }


@dataclass(frozen=True)
class Corrected:
    """The mean of a costly bound over many examples, from a cheap one for all, and both for some.

    The difference estimator of survey sampling: mean of the cheap over all N, plus the mean
    difference over n of them, drawn at random (Cochran 1977, section 7.2, with slope 1). The two
    bounds of an example are nearly as far apart as those of any other, so few examples do.

    Attributes:
        cheap: for all N examples.
        costly: for n of them.
        chosen: which, shape [n].
    """

    cheap: Estimate
    costly: Estimate
    chosen: Tensor

    @property
    def difference(self) -> Estimate:
        """The costly bound less the cheap one, for those that have both."""
        return self.costly - self.cheap[self.chosen]

    @property
    def mean(self) -> float:
        """The mean of the costly bound over all N, in nats, without bias."""
        return self.cheap.mean + self.difference.mean

    @property
    def subset_se(self) -> float:
        """The error for having n of these N examples; zero if n = N."""
        left_out = 1 - len(self.chosen) / len(self.cheap.values)
        return self.difference.se * math.sqrt(left_out) if left_out else 0.0

    @property
    def mc_se(self) -> float:
        """The Monte Carlo error of the mean, for these examples; part of `subset_se`, too."""
        size, count = len(self.cheap.values), len(self.chosen)
        weights = torch.full_like(self.cheap.mc_variance, 1 / size)
        weights[self.chosen] -= 1 / count
        variance = (self.cheap.mc_variance * weights.square()).sum()
        return (variance + self.costly.mc_variance.sum() / count**2).sqrt().item()

    @property
    def se(self) -> float:
        """The standard error of the mean, as one over the population that all N are from.

        The costly bound's own variance is estimated where it is known.
        """
        return math.hypot(self.subset_se, _deviation(self.costly) / len(self.cheap.values) ** 0.5)

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval of the mean over the population, by Student's t."""
        return interval(self.mean, self.se, len(self.chosen) - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of it."""
        return {
            "num_examples": len(self.cheap.values),
            "subset": len(self.chosen),
            "mean": finite(self.mean),
            "se": finite(self.se),
            "ci95": [finite(end) for end in self.ci95],
            "subset_se": finite(self.subset_se),
            "mc_se": finite(self.mc_se),
        }


def certified(log_p: Tensor, delta: float) -> float:
    """Return a number that mean log p(x) exceeds with probability 1 - delta, whatever the tails.

    By Markov's inequality: if p_i-hat are independent, not negative, and E[p_i-hat] = p_i, the
    product of p_i-hat / p_i has expectation one, and is above 1 / delta with probability delta at
    most. Hence mean log p_i >= mean log p_i-hat - log(1 / delta) / N for these N examples. It is
    a statement about the mean over the examples at hand, and needs no estimate of any variance.

    Args:
        log_p: log p_i-hat, in nats, shape [N]; means of weights, such as IWAE_K or AIS.
        delta: the probability to be wrong.
    """
    if not 0 < delta < 1:
        raise InputError(f"delta has to be between 0 and 1, and {delta} is not")
    return log_p.mean().item() + math.log(delta) / len(log_p)


HEADER = f"{'nats':20} {'mean':>10} {'se':>8} {'95 % interval':>22} {'MC error':>9}"


def row(name: str, estimate: Estimate) -> str:
    """Return a line of a table under `HEADER`."""
    ends = "[{:.3f}, {:.3f}]".format(*estimate.ci95)
    return f"{name:20} {estimate.mean:10.3f} {estimate.se:8.3f} {ends:>22} {estimate.mc_se:9.4f}"


def leave_one_out(log_w: Tensor) -> Tensor:
    """For each weight, return the log-mean of all the others, shape [K, N], by O(K) additions.

    Args:
        log_w: nats, shape [K, N], K > 1.
    """
    # What comes before, and what comes after: a difference from the sum would be rounding where one
    # draw has nearly all the weight.
    none = torch.full_like(log_w[:1], -math.inf)
    before = torch.cat([none, log_w[:-1].logcumsumexp(0)])
    after = torch.cat([log_w[1:].flip(0).logcumsumexp(0).flip(0), none])
    return torch.logaddexp(before, after) - math.log(len(log_w) - 1)


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of values, shape [N]; NaN for a single one."""
    return (values.std() / len(values) ** 0.5).item() if len(values) > 1 else math.nan


def interval(mean: float, se: float, freedom: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by Student's t."""
    if freedom < 1:
        return math.nan, math.nan
    from scipy import special

    reach = special.stdtrit(freedom, 0.975).item() * se
    return mean - reach, mean + reach


def finite(number: float) -> float | None:
    """Return a number, or None if it is one that JSON cannot hold."""
    return number if math.isfinite(number) else None


def _deviation(estimate: Estimate) -> float:
    return estimate.se * len(estimate.values) ** 0.5
