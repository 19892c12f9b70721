"""Rows that are read when they are needed: of large files, and of sparse matrices."""

from collections.abc import Iterator
from mmap import mmap

import torch
from torch import Size, Tensor

from pyro_vae.data.row_chunks import GIVE_BACK, give_back

LARGE = 2**28  # bytes: smaller files are copied into memory


class Rows:
    """Some rows of a tensor that is mapped from a file, or sparse.

    It has what training and kinds of data use of a tensor; what it returns is in memory, and dense.

    Args:
        examples: all rows, shape [N, *shape].
        index: which of them, shape [M], in this order.
        pages: the file that they are mapped from; None for a sparse matrix.
    """

    def __init__(self, examples: Tensor, index: Tensor, pages: mmap | None = None) -> None:
        self._examples, self._index, self._pages = examples, index, pages
        self._read = 0
        self.shape = Size([len(index), *examples.shape[1:]])
        self.dtype, self.device = examples.dtype, examples.device
        self._row_bytes = examples.shape[1:].numel() * examples.element_size()

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Read rows: a slice of them, or those at some indices."""
        index = self._index[rows]
        if self._examples.is_sparse_csr:
            from pyro_vae.data.sparse_rows import sparse_rows

            return sparse_rows(self._examples, index).to_dense()
        found = torch.empty((len(index), *self.shape[1:]), dtype=self.dtype)
        touched = max(self._row_bytes, 2**16)  # a fault reads 16 pages or so
        size = max(1, GIVE_BACK // touched)
        for start in range(0, len(index), size):
            part = index[start : start + size]
            torch.index_select(self._examples, 0, part, out=found[start : start + size])
            self._read += len(part) * touched
            if self._pages is not None and self._read > GIVE_BACK:
                give_back(self._pages)
                self._read = 0
        return found

    def subset(self, index: Tensor) -> "Rows":
        """Return some of the rows, without reading them."""
        return Rows(self._examples, self._index[index], self._pages)

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Read the rows at some indices; `dim` is 0, as for tensors."""
        return self[rows]

    def split(self, size: int) -> Iterator[Tensor]:
        """Read all rows, so many at a time, at most 64 MiB."""
        size = max(1, min(size, GIVE_BACK // max(1, self._row_bytes)))
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def to(self, device: torch.device) -> "Rows":
        """Return the rows; they stay where they are, and each batch is moved."""
        return self
