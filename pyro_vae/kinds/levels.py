"""Pixels of 256 levels."""

import math

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.pixels import Pixels


class Levels(Pixels):
    """The stored levels 0, 1, .., 255, unchanged."""

    name = "levels"

    def check(self, stored: Tensor) -> None:
        """Refuse floats, which have no levels.

        Raises:
            InputError: with the two ways to go on.
        """
        if stored.dtype != torch.uint8:
            raise InputError(
                "a likelihood of levels needs images as uint8, and these are floats: choose a "
                "likelihood of binary pixels or on the unit interval",
                "likelihood",
            )

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the levels as floats."""
        self.check(stored)
        return stored.float()

    def base_measure(self, stored: Tensor) -> BaseMeasure:
        """Return the counting measure on images of 256 levels."""
        self.check(stored)
        return BaseMeasure("256 levels", counts=True)

    def features(self, x: Tensor) -> Tensor:
        """Return intensities in [0, 1]."""
        return x / 255

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return whether the levels are the same."""
        return torch.cdist(x.flatten(1) / 255, features.flatten(1), p=math.inf) < 0.5 / 255
