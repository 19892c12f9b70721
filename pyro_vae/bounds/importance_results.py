"""The result of importance sampling: ELBO, IWAE and the jackknife, and how far to trust them."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyro_vae.bounds.estimates import Estimate, Summary, finite, table
from pyro_vae.bounds.khat import good_k, tail_length
from pyro_vae.programs.pair import EvidenceOf


@dataclass(frozen=True)
class Bounds:
    """The result of `evaluate`.

    Attributes:
        num_samples: K, the number of draws for each example.
        elbo: the ELBO, from all K draws.
        iwae: IWAE_k at each rung k of the ladder; the last rung is K.
        gap: IWAE_K - ELBO, by which the ELBO is known to be loose.
        jackknife: the jackknife estimate of order 1 from all K draws, which is not a bound. The
            stated Monte Carlo error is that of IWAE_K: the two errors are equal to first order.
        ess: the effective sample size of each example's weights, (sum w)^2 / sum w^2, shape [N].
        khat: the Pareto k-hat of each example's weights, shape [N].
        evidence_of: what the bounds are for: the log-probability of each example, or of the data
            set as a whole, which is one number (N = 1).
    """

    num_samples: int
    elbo: Estimate
    iwae: dict[int, Estimate]
    gap: Estimate
    jackknife: Estimate
    ess: Tensor
    khat: Tensor
    evidence_of: EvidenceOf = "each example"

    @property
    def good_k(self) -> float:
        """The k-hat up to which K weights are reliable."""
        return good_k(self.num_samples)

    @property
    def heavy(self) -> float:
        """The share of the examples whose k-hat is above `good_k`."""
        return (self.khat > self.good_k).double().mean().item()

    @property
    def looseness(self) -> float:
        """How far IWAE_K is below log p(x) to first order, Var(w) / 2 K E[w]^2, in nats.

        It is estimated from the same draws. It is too small, perhaps by far, if the weights are
        heavy-tailed.
        """
        return ((1 / self.ess - 1 / self.num_samples) / 2).mean().item()

    def rows(self) -> list[tuple[str, Summary]]:
        """Return the rows of the table: ELBO, the ladder, the gap, the jackknife."""
        rows: list[tuple[str, Summary]] = [("ELBO", self.elbo)]
        rows += [(f"IWAE_{k}", estimate) for k, estimate in self.iwae.items() if k > 1]
        rows += [(f"IWAE_{self.num_samples} - ELBO", self.gap)]
        if self.num_samples > 1:
            rows += [(f"JVI_{self.num_samples} (no bound)", self.jackknife)]
        return rows

    @property
    def verdict(self) -> str:
        """What the weights' tails say about the bound, in words."""
        name, limit = f"IWAE_{self.num_samples}", f"{self.good_k:.2g}"
        whole = self.evidence_of == "the data set"
        one = "The bounds are for the data set as a whole: one number. " if whole else ""
        if tail_length(self.num_samples) < 5:
            return f"{one}{self.num_samples} draws are too few to tell how loose {name} is."
        if whole:
            tails = f"{one}k-hat is {self.khat.item():.2f} (reliable up to {limit})"
        else:
            share = f"{100 * self.heavy:.0f} %" if self.heavy else "none"
            few = f", the limit for {self.num_samples} draws," if self.good_k < 0.7 else ""
            tails = f"k-hat is above {limit}{few} on {share} of the examples"
        known = not math.isnan(self.bound.mc_se)
        if self.heavy >= 0.05 or not known:
            error = "but its MC error can be relied on" if known else "and its MC error is unknown"
            return f"{tails}: {name} is loose, {error}."
        return (
            f"{tails}: the MC error can be relied on, and {name} is about {self.looseness:.2g} "
            "nats below log p(x)."
        )

    @property
    def bound(self) -> Estimate:
        """IWAE_K, by which runs are compared."""
        return self.iwae[self.num_samples]

    @property
    def conditions(self) -> dict[str, Any]:
        """IWAE_K grows with K, so two runs can only be compared at the same K."""
        return {"num_samples": self.num_samples}

    def to_dict(self) -> dict[str, Any]:
        """Return the entry for `bounds.json`. Its keys are strings, and its numbers are in nats."""
        return {
            "unit": "nats",
            **({"of": self.evidence_of} if self.evidence_of == "the data set" else {}),
            "num_examples": len(self.elbo.values),
            "num_samples": self.num_samples,
            "elbo": {str(self.num_samples): self.elbo.to_dict()},
            "iwae": {str(k): estimate.to_dict() for k, estimate in self.iwae.items()},
            "gap": {str(self.num_samples): self.gap.to_dict()},
            "jackknife": {str(self.num_samples): self.jackknife.to_dict()},
            "ess": {"min": self.ess.min().item(), "median": self.ess.median().item()},
            "looseness": finite(self.looseness),
            "khat": {
                "good": self.good_k,
                "share_above": self.heavy,
                "median": finite(self.khat.median().item()),
                "max": finite(self.khat.max().item()),
            },
        }

    def __str__(self) -> str:
        return table(self.rows())
