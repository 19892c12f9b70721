"""Where log p(x) - ELBO comes from: q(z|x) refined for each image, and the gaps that it shows."""

from dataclasses import dataclass
from typing import Any

import torch

from pyro_vae.bounds import Bounds, Estimate


@dataclass(frozen=True)
class Refined:
    """Importance bounds with q(z|x) refined for each image. Runs are not compared by them.

    Attributes:
        importance: the bounds.
    """

    importance: Bounds

    @property
    def verdict(self) -> str:
        """What the weights' tails say about the bounds."""
        return self.importance.verdict

    @property
    def bound(self) -> None:
        """None: they depend on the steps of refinement, which are not a property of the run."""
        return None

    @property
    def conditions(self) -> dict[str, Any]:
        """Nothing, since runs are not compared by it."""
        return {}

    def rows(self) -> list[tuple[str, Estimate]]:
        """Return the ELBO, and IWAE_K for the largest K."""
        count = self.importance.num_samples
        return [
            ("ELBO, refined", self.importance.elbo),
            (f"IWAE_{count}, refined", self.importance.iwae[count]),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of it."""
        return self.importance.to_dict()


@dataclass(frozen=True)
class Gaps:
    """How far the ELBO is below the best estimate of log p(x), and why (Cremer et al. 2018).

    Attributes:
        total: log p(x) - ELBO.
        approximation: log p(x) - ELBO with the refined q(z|x): what the best member of the
            posterior's family leaves. None if nothing was refined.
        amortisation: the refined ELBO - ELBO: what is lost because one encoder serves all x.
    """

    total: Estimate
    approximation: Estimate | None = None
    amortisation: Estimate | None = None

    @property
    def verdict(self) -> str:
        """Nothing: the table is complete."""
        return ""

    @property
    def bound(self) -> None:
        """None: a gap is no bound on log p(x)."""
        return None

    @property
    def conditions(self) -> dict[str, Any]:
        """Nothing, since runs are not compared by it."""
        return {}

    def rows(self) -> list[tuple[str, Estimate]]:
        """Return the gap, and the two parts that it is the sum of."""
        rows = {
            "log p - ELBO": self.total,
            "  approximation": self.approximation,
            "  amortisation": self.amortisation,
        }
        return [(name, gap) for name, gap in rows.items() if gap is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of it."""
        return {name.strip(): gap.to_dict() for name, gap in self.rows()}


def measure_gaps(
    importance: Bounds, refined: Refined | None, tightest: Estimate | None
) -> Gaps | None:
    """Return the gaps between the best estimate of log p(x) and the ELBO.

    Args:
        importance: bounds for all images.
        refined: bounds for all images, with q(z|x) refined for each.
        tightest: a tighter bound on log p(x) than those, for the first images.

    Returns:
        The gaps of the images that have all of these; None if there is only `importance`.
    """
    if refined is not None and tightest is None:
        tightest = refined.importance.iwae[refined.importance.num_samples]
    if tightest is None:
        return None
    images = torch.arange(len(tightest.values))
    elbo = importance.elbo[images]
    if refined is None:
        return Gaps(tightest - elbo)
    refined_elbo = refined.importance.elbo[images]
    return Gaps(tightest - elbo, tightest - refined_elbo, refined_elbo - elbo)
