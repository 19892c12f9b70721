"""Categories, without and with an order."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_vae.errors import InputError
from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Kind, Stored, rows_at_once
from pyro_vae.kinds.statistics import check_range, column


class Categories(Kind):
    """Columns of categories, stored as codes 0, 1, .., K - 1; each column has its own K.

    The encoder sees one-hot vectors, one after another.

    Args:
        shape: the shape of one example, [D].
        names: the names of the columns.
        categories: for each column the names of its categories, in the order of their codes.

    Raises:
        InputError: if there are not as many lists as columns, or one has fewer than two names.
    """

    name = "categories"

    def __init__(
        self,
        shape: Sequence[int] = (),
        names: Sequence[str] | None = None,
        categories: Sequence[Sequence[str]] = (),
    ) -> None:
        super().__init__(shape, names)
        if len(self.shape) != 1 or len(categories) != self.shape[0]:
            raise InputError(
                f"{self.name} data are vectors with a list of categories for each column: "
                f"{len(categories)} lists do not fit the shape {list(self.shape)}",
                "categories",
            )
        self.categories = tuple(tuple(each) for each in categories)
        for i, size in enumerate(self.sizes):
            if size < 2:
                raise InputError(
                    f"{column(self, i)} has fewer than two categories: drop it", "categories"
                )

    @classmethod
    def seeing(cls, data: Kind) -> Self | None:
        """Return this kind for categories; ordered ones can be seen without their order."""
        if type(data) is cls:
            return data
        if cls is Categories and isinstance(data, Categories):
            return cls(data.shape, data.names, data.categories)
        return None

    def of_columns(self, places: Sequence[int]) -> Self:
        """Return the kind of some columns of a table; see `Kind.of_columns`."""
        kind = super().of_columns(places)
        kind.categories = tuple(self.categories[place] for place in places)
        return kind

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each column."""
        return tuple(len(each) for each in self.categories)

    @property
    def num_categories(self) -> Tensor:
        """K of each column, shape [D]."""
        return torch.tensor(self.sizes)

    @property
    def feature_shape(self) -> torch.Size:
        """One number for each category of each column."""
        return torch.Size([sum(self.sizes)])

    @property
    def place_of_feature(self) -> Tensor:
        """The place of the column of each feature, shape [sum of the Ks]."""
        return torch.tensor([i for i, size in enumerate(self.sizes) for _ in range(size)])

    def text(self, place: int, value: float) -> str:
        """Return the name of the nearest category; means of codes lie between."""
        names = self.categories[place]
        return names[min(max(round(value), 0), len(names) - 1)]

    def check(self, stored: Stored) -> None:
        """Refuse values that are no codes of categories.

        Raises:
            InputError: with the first column that has one.
        """
        check_range(stored, self, 0, max(self.sizes) - 1, whole=True)
        for part in stored.split(rows_at_once(stored.shape)):
            too_large = (part >= torch.tensor(self.sizes, device=part.device)).any(0)
            if too_large.any():
                i = int(too_large.nonzero()[0, 0])
                raise InputError(
                    f"{column(self, i)} has a code above {self.sizes[i] - 1}, and only "
                    f"{self.sizes[i]} categories",
                    "data",
                )

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the codes as floats."""
        return stored.float()

    def base_measure(self) -> BaseMeasure:
        """Return the counting measure."""
        return BaseMeasure("categories", counts=True)

    def features(self, x: Tensor) -> Tensor:
        """Return one-hot vectors, one after another, shape [..., sum of the Ks]."""
        starts = torch.tensor([0, *accumulate(self.sizes)][:-1], device=x.device)
        return one_hot(x.long() + starts, sum(self.sizes)).sum(-2).to(x.dtype)

    def intensities(self, x: Tensor) -> Tensor:
        """Return the code divided by the largest."""
        return x / (torch.tensor(self.sizes, dtype=x.dtype, device=x.device) - 1)

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return whether the categories are the same."""
        return self.features(x) @ features.T > self.shape[0] - 0.5


class Ordered(Categories):
    """Columns of categories that have an order, such as grades.

    The encoder sees the code divided by the largest.
    """

    name = "ordered categories"

    @property
    def feature_shape(self) -> torch.Size:
        """One number for each column."""
        return self.shape

    @property
    def place_of_feature(self) -> Tensor:
        """The place of each column."""
        return torch.arange(len(self.sizes))

    def features(self, x: Tensor) -> Tensor:
        """Return the codes, divided by the largest."""
        return self.intensities(x)

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return whether the categories are the same."""
        difference = (self.features(x)[:, None] - features[None]).abs().flatten(2).amax(-1)
        return difference < 0.5 / (max(self.sizes) - 1)
