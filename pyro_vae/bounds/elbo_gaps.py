"""log p(x) - ELBO, split into what causes it.

    log p(x) - ELBO = KL(q(z|x) || p(z|x)) = approximation gap + amortisation gap

(Cremer, Li & Duvenaud 2018). The approximation gap is what remains if each x has the best
q(z|x) of the family; here the refined q(z|x) counts as the best one. The amortisation gap is added
because one encoder serves all x.
"""

from dataclasses import dataclass
from typing import Any

import torch

from pyro_vae.bounds.annealing_results import Annealed
from pyro_vae.bounds.estimates import Estimate, Summary
from pyro_vae.bounds.importance_results import Bounds


@dataclass(frozen=True)
class Gaps:
    """The result of `gaps`, in nats.

    Attributes:
        total: log p(x) - ELBO.
        approximation: the approximation gap; None if q(z|x) was not refined.
        amortisation: the amortisation gap; None if q(z|x) was not refined.
    """

    total: Estimate
    approximation: Estimate | None = None
    amortisation: Estimate | None = None

    def rows(self) -> list[tuple[str, Summary]]:
        """Return the rows of the table: first the total, then its parts."""
        rows: list[tuple[str, Summary]] = [("log p - ELBO", self.total)]
        if self.approximation is not None and self.amortisation is not None:
            rows.append(("  approximation", self.approximation))
            rows.append(("  amortisation", self.amortisation))
        return rows

    @property
    def verdict(self) -> str:
        """Empty: the errors in the table say how far the gaps can be trusted."""
        return ""

    @property
    def bound(self) -> None:
        """None: a gap is a difference of bounds."""
        return None

    @property
    def conditions(self) -> dict[str, Any]:
        """Empty: runs are not compared by their gaps."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of the result."""
        parts = (
            ("log p - ELBO", self.total),
            ("approximation", self.approximation),
            ("amortisation", self.amortisation),
        )
        return {name: gap.to_dict() for name, gap in parts if gap is not None}


def gaps(
    amortised: Bounds, refined: Bounds | None = None, annealed: Annealed | None = None
) -> Gaps | None:
    """Split log p(x) - ELBO as far as it was measured.

    The AIS lower bound, or else IWAE_K with the refined q(z|x), takes the place of log p(x). If
    only the first examples were annealed, the gaps are for those examples.

    Args:
        amortised: the bounds with the guide.
        refined: the bounds for the same examples with q(z|x) refined for each of them.
        annealed: the annealed bounds for the same examples, or for the first of them.

    Returns:
        The gaps; None if neither `refined` nor `annealed` is given.
    """
    elbo, refined_elbo = amortised.elbo, refined.elbo if refined else None
    if annealed is not None:
        log_p = annealed.lower
        first = torch.arange(len(log_p.values))
        elbo = elbo[first]
        refined_elbo = None if refined_elbo is None else refined_elbo[first]
    elif refined is not None:
        log_p = refined.bound
    else:
        return None
    if refined_elbo is None:
        return Gaps(log_p - elbo)
    return Gaps(log_p - elbo, log_p - refined_elbo, refined_elbo - elbo)
