"""Counts."""

import torch
from torch import Tensor

from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Stored
from pyro_vae.kinds.standardised import Standardised
from pyro_vae.kinds.statistics import check_range

LARGEST = 2**24  # single precision has all whole numbers up to it


class Counts(Standardised):
    """Whole numbers 0, 1, 2, .. without an upper limit, unchanged.

    The encoder sees log(1 + x), standardised. Rare counts may be zero in all training examples.

    Attributes:
        total_is_known: whether log p(x) is that of an example, given the sum of its counts. A
            likelihood with such an option sets it.
    """

    name = "counts"
    transform = torch.log1p
    inverse = torch.expm1
    may_be_constant = True
    total_is_known = False

    @property
    def filler(self) -> Tensor:
        """The count whose feature is next to zero."""
        return super().filler.round()

    def check(self, stored: Stored) -> None:
        """Refuse values that are no counts, or above 2^24, where single precision has gaps.

        Raises:
            InputError: with the first column that has one.
        """
        check_range(stored, self, 0, LARGEST, whole=True)

    def base_measure(self) -> BaseMeasure:
        """Return the counting measure: on all examples, or on those of a known total."""
        name = "counts, given their total" if self.total_is_known else "counts"
        return BaseMeasure(name, counts=True)
