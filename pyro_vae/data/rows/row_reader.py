"""What reads rows when they are needed."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np


class RowReader(ABC):
    """Rows that are somewhere else than in memory, or there in another form.

    To read rows from elsewhere, subclass it and define `read`; `Rows` and `row_chunks` do the rest.

    Args:
        shape: the shape of all rows, [N, *event].
        dtype: the type of the numbers that `read` returns.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype) -> None:
        self.shape, self.dtype = tuple(shape), dtype
        self.ndim, self.size = len(self.shape), math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def read(self, index: np.ndarray) -> np.ndarray:
        """Read rows. Threads may call it at the same time.

        Args:
            index: the rows' numbers, `int64`, shape [M], in any order.

        Returns:
            The rows in this order, of the type `dtype`, shape [M, *event].

        Raises:
            InputError: if a row is not there any more.
        """

    def stored_as(self, dtype: np.dtype) -> Self:
        """Return the same rows, with numbers of another type."""
        other = copy.copy(self)
        other.dtype = dtype
        return other

    def row_hashes(self) -> np.ndarray | None:
        """Return the rows' hashes if they are there without reading all rows; see `row_hashes`."""
        return None


class SomeColumns(RowReader):
    """Some columns of rows.

    Args:
        reader: reads the rows, shape [N, D].
        places: the places of the columns.
    """

    def __init__(self, reader: RowReader, places: Sequence[int]) -> None:
        super().__init__((len(reader), len(places)), reader.dtype)
        self._reader, self._places = reader, np.asarray(places, np.int64)

    def read(self, index: np.ndarray) -> np.ndarray:
        """Read the columns of some rows; see `RowReader`."""
        return self._reader.read(index)[:, self._places].astype(self.dtype, copy=False)
