"""Tables whose columns are of several kinds."""

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Kind, Stored, rows_at_once
from pyro_vae.kinds.statistics import column_names


class Columns(Kind):
    """The columns of a table, in groups of one kind each.

    The encoder sees the features of one group after another.

    Args:
        parts: for each group its kind, whose shape is [the number of its columns], and their places
            in the table. Each column is in one group.
        names: the names of all columns, in their order in the table.

    Raises:
        InputError: if a column is in no group, or in two.
    """

    name = "columns of several kinds"

    def __init__(
        self, parts: Sequence[tuple[Kind, Sequence[int]]], names: Sequence[str] | None = None
    ) -> None:
        self.parts = tuple((kind, tuple(places)) for kind, places in parts)
        count = sum(len(places) for _, places in self.parts)
        if sorted(place for _, places in self.parts for place in places) != [*range(count)]:
            raise InputError("each column of a table has to be in one group", "parts")
        super().__init__([count], names)

    def __str__(self) -> str:
        counts = [(kind, len(places)) for kind, places in self.parts]
        return ", ".join(f"{kind.name} ({n} column{'s' if n > 1 else ''})" for kind, n in counts)

    @classmethod
    def seeing(cls, data: Kind) -> Self | None:
        """Return this kind for any table; a table of one kind is a single group."""
        if isinstance(data, cls):
            return data
        return cls([(data, range(data.shape[0]))], data.names) if len(data.shape) == 1 else None

    @property
    def feature_shape(self) -> torch.Size:
        """The numbers of features of all groups together."""
        return torch.Size([sum(kind.feature_shape.numel() for kind, _ in self.parts)])

    @property
    def place_of_feature(self) -> Tensor:
        """The place of the column that each feature is made from, shape [features]."""
        return torch.cat([places[kind.place_of_feature] for kind, places in self._indexed()])

    @property
    def num_categories(self) -> Tensor:
        """The numbers of categories of all columns, shape [D]."""
        return self._in_order([kind.num_categories.expand(kind.shape) for kind, _ in self.parts])

    @property
    def value_shifts(self) -> Tensor:
        """The shifts of all columns, shape [D]."""
        return self._in_order([kind.value_shifts.expand(kind.shape) for kind, _ in self.parts])

    @property
    def filler(self) -> Tensor:
        """The fillers of all columns, shape [D]."""
        return self._in_order([kind.filler.expand(kind.shape) for kind, _ in self.parts])

    def text(self, place: int, value: float) -> str:
        """Return how a person reads a value of a column."""
        for kind, places in self.parts:
            if place in places:
                return kind.text(places.index(place), value)
        raise IndexError(place)

    def fitted(self, stored: Stored) -> Self:
        """Return the table with the statistics of each group."""
        parts = [
            (kind.fitted(ColumnsOf(stored, places)), places) for kind, places in self._indexed()
        ]
        return type(self)([(kind, places.tolist()) for kind, places in parts], self.names)

    def check(self, stored: Stored) -> None:
        """Refuse values that are not of the kind of their column.

        Raises:
            InputError: with the first column that has one.
        """
        for kind, places in self._indexed():
            kind.check(ColumnsOf(stored, places))

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return each column as its kind shows it."""
        shown = [kind.observe(stored[..., places], generator) for kind, places in self._indexed()]
        return self._in_order(shown)

    def base_measure(self) -> BaseMeasure:
        """Return the product of the columns' measures."""
        measures = [kind.base_measure() for kind, _ in self.parts]
        columns: dict[str, list[int]] = {}
        for measure, (_, places) in zip(measures, self.parts, strict=True):
            columns.setdefault(measure.name, []).extend(places)
        own = column_names(self)
        names = "; ".join(
            f"{name}: {', '.join(own[place] for place in sorted(places))}"
            for name, places in sorted(columns.items())
        )
        if len(columns) == 1:
            names = measures[0].name
        counts = all(measure.counts for measure in measures)
        return BaseMeasure(names, counts, sum(measure.shift for measure in measures))

    def features(self, x: Tensor) -> Tensor:
        """Return the features of one group after another."""
        return torch.cat([kind.features(x[..., places]) for kind, places in self._indexed()], -1)

    def intensities(self, x: Tensor) -> Tensor:
        """Return the intensities of each column."""
        return self._in_order([kind.intensities(x[..., at]) for kind, at in self._indexed()])

    def _indexed(self) -> list[tuple[Kind, Tensor]]:
        return [(kind, torch.tensor(places)) for kind, places in self.parts]

    def _in_order(self, groups: Sequence[Tensor]) -> Tensor:
        """Return the columns of all groups in their order in the table."""
        order = torch.tensor([place for _, places in self.parts for place in places]).argsort()
        return torch.cat(list(groups), -1)[..., order]


class ColumnsOf:
    """Some columns of stored rows.

    Args:
        stored: rows, shape [N, D].
        places: the places of the columns.
    """

    def __init__(self, stored: Stored, places: Tensor | Sequence[int]) -> None:
        self._stored, self._places = stored, torch.as_tensor(places)
        self.shape = torch.Size([len(stored), len(self._places)])
        self.device = stored.device

    def __len__(self) -> int:
        return len(self._stored)

    def split(self, size: int) -> Iterator[Tensor]:
        """Return the columns of all rows, so many rows at a time or fewer."""
        for part in self._stored.split(min(size, rows_at_once(self._stored.shape))):
            yield part[:, self._places]
