"""Pixels of several levels."""

import math
from typing import Self

import torch
from torch import Tensor

from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Kind
from pyro_vae.kinds.pixels import Pixels


class Levels(Pixels):
    """The stored levels 0, 1, .., levels - 1, unchanged."""

    name = "levels"
    levels: int

    @classmethod
    def seeing(cls, data: Kind) -> Self | None:
        """Return this kind for pixels that are stored as levels."""
        seen = super().seeing(data)
        return None if seen is None or seen.levels is None else seen

    def __str__(self) -> str:
        return f"{self.levels} levels"

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the levels as floats."""
        return stored.float()

    def base_measure(self) -> BaseMeasure:
        """Return the counting measure on images of so many levels."""
        return BaseMeasure(f"{self.levels} levels", counts=True)

    def features(self, x: Tensor) -> Tensor:
        """Return intensities in [0, 1]."""
        return x / self.largest

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return whether the levels are the same."""
        own = x.flatten(1) / self.largest
        return torch.cdist(own, features.flatten(1), p=math.inf) < 0.5 / self.largest
