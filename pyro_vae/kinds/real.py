"""Real values."""

from typing import Self

import torch

from pyro_vae.errors import InputError
from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Kind, Stored
from pyro_vae.kinds.positive import Positive
from pyro_vae.kinds.standardised import Standardised
from pyro_vae.kinds.statistics import check_range, column
from pyro_vae.kinds.unit_interval import UnitInterval

LARGEST = 1e15  # of values and deviations: single precision has the squares of these
FINEST = 1e-4  # the least deviation relative to the mean: single precision has seven digits


class Real(Standardised):
    """Real values, in their own units.

    The encoder sees them standardised; the decoder's outputs are in these units, and log p(x) does
    not depend on them.
    """

    name = "real"
    transform = torch.positive
    inverse = torch.positive

    @classmethod
    def seeing(cls, data: Kind) -> Self | None:
        """Return this kind for real data, and for positive ones and floats in [0, 1]."""
        if isinstance(data, cls):
            return data
        has_no_levels = isinstance(data, UnitInterval) and data.levels is None
        return cls(data.shape, data.names) if has_no_levels or isinstance(data, Positive) else None

    def fitted(self, stored: Stored) -> Self:
        """Return the kind with the mean and the deviation of training examples.

        Raises:
            InputError: if a column has the same value in all of them, or single precision loses the
                differences of its values, or their squares.
        """
        kind = super().fitted(stored)
        numbers = zip(kind.loc.reshape(-1).tolist(), kind.scale.reshape(-1).tolist(), strict=True)
        for place, (loc, scale) in enumerate(numbers):
            if not 1 / LARGEST <= scale <= LARGEST:
                raise InputError(
                    f"{column(self, place)} has a deviation of {scale:.3g}, whose square is beyond "
                    "single precision: change its units",
                    "data",
                )
            if scale < FINEST * abs(loc):
                raise InputError(
                    f"{column(self, place)} has a mean of {loc:.6g} and a deviation of "
                    f"{scale:.3g}, which is too little for single precision: subtract a constant "
                    "from it",
                    "data",
                )
        return kind

    def check(self, stored: Stored) -> None:
        """Refuse infinite values and NaN, and those whose squares single precision does not have.

        Raises:
            InputError: with the first column that has one.
        """
        check_range(stored, self, -LARGEST, LARGEST)

    def base_measure(self) -> BaseMeasure:
        """Return the measure of length, area, .., in the data's own units."""
        return BaseMeasure("values in their own units", counts=False)
