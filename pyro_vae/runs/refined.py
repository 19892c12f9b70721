"""Importance bounds with q(z|x) refined for each example, kept as a separate result."""

from dataclasses import dataclass
from typing import Any

from pyro_vae.bounds import Bounds
from pyro_vae.bounds.estimates import Summary


@dataclass(frozen=True)
class Refined:
    """Importance bounds with q(z|x) refined for each example. Runs are compared by other bounds.

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
        """None: runs are compared by bounds with the q(z|x) that was trained."""
        return None

    @property
    def conditions(self) -> dict[str, Any]:
        """Empty: runs are not compared by them."""
        return {}

    def rows(self) -> list[tuple[str, Summary]]:
        """Return the ELBO, and IWAE_K for the largest K."""
        return [
            ("ELBO, refined", self.importance.elbo),
            (f"IWAE_{self.importance.num_samples}, refined", self.importance.bound),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of it."""
        return self.importance.to_dict()
