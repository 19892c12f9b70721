"""Real values."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Kind, Stored
from pyro_vae.kinds.positive import Positive
from pyro_vae.kinds.statistics import check_range, column, moments, of_places
from pyro_vae.kinds.unit_interval import UnitInterval

LARGEST = 1e15  # squares of larger values and scales overflow in single precision, later
FINEST = 1e-4  # the least deviation relative to the mean: single precision has seven digits


class Real(Kind):
    """Real values, in their own units.

    The encoder sees them standardised, (x - loc) / scale, with the mean and the deviation of the
    training examples, and the decoder's outputs are in these units, too: see `in_units`. So log
    p(x) does not depend on them. The columns of vectors have a mean and a deviation each; images
    and series have one in common.

    Args:
        shape: the shape of one example.
        names: the names of the columns of vectors.
        loc: the mean, shape [] or that of x.
        scale: the deviation, the same.
    """

    name = "real"

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
        """Return this kind for real data, and for positive ones and floats in [0, 1]."""
        if isinstance(data, cls):
            return data
        has_no_levels = isinstance(data, UnitInterval) and data.levels is None
        return cls(data.shape, data.names) if has_no_levels or isinstance(data, Positive) else None

    def _with(self, count: int, names: Sequence[str] | None, places: Sequence[int]) -> Self:
        return type(self)([count], names, *(of_places(t, places) for t in (self.loc, self.scale)))

    def fitted(self, stored: Stored) -> Self:
        """Return the kind with the mean and the deviation of training examples.

        Raises:
            InputError: if a column has the same value in all of them, or its values differ so
                little that single precision loses the differences.
        """
        loc, scale = moments(stored, self)
        extreme = (scale > LARGEST) | (scale < 1 / LARGEST)
        if extreme.any():
            i = int(extreme.reshape(-1).nonzero()[0])
            raise InputError(
                f"{column(self, i)} has a deviation of {scale.reshape(-1)[i]:.3g}, whose square is "
                "beyond single precision: change its units",
                "data",
            )
        lost = scale < FINEST * loc.abs()
        if lost.any():
            i = int(lost.reshape(-1).nonzero()[0])
            raise InputError(
                f"{column(self, i)} has a mean of {loc.reshape(-1)[i]:.6g} and a deviation of "
                f"{scale.reshape(-1)[i]:.3g}, which is too little for single precision: subtract "
                "a constant from it",
                "data",
            )
        return type(self)(self.shape, self.names, loc.float(), scale.float())

    def check(self, stored: Stored) -> None:
        """Refuse infinite values and NaN.

        Raises:
            InputError: with the first column that has one.
        """
        check_range(stored, self, -LARGEST, LARGEST)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the values in single precision."""
        return stored.float()

    def base_measure(self) -> BaseMeasure:
        """Return the measure of length, area, .., in the data's own units."""
        return BaseMeasure("values in their own units", counts=False)

    def features(self, x: Tensor) -> Tensor:
        """Return standardised values."""
        return (x - self.loc.to(x)) / self.scale.to(x)

    def in_units(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return locations and scales of standardised values in the data's own units."""
        return self.loc.to(loc) + self.scale.to(loc) * loc, self.scale.to(scale) * scale

    def intensities(self, x: Tensor) -> Tensor:
        """Return values between 0 and 1 for up to three deviations from the mean."""
        return (self.features(x) + 3) / 6
