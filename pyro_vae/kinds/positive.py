"""Positive values."""

import torch

from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Stored
from pyro_vae.kinds.standardised import Standardised
from pyro_vae.kinds.statistics import check_range

SMALLEST, LARGEST = 1e-30, 1e30  # single precision has 1e-38 to 1e38


class Positive(Standardised):
    """Positive values, in their own units.

    The encoder sees their logarithms, standardised; the decoder's outputs are in these units, and
    log p(x) does not depend on them.
    """

    name = "positive"
    transform = torch.log
    inverse = torch.exp

    def check(self, stored: Stored) -> None:
        """Refuse values that are zero, negative, infinite or NaN.

        Raises:
            InputError: with the first column that has one.
        """
        check_range(stored, self, SMALLEST, LARGEST)

    def base_measure(self) -> BaseMeasure:
        """Return the measure of length, area, .., in the data's own units."""
        return BaseMeasure("values in their own units", counts=False)
