"""Rows that are read when they are needed, with the next ones read ahead."""

from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Size, Tensor

from pyro_vae.data.rows.row_reader import RowReader
from pyro_vae.data.rows.workers import map_ahead
from pyro_vae.kinds.kind import rows_at_once

LARGE = 2**28  # bytes: smaller data are copied into memory


class Rows:
    """Some rows of those that a reader reads.

    It has what training and kinds of data use of a tensor; what it returns is in memory, and dense.

    Args:
        reader: reads rows, shape [N, *shape].
        index: which of them, shape [M], in this order; by default all.
    """

    def __init__(self, reader: RowReader, index: Tensor | None = None) -> None:
        self.reader = reader
        self.index = torch.arange(len(reader)) if index is None else index
        self.shape = Size([len(self.index), *reader.shape[1:]])
        self.dtype = torch.from_numpy(np.empty(0, reader.dtype)).dtype
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Read rows: a slice of them, or those at some indices."""
        return torch.from_numpy(self.reader.read(self.index[rows].numpy()))

    def subset(self, index: slice | Tensor) -> "Rows":
        """Return some of the rows, without reading them."""
        return Rows(self.reader, self.index[index])

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Read the rows at some indices; `dim` is 0, as for tensors."""
        return self[rows]

    def split(self, size: int) -> Iterator[Tensor]:
        """Read all rows, so many at a time or fewer: see `rows_at_once`."""
        size = min(size, rows_at_once(self.shape))
        yield from map_ahead(self.__getitem__, _slices(len(self), size))

    def to(self, device: torch.device) -> "Rows":
        """Return the rows; they stay where they are, and each batch is moved."""
        return self


def batches(examples: Tensor | Rows, places: Sequence[Tensor]) -> Generator[Tensor, None, None]:
    """Yield batches of examples; of rows that have to be read, the next one is read ahead.

    Args:
        examples: shape [N, *shape].
        places: the indices of each batch's examples.

    Raises:
        InputError: if an example cannot be read any more.
    """
    if isinstance(examples, Rows):
        yield from map_ahead(examples.__getitem__, places)
    else:
        for place in places:
            yield examples.index_select(0, place)


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
