"""What kinds of numbers have in common that the encoder sees standardised."""

import copy
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from pyro_vae.kinds.kind import Kind, Stored
from pyro_vae.kinds.statistics import moments


class Standardised(Kind):
    """Numbers x, of which the encoder sees (t(x) - loc) / scale, for a transform t of the kind.

    The statistics are the mean and the standard deviation of t(x) over the training examples. The
    columns of vectors have statistics of their own; images and series have them in common.

    Args:
        shape: the shape of one example.
        names: the names of the columns of vectors.
        loc: the mean of t(x), shape [] or that of x.
        scale: its standard deviation, the same.

    Attributes:
        transform: t.
        inverse: its inverse.
        may_be_constant: whether a column may have the same value in all training examples.
    """

    transform: ClassVar[Callable[[Tensor], Tensor]]
    inverse: ClassVar[Callable[[Tensor], Tensor]]
    may_be_constant: ClassVar[bool] = False

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

    @property
    def filler(self) -> Tensor:
        """The value whose feature is zero."""
        return type(self).inverse(self.loc)

    @classmethod
    def seeing(cls, data: Kind) -> Self | None:
        """Return this kind for data of this kind alone."""
        return data if isinstance(data, cls) else None

    def of_columns(self, places: Sequence[int]) -> Self:
        """Return the kind of some columns of a table; see `Kind.of_columns`."""
        kind = super().of_columns(places)
        if self.loc.dim():  # otherwise one number stands for all columns
            kind.loc, kind.scale = self.loc[list(places)], self.scale[list(places)]
        return kind

    def fitted(self, stored: Stored) -> Self:
        """Return the kind with the statistics of training examples.

        Raises:
            InputError: if a column has the same value in all of them, and may not.
        """
        loc, scale = moments(
            stored, self, type(self).transform, may_be_constant=self.may_be_constant
        )
        kind = copy.copy(self)
        kind.loc, kind.scale = loc.float(), scale.float()
        return kind

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the numbers in single precision."""
        return stored.float()

    def features(self, x: Tensor) -> Tensor:
        """Return standardised t(x)."""
        return (type(self).transform(x) - self.loc.to(x)) / self.scale.to(x)

    def in_units(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return locations and scales of standardised t(x) as those of t(x)."""
        return self.loc.to(loc) + self.scale.to(loc) * loc, self.scale.to(scale) * scale

    def intensities(self, x: Tensor) -> Tensor:
        """Return values between 0 and 1 for up to three deviations of t(x) from its mean."""
        return (self.features(x) + 3) / 6
