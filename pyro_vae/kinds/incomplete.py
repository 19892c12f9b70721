"""Data with missing values."""

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Binarization, Kind, Stored


class Incomplete(Kind):
    """Examples of another kind, some of whose values are missing.

    A missing value is NaN in stored examples and in x. The encoder sees the features of the other
    kind, which are zero where a value is missing, and for each value whether it is there: a second
    half of a vector, or further channels of a picture.

    Values have to be missing at random, given those that are observed (Rubin 1976): then the cause
    of the holes can be left out of the model, and p(x|z) is the product over the observed values
    alone.

    Args:
        whole: the kind of the values.

    Raises:
        InputError: if the values depend on each other in a way that does not allow for holes.
    """

    def __init__(self, whole: Kind) -> None:
        if getattr(whole, "total_is_known", False):
            raise InputError(
                "the total of a row with missing counts is not known: let totals be free, or fill "
                "the missing values",
                "total",
            )
        super().__init__(whole.shape, whole.names)
        self.whole = whole
        self.name = f"{whole.name} with missing values"

    def __str__(self) -> str:
        return f"{self.whole}, with missing values"

    @property
    def filler(self) -> Tensor:
        """See `Kind.filler`."""
        return self.whole.filler

    @property
    def num_categories(self) -> Tensor:
        """See `Kind.num_categories`."""
        return self.whole.num_categories

    @property
    def feature_shape(self) -> torch.Size:
        """The features of the other kind, and an indicator for each value."""
        features, values = self.whole.feature_shape, self.shape
        if len(values) == 1:
            return torch.Size([features[0] + values[0]])
        height, width = values[-2:]
        return torch.Size([2 * values[:-2].numel(), height, width])

    @property
    def is_picture(self) -> bool:
        """See `Kind.is_picture`."""
        return self.whole.is_picture

    @classmethod
    def seeing(cls, data: Kind) -> Self | None:
        """Return this kind for data with holes alone."""
        return data if isinstance(data, cls) else None

    def text(self, place: int, value: float) -> str:
        """Return how a person reads a value: `missing` for NaN."""
        return self.whole.text(place, value) if value == value else "missing"

    def of_columns(self, places: Sequence[int]) -> Self:
        """Return the kind of some columns of a table; see `Kind.of_columns`."""
        return type(self)(self.whole.of_columns(places))

    def fitted(self, stored: Stored) -> Self:
        """Return the kind with the statistics of the values that are there."""
        return type(self)(self.whole.fitted(stored))

    def check(self, stored: Stored) -> None:
        """Refuse values that are not of the other kind.

        Raises:
            InputError: with the values that the examples have, and the values that are expected.
        """
        self.whole.check(_Filled(stored, self.filler))

    def fill(self, x: Tensor) -> Tensor:
        """Return values without holes: `filler` stands where one is missing."""
        return torch.where(x.isnan(), self.filler.to(x), x)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return x for stored examples; what is missing stays missing."""
        return self._with_holes(stored, self.whole.observe(self.fill(stored), generator))

    def binarize(self, stored: Tensor, method: Binarization, seed: int) -> Tensor:
        """Apply a method of binarisation to the values that are there; see `Kind.binarize`."""
        if method == "dynamic":
            return stored
        return self._with_holes(stored, self.whole.binarize(self.fill(stored), method, seed))

    def base_measure(self) -> BaseMeasure:
        """Return the other kind's measure, for the observed values."""
        measure = self.whole.base_measure()
        return BaseMeasure(f"{measure.name}, of the observed values", measure.counts, measure.shift)

    def shift(self, x: Tensor) -> Tensor | float:
        """Return the shift of the observed values of each example; see `Kind.shift`."""
        shifts = self.whole.value_shifts.to(x.device)
        if not shifts.any():
            return 0.0
        return torch.where(x.isnan(), 0.0, shifts).flatten(-len(self.shape)).sum(-1)

    def measured(self, stored: Tensor, x: Tensor) -> Tensor:
        """Return held-out examples in the form that log p(x) refers to; see `Kind.measured`."""
        return self._with_holes(stored, self.whole.measured(self.fill(stored), self.fill(x)))

    def features(self, x: Tensor) -> Tensor:
        """Return the features that are there, and what is there; shape [..., *feature_shape]."""
        return self._beside(self.whole.features(self.fill(x)), ~x.isnan())

    def stored_features(self, stored: Tensor) -> Tensor:
        """Return the features of stored examples without noise; see `Kind.stored_features`."""
        return self._beside(self.whole.stored_features(self.fill(stored)), ~stored.isnan())

    def parted(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Part features into those of the other kind, and whether these are there.

        Args:
            features: what `features` returns, shape [N, *feature_shape].

        Returns:
            Two tensors of shape [N, *whole.feature_shape].
        """
        if len(self.shape) == 1:
            own, there = features.split([self.whole.feature_shape[0], self.shape[0]], -1)
            return own, there[..., self.whole.place_of_feature] > 0.5
        own, there = features.chunk(2, -3)
        shape = (len(features), *self.whole.feature_shape)
        return own.reshape(shape), there.reshape(shape) > 0.5

    def intensities(self, x: Tensor) -> Tensor:
        """Return intensities; NaN where a value is missing."""
        return self._with_holes(x, self.whole.intensities(self.fill(x)))

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return which examples each x can come from: the same values are there, and fit."""
        own, there = self.parted(features)
        absent = self.whole.features(self.filler.expand(1, *self.shape).to(x))
        fits = self.whole.could_show(self.fill(x), torch.where(there, own, absent))
        _, there_in_x = self.parted(self.features(x))
        return fits & (there_in_x[:, None] == there[None]).flatten(2).all(-1)

    def _beside(self, features: Tensor, there: Tensor) -> Tensor:
        """Return features, zero where a value is missing, and what is there."""
        if len(self.shape) == 1:
            features = features * there[..., self.whole.place_of_feature]
            return torch.cat([features, there.to(features)], -1)
        features = (features * there).reshape(
            *there.shape[: -len(self.shape)], -1, *self.shape[-2:]
        )
        return torch.cat([features, there.reshape(features.shape).to(features)], -3)

    def _with_holes(self, like: Tensor, values: Tensor) -> Tensor:
        return torch.where(like.isnan(), torch.nan, values)


class _Filled:
    """Stored examples without holes.

    Args:
        stored: examples with NaN, shape [N, *shape].
        filler: what stands for missing values.
    """

    def __init__(self, stored: Stored, filler: Tensor) -> None:
        self._stored, self._filler = stored, filler
        self.shape, self.device = stored.shape, stored.device

    def __len__(self) -> int:
        return len(self._stored)

    def split(self, size: int) -> Iterator[Tensor]:
        """Return all examples, so many at a time or fewer."""
        for part in self._stored.split(size):
            yield torch.where(part.isnan(), self._filler.to(part), part)
