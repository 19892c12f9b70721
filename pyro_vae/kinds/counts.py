"""Counts."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Kind, Stored
from pyro_vae.kinds.statistics import check_range, moments, of_places

LARGEST = 2**24  # single precision has all whole numbers up to it


class Counts(Kind):
    """Whole numbers 0, 1, 2, .. without an upper limit, unchanged.

    The encoder sees log(1 + x), standardised for each column of vectors.

    Args:
        shape: the shape of one example.
        names: the names of the columns of vectors.
        loc: the mean of log(1 + x), shape [] or that of x.
        scale: its standard deviation, the same.

    Attributes:
        total_is_known: whether log p(x) is that of an example, given the sum of its counts. A
            likelihood with such an option sets it.
    """

    name = "counts"
    total_is_known = False

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
        """Return this kind for counts."""
        return data if isinstance(data, cls) else None

    def _with(self, count: int, names: Sequence[str] | None, places: Sequence[int]) -> Self:
        kind = type(self)(
            [count], names, *(of_places(each, places) for each in (self.loc, self.scale))
        )
        kind.total_is_known = self.total_is_known
        return kind

    def fitted(self, stored: Stored) -> Self:
        """Return the kind with the statistics of training examples; rare counts may all be zero."""
        loc, scale = moments(stored, self, torch.log1p, may_be_constant=True)
        kind = type(self)(self.shape, self.names, loc.float(), scale.float())
        kind.total_is_known = self.total_is_known
        return kind

    def check(self, stored: Stored) -> None:
        """Refuse values that are no counts, or above 2^24, where single precision has gaps.

        Raises:
            InputError: with the first column that has one.
        """
        check_range(stored, self, 0, LARGEST, whole=True)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the counts as floats."""
        return stored.float()

    def base_measure(self) -> BaseMeasure:
        """Return the counting measure: on all examples, or on those of a known total."""
        name = "counts, given their total" if self.total_is_known else "counts"
        return BaseMeasure(name, counts=True)

    def features(self, x: Tensor) -> Tensor:
        """Return standardised log(1 + x)."""
        return (x.log1p() - self.loc.to(x)) / self.scale.to(x)

    def intensities(self, x: Tensor) -> Tensor:
        """Return values between 0 and 1 for up to three deviations of log(1 + x)."""
        return (self.features(x) + 3) / 6
