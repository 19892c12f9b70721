"""The results of annealed importance sampling: bounds from unbiased weights, and their quality."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyro_vae.bounds.annealing_settings import Settings
from pyro_vae.bounds.estimates import (
    Estimate,
    Summary,
    certified,
    finite,
    leave_one_out,
    with_error,
)
from pyro_vae.bounds.khat import good_k, pareto_k, tail_length
from pyro_vae.bounds.known_errors import MANY, upper_spread, variance_limit
from pyro_vae.programs.pair import EvidenceOf


@dataclass(frozen=True)
class Annealed:
    """The result of `anneal`.

    Attributes:
        settings: the settings of the chains.
        log_w: log-weights in nats, `float64`, shape [chains, N].
        acceptance: the mean acceptance probability of the moves of each example, shape [N].
        iwae: another lower bound for the same examples, if there is one. Rows and verdict compare
            the annealed bounds with it.
        evidence_of: what the bounds are for: the log-probability of each example, or of the data
            set as a whole, which is one number (N = 1).
    """

    settings: Settings
    log_w: Tensor
    acceptance: Tensor
    iwae: Estimate | None = None
    evidence_of: EvidenceOf = "each example"

    @property
    def lower(self) -> Estimate:
        """The log-mean of the weights: a lower bound in expectation."""
        return lower_bound(self.log_w)

    @property
    def upper(self) -> Estimate:
        """An upper bound in expectation; look at `upper_flaw` before you believe it.

        Its Monte Carlo error is unknown if it has a flaw.
        """
        upper = upper_bound(self.log_w)
        if self.upper_flaw is None:
            return upper
        return replace(upper, variance_limit=torch.full_like(upper.values, math.inf))

    @property
    def ess(self) -> Tensor:
        """The effective number of chains, (sum w)^2 / sum w^2, of each example, shape [N].

        It is the number of chains if all weights are equal, and 0 if all weights are zero.
        """
        ess = (2 * self.log_w.logsumexp(0) - (2 * self.log_w).logsumexp(0)).exp()
        return ess.nan_to_num(0.0)

    @property
    def upper_k(self) -> float:
        """The Pareto k-hat of all Y / X in the upper bound, over chains and examples together.

        If k-hat is above 0.7, their mean cannot be trusted. If it is above 1, the mean does not
        exist.
        """
        return pareto_k((self.log_w - leave_one_out(self.log_w)).flatten()[None]).item()

    @property
    def upper_flaw(self) -> str | None:
        """What is wrong with the upper bound, in words; None if no flaw is known."""
        k, good = self.upper_k, good_k(self.log_w.numel())
        if tail_length(self.log_w.numel()) < 5:
            return "there are too few weights to tell how heavy their tails are"
        if not math.isfinite(upper_bound(self.log_w).mean):
            return "it is not finite"
        if k > good:
            return f"the weights' tails are too heavy (k-hat {k:.2f}, above {good:.2f})"
        return None

    @property
    def chain_flaw(self) -> str | None:
        """What is wrong with the chains, in words; None if they move and agree."""
        chains = self.settings.chains
        if self.acceptance.mean() < 0.4 and self.settings.temperatures > 1:
            return f"only {100 * self.acceptance.mean():.0f} % of moves are accepted"
        if self.ess.median() < chains / 4:
            return f"{self.ess.median():.1f} of {chains} chains have nearly all the weight"
        return None

    def certified(self, delta: float = 0.05) -> float:
        """A number that the mean log p(x) exceeds with probability 1 - delta; see `certified`."""
        return certified(self.lower.values, delta)

    def rows(self) -> list[tuple[str, Summary]]:
        """Return the rows of the table: both bounds, and the distance to IWAE if it is known."""
        rows: list[tuple[str, Summary]] = [("AIS, lower", self.lower), ("AIS, upper", self.upper)]
        if self.iwae is not None:
            rows.append(("AIS - IWAE", self.lower - self.iwae))
        return rows

    @property
    def verdict(self) -> str:
        """The settings, the certified bound, and how far both bounds can be trusted, in words."""
        chains = self.settings.chains
        whole = self.evidence_of == "the data set"
        of = "the data set as a whole" if whole else f"{self.log_w.shape[1]} examples"
        ess = f"{self.ess.median():.1f}"
        if not whole:
            ess += f" (median) and {self.ess.min():.1f} (least)"
        lines = [
            f"AIS bounds log p(x) of {of} from both sides, by {chains} "
            f"chains of {self.settings.temperatures} temperatures from the {self.settings.start}.",
            f"With 95 % confidence {'it' if whole else 'the mean of these'} is above "
            f"{self.certified():.3f}, by Markov's inequality alone.",
            f"The effective number of chains is {ess} of {chains}; "
            f"{100 * self.acceptance.mean():.0f} % of moves are accepted.",
        ]
        flaw = self.upper_flaw or ("it is below IWAE" if self._is_upper_below_iwae() else None)
        if flaw:
            lines.append(
                f"Do not rely on the upper bound: {flaw}. Use more temperatures or more chains."
            )
        if self.chain_flaw:
            lines.append(f"The bounds may be loose: {self.chain_flaw}. Use more temperatures.")
        return "\n".join(lines)

    def _is_upper_below_iwae(self) -> bool:
        """Whether the upper bound is below a lower bound by more than four of their errors."""
        if self.iwae is None:
            return False
        difference = self.upper - self.iwae  # the error as the formula gives it, also if too small
        error = difference.variance.sum().sqrt().item() / len(difference.values)
        return self.upper.mean < self.iwae.mean - 4 * error

    @property
    def bound(self) -> Estimate:
        """The lower bound, by which runs are compared."""
        return self.lower

    @property
    def conditions(self) -> dict[str, Any]:
        """The settings: more effort makes a tighter bound, so they have to be equal."""
        return asdict(self.settings)

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of the result."""
        return {
            **({"of": self.evidence_of} if self.evidence_of == "the data set" else {}),
            "num_examples": self.log_w.shape[1],
            **asdict(self.settings),
            "lower": self.lower.to_dict(),
            "upper": self.upper.to_dict(),
            "upper_khat": finite(self.upper_k),
            "upper_flaw": self.upper_flaw,
            "certified95": finite(self.certified()),
            "acceptance": self.acceptance.mean().item(),
            "ess": {"min": self.ess.min().item(), "median": self.ess.median().item()},
        }


@dataclass(frozen=True)
class Bidirectional:
    """The result of `bidirectional`: bounds for data drawn from the model, in nats.

    Attributes:
        forward: the chains from f_0 to f_1; their `lower` is a lower bound in expectation.
        upper: an upper bound, from the chains that run backwards from the exact draw. Its Monte
            Carlo variance is unknown, because all chains of an example begin at the one z from
            which the example was drawn.
    """

    forward: Annealed
    upper: Estimate

    @property
    def gap(self) -> Estimate:
        """The upper bound minus the lower bound, for simulated data.

        For such data neither bound is looser than this difference. The spread of the difference
        over examples contains all of its noise, so `se` is its error.
        """
        return self.upper - self.forward.lower

    def rows(self) -> list[tuple[str, Summary]]:
        """Return the rows of the table: both bounds for the simulated data, and their gap."""
        return [
            ("simulated, lower", self.forward.lower),
            ("simulated, upper", self.upper),
            ("simulated, gap", self.gap),
        ]

    @property
    def verdict(self) -> str:
        """The gap, in words."""
        whole = self.forward.evidence_of == "the data set"
        drawn = "a data set" if whole else f"{len(self.gap.values)} examples"
        return (
            f"On {drawn} drawn from the model, the bounds of chains in both directions differ by "
            f"{with_error(self.gap.mean, self.gap.se)} nats"
            f"{self._what_the_gap_says()}."
        )

    def _what_the_gap_says(self) -> str:
        """Return the end of a sentence: whether the gap is more than its error."""
        low, high = self.gap.ci95
        if not (math.isfinite(low) and math.isfinite(high)):
            return ", with an unknown error"
        if low > 0:
            return ": log p(x) of these lies between them"
        if high < 0:
            return ", and a gap below zero is noise: use more examples or more chains"
        # As with a bracket: the error has to be small beside what is due to the choice of examples.
        tight = high <= self.forward.lower.se
        return ", which is within the error" + (": annealing is tight on them" if tight else "")

    @property
    def bound(self) -> None:
        """None: the bounds are for simulated data, which no other run shares."""
        return None

    @property
    def conditions(self) -> dict[str, Any]:
        """Empty: runs are not compared by bounds for simulated data."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of the result."""
        return {
            "num_examples": len(self.upper.values),
            "lower": self.forward.lower.to_dict(),
            "upper": self.upper.to_dict(),
            "gap": self.gap.to_dict(),
        }


def lower_bound(log_w: Tensor) -> Estimate:
    """Bound log p(x) from below by the log-mean of unbiased weights.

    Args:
        log_w: log-weights in nats, shape [chains, N].

    Returns:
        The bounds. Their Monte Carlo variance is the relative variance of the mean weight (the
        delta method), which is at most 1. The limit is from the jackknife: see `known_errors`.
    """
    log_w = log_w.double()
    count = len(log_w)
    values = log_w.logsumexp(0) - math.log(count)
    relative = (log_w - values.clamp(min=torch.finfo(values.dtype).min)).exp()
    variance = relative.var(0) / count
    if count == 1:
        return Estimate(values, variance)
    jackknife = leave_one_out(log_w).var(0) * (count - 1) ** 2 / count
    factor = upper_spread(log_w) if len(values) < MANY else torch.zeros_like(values)
    limit = variance_limit(variance, jackknife, factor)
    return Estimate(values, variance, limit, count - 1)


def upper_bound(log_w: Tensor) -> Estimate:
    """Bound log p(x) from above, by E[log X + Y / X - 1] (Struski et al. 2022).

    Args:
        log_w: log-weights in nats, shape [chains, N], chains > 1. The weights w are independent,
            and E[w] = p(x). They should not be plain importance weights, whose tails are too heavy.

    Returns:
        The mean over chains, where Y is the weight of one chain and X the mean weight of the
        others. The Monte Carlo variance is that of a mean of independent terms: the terms are
        independent to first order.
    """
    log_w = log_w.double()
    log_x = leave_one_out(log_w)
    terms = log_x + torch.expm1(log_w - log_x)
    return Estimate(terms.mean(0), terms.var(0) / len(terms), freedom=len(terms) - 1)
