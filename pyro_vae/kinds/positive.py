"""Positive values."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Kind, Stored
from pyro_vae.kinds.statistics import check_range, moments, of_places

SMALLEST, LARGEST = 1e-30, 1e30  # single precision has 1e-38 to 1e38


class Positive(Kind):
    """Positive values, in their own units.

    The encoder sees their logarithms, standardised with the mean and the deviation of the training
    examples: (log x - loc) / scale. As in `Real`, the columns of vectors have statistics of their
    own, the decoder's outputs are in these units, and log p(x) does not depend on them.

    Args:
        shape: the shape of one example.
        names: the names of the columns of vectors.
        loc: the mean of log x, shape [] or that of x.
        scale: its standard deviation, the same.
    """

    name = "positive"

    def __init__(
        self,
        shape: Sequence[int] = (),
        names: Sequence[str] | None = None,
        loc: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> None:
        super().__init__(shape, names)
        self.loc = torch.zeros(()) if loc is None else loc
        self.scale = torch.ones(()) if scale is None else scale

    @classmethod
    def seeing(cls, data: Kind) -> Self | None:
        """Return this kind for positive data."""
        return data if isinstance(data, cls) else None

    def _with(self, count: int, names: Sequence[str] | None, places: Sequence[int]) -> Self:
        return type(self)([count], names, *(of_places(t, places) for t in (self.loc, self.scale)))

    def fitted(self, stored: Stored) -> Self:
        """Return the kind with the statistics of training examples.

        Raises:
            InputError: if a column has the same value in all of them.
        """
        loc, scale = moments(stored, self, torch.log)
        return type(self)(self.shape, self.names, loc.float(), scale.float())

    def check(self, stored: Stored) -> None:
        """Refuse values that are zero, negative, infinite or NaN.

        Raises:
            InputError: with the first column that has one.
        """
        check_range(stored, self, SMALLEST, LARGEST)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the values in single precision."""
        return stored.float()

    def base_measure(self) -> BaseMeasure:
        """Return the measure of length, area, .., in the data's own units."""
        return BaseMeasure("values in their own units", counts=False)

    def features(self, x: Tensor) -> Tensor:
        """Return standardised logarithms."""
        return (x.log() - self.loc.to(x)) / self.scale.to(x)

    def in_units(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return locations and scales of standardised logarithms as those of log x."""
        return self.loc.to(loc) + self.scale.to(loc) * loc, self.scale.to(scale) * scale

    def intensities(self, x: Tensor) -> Tensor:
        """Return values between 0 and 1 for up to three deviations of the logarithm."""
        return (self.features(x) + 3) / 6
