"""Values in [0, 1]."""

import math

import torch
from torch import Tensor

from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.pixels import Pixels


class UnitInterval(Pixels):
    """`(level + u) / L`, u uniform on [0, 1): uniform dequantisation of L stored levels.

    Stored floats have no levels: x is the stored float.
    """

    name = "unit_interval"

    def __str__(self) -> str:
        return "values between 0 and 1"

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return values in (0, 1) for levels, and floats unchanged."""
        if self.levels is None:
            return stored.float()
        noise = torch.rand(stored.shape, generator=generator, device=stored.device)
        return away_from_ends((stored.float() + noise) / self.levels)

    @property
    def value_shifts(self) -> Tensor:
        """-log L of levels, the volume of a level's cell, and zero of floats."""
        return torch.tensor(-math.log(self.levels or 1), dtype=torch.float64)

    def base_measure(self) -> BaseMeasure:
        """Return the counting measure on levels, or for floats the length of [0, 1]."""
        if self.levels is None:
            return BaseMeasure("the unit interval", counts=False)
        shift = -self.shape.numel() * math.log(self.levels)
        return BaseMeasure(f"{self.levels} levels", counts=True, shift=shift)

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return whether the values are the same, with a tolerance of one level for each pixel."""
        tolerance = 1 / (255 if self.levels is None else self.largest)
        return torch.cdist(x.flatten(1), features.flatten(1), p=math.inf) < tolerance


def away_from_ends(x: Tensor) -> Tensor:
    """Move values at 0 to 2^-33 and values at 1 to 1 - 2^-24: densities may be infinite at 0 and 1.

    In single precision dequantised levels reach both ends: u can be 0, and 255 + u can round up to
    256.
    """
    return x.clamp(2**-33, 1 - 2**-24)
