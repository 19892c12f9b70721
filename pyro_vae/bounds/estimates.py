"""A number for each example, and what can be said about their mean.

Two errors are kept apart.

- The standard error (`se`) is over examples: how far the mean may be from the mean over all
  examples of their kind.
- The Monte Carlo error (`mc_se`) is over draws of z, for the given examples: the standard deviation
  of the mean over reruns. It is unknown (NaN, "unknown" in tables, null in files) if a few draws
  have nearly all the weight, or if there are too few draws: see `known_errors`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_vae.bounds.known_errors import is_known, unknown
from pyro_vae.errors import InputError


class Summary(Protocol):
    """A mean with its errors: what a row of a table shows. `Estimate` and `Corrected` have them."""

    @property
    def mean(self) -> float:
        """The mean over the examples, in nats."""
        ...

    @property
    def se(self) -> float:
        """The standard error of the mean over examples."""
        ...

    @property
    def mc_se(self) -> float:
        """The Monte Carlo error of the mean, for the given examples; NaN if it is unknown."""
        ...

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval of the mean over the population of examples."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A bound, or a difference of bounds, for each example.

    Attributes:
        values: nats, `float64`, shape [N].
        variance: the Monte Carlo variance of each value as the formula gives it, shape [N]; it may
            be far too small, so use `mc_variance` for single examples.
        variance_limit: a variance of each value that is not too small, shape [N]; None if that is
            the one above.
        freedom: the degrees of freedom with which each variance is estimated.
    """

    values: Tensor
    variance: Tensor
    variance_limit: Tensor | None = None
    freedom: float = math.inf

    @property
    def limit(self) -> Tensor:
        """A Monte Carlo variance of each value that is not too small, shape [N]."""
        return self.variance if self.variance_limit is None else self.variance_limit

    @property
    def mc_variance(self) -> Tensor:
        """The Monte Carlo variance of each value, shape [N]; NaN where it is unknown."""
        return self.variance.masked_fill(unknown(self.variance, self.limit), math.nan)

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The paired difference of two independent estimates for the same examples."""
        return Estimate(
            self.values - other.values,
            self.variance + other.variance,
            self.limit + other.limit,
            min(self.freedom, other.freedom),
        )

    def __getitem__(self, indices: Tensor) -> "Estimate":
        """The estimate for some of the examples."""
        limit = None if self.variance_limit is None else self.variance_limit[indices]
        return Estimate(self.values[indices], self.variance[indices], limit, self.freedom)

    @property
    def mean(self) -> float:
        """The mean over the examples, in nats."""
        return self.values.mean().item()

    @property
    def se(self) -> float:
        """The standard error of the mean over examples; NaN for a single example."""
        return standard_error(self.values)

    @property
    def mc_se(self) -> float:
        """The Monte Carlo error of the mean, for these examples; NaN if it is unknown."""
        if not is_known(self.variance, self.limit, self.freedom):
            return math.nan
        return (self.variance.sum().sqrt() / len(self.values)).item()

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval of the mean over the population of examples, by Student's t."""
        return interval(self.mean, self.se, len(self.values) - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return mean, se, ci95 and mc_se, with None for numbers that are not finite."""
        return {
            "mean": finite(self.mean),
            "se": finite(self.se),
            "ci95": [finite(end) for end in self.ci95],
            "mc_se": finite(self.mc_se),
        }


@dataclass(frozen=True)
class Corrected:
    """The mean of a costly bound over N examples, estimated with the help of a cheap bound.

    All N examples have the cheap bound, and n of them also have the costly bound.

    This is the difference estimator of survey sampling: the mean of the cheap bound over all N
    examples, plus the mean difference of the two bounds over n of them, which are drawn at random
    (Cochran 1977, section 7.2, with slope 1). The difference varies little between examples, so a
    small n is enough.

    Attributes:
        cheap: the cheap bound for all N examples.
        costly: the costly bound for n of them.
        subset: the indices of these n examples, shape [n].
        cheap_name: the name of the cheap bound.
        costly_name: the name of the costly bound.
    """

    cheap: Estimate
    costly: Estimate
    subset: Tensor
    cheap_name: str = "IWAE"
    costly_name: str = "AIS"

    @property
    def difference(self) -> Estimate:
        """The costly bound minus the cheap one, for the examples that have both."""
        return self.costly - self.cheap[self.subset]

    @property
    def mean(self) -> float:
        """The mean of the costly bound over all N examples, in nats, without bias."""
        return self.cheap.mean + self.difference.mean

    @property
    def subset_se(self) -> float:
        """The part of the error that arises because only n of the N examples have the costly bound.

        It is zero if n = N.
        """
        left_out = 1 - len(self.subset) / len(self.cheap.values)
        return self.difference.se * math.sqrt(left_out) if left_out else 0.0

    @property
    def mc_se(self) -> float:
        """The Monte Carlo error of the mean, for these examples; NaN if it is unknown.

        `subset_se` contains a part of it.
        """
        size, count = len(self.cheap.values), len(self.subset)
        weights = torch.full_like(self.cheap.variance, 1 / size)
        weights[self.subset] -= 1 / count
        cheap, costly = self.cheap, self.costly
        if not is_known(
            torch.cat([cheap.variance * weights.square(), costly.variance / count**2]),
            torch.cat([cheap.limit * weights.square(), costly.limit / count**2]),
            min(cheap.freedom, costly.freedom),
        ):
            return math.nan
        variance = (cheap.variance * weights.square()).sum()
        return (variance + costly.variance.sum() / count**2).sqrt().item()

    @property
    def se(self) -> float:
        """The standard error of the mean as an estimate of the mean over the population.

        The population is that from which the N examples come. The variance of the costly bound
        over examples is estimated from the n examples that have this bound.
        """
        deviation = self.costly.se * len(self.costly.values) ** 0.5
        return math.hypot(self.subset_se, deviation / len(self.cheap.values) ** 0.5)

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval of the mean over the population, by Student's t."""
        return interval(self.mean, self.se, len(self.subset) - 1)

    def rows(self) -> list[tuple[str, Summary]]:
        """Return the row of the table: the mean over all N examples."""
        return [(f"{self.costly_name}, all examples", self)]

    @property
    def verdict(self) -> str:
        """How the mean was estimated, in words."""
        size, count = len(self.cheap.values), len(self.subset)
        se, subset_se = said(self.se), said(self.subset_se)
        return (
            f"The mean {self.costly_name} lower bound over all {size} examples is {self.mean:.3f} "
            f"(se {se}, of which {subset_se} is from the choice of the subset): "
            f"it is the mean {self.cheap_name} bound of all, plus the mean difference on {count}."
        )

    @property
    def bound(self) -> None:
        """None: there is no bound for each example, only a mean."""
        return None

    @property
    def conditions(self) -> dict[str, Any]:
        """Empty: runs are not compared by this mean."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of the result."""
        return {
            "num_examples": len(self.cheap.values),
            "subset": len(self.subset),
            "mean": finite(self.mean),
            "se": finite(self.se),
            "ci95": [finite(end) for end in self.ci95],
            "subset_se": finite(self.subset_se),
            "mc_se": finite(self.mc_se),
        }


def certified(log_p: Tensor, delta: float) -> float:
    """Return a number that mean log p(x) exceeds with probability 1 - delta, whatever the tails.

    If the estimates p_i-hat are independent, not negative, and E[p_i-hat] = p_i, the product of all
    p_i-hat / p_i has expectation one. By Markov's inequality it is above 1 / delta with probability
    delta at most. Hence mean log p_i >= mean log p_i-hat - log(1 / delta) / N for these N examples.
    This is a statement about the mean over the given examples. It needs no estimate of a variance.

    Args:
        log_p: log p_i-hat in nats, shape [N]; logarithms of mean weights, such as IWAE_K or AIS.
        delta: the probability that the statement is wrong.
    """
    if not 0 < delta < 1:
        raise InputError(f"delta has to be between 0 and 1, but is {delta}", "delta")
    return log_p.mean().item() + math.log(delta) / len(log_p)


HEADER = f"{'nats':20} {'mean':>10} {'se':>8} {'95 % interval':>22} {'MC error':>9}"


def said(number: float, form: str = ".3f") -> str:
    """Return a number as text; "unknown" if it is NaN or infinite, as errors can be."""
    return format(number, form) if math.isfinite(number) else "unknown"


def with_error(number: float, error: float) -> str:
    """Return a number and its standard error as text: the error to two digits, the number to match.

    An error of zero, or one that is unknown, is left out, and the number has three digits or more.
    """
    has_error = math.isfinite(error) and error >= 1e-6
    if not math.isfinite(number):
        return said(number)
    exponent = 2  # zero has no decimals
    if has_error or number:  # rounding can add a digit: 0.0996 is 0.10 to two digits
        exponent = int((f"{error:.1e}" if has_error else f"{number:.2e}").partition("e")[2])
    decimals = 1 - exponent if has_error else max(0, 2 - exponent)

    def text(value: float) -> str:
        shown = f"{round(value, min(6, decimals)):,.{min(6, max(0, decimals))}f}"
        return shown if shown.strip("-0.") else shown.removeprefix("-")

    return f"{text(number)} ± {text(error)}" if has_error else text(number)


def said_interval(ends: tuple[float, float]) -> str:
    """Return an interval as text; "unknown" if one of its ends is NaN or infinite."""
    return "[{:.3f}, {:.3f}]".format(*ends) if all(map(math.isfinite, ends)) else "unknown"


def row(name: str, estimate: Summary) -> str:
    """Return a line of a table under `HEADER`."""
    return (
        f"{name:20} {estimate.mean:10.3f} {said(estimate.se):>8} "
        f"{said_interval(estimate.ci95):>22} {said(estimate.mc_se, '.4f'):>9}"
    )


def table(rows: Iterable[tuple[str, Summary]]) -> str:
    """Return a table of means with their errors, in nats, under `HEADER`.

    Args:
        rows: the name of each line, at most 20 characters, and the mean that it shows.
    """
    return "\n".join([HEADER, *(row(name, estimate) for name, estimate in rows)])


def leave_one_out(log_w: Tensor) -> Tensor:
    """Return the log-mean of all other weights for each weight, shape [K, N], by O(K) additions.

    Args:
        log_w: nats, shape [K, N], K > 1.
    """
    # Add the sum of the weights before each weight to the sum of those after it. If one draw has
    # nearly all the weight, subtracting it from the sum of all would leave only rounding errors.
    none = torch.full_like(log_w[:1], -math.inf)
    before = torch.cat([none, log_w[:-1].logcumsumexp(0)])
    after = torch.cat([log_w[1:].flip(0).logcumsumexp(0).flip(0), none])
    return torch.logaddexp(before, after) - math.log(len(log_w) - 1)


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of values, shape [N]; NaN for a single value."""
    return (values.std() / len(values) ** 0.5).item() if len(values) > 1 else math.nan


def interval(mean: float, se: float, freedom: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by Student's t with so many degrees of freedom."""
    from scipy import special

    if freedom < 1:
        return math.nan, math.nan
    reach = special.stdtrit(freedom, 0.975).item() * se
    return mean - reach, mean + reach


def finite(number: float) -> float | None:
    """Return a number; None if it is infinite or NaN, which JSON cannot hold."""
    return number if math.isfinite(number) else None
