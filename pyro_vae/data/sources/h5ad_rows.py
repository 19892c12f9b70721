"""Matrices in files of anndata, whose rows are read when they are needed.

Their layout is that of https://anndata.readthedocs.io/en/stable/fileformat-prose.html: an array is
a data set of HDF5, and a sparse matrix is a group of three.
"""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.number_types import readable_type
from pyro_vae.data.rows import RowReader
from pyro_vae.data.rows.sparse_rows import check_indices, check_starts
from pyro_vae.data.source import first_line
from pyro_vae.errors import InputError

BLOCK = 2**24  # bytes that are read at once


class H5adRows(RowReader):
    """Rows of a matrix [N, D] in a file, which become dense.

    Args:
        path: the file's path, for messages.
        node: the matrix in the open file: an array, or a group with a sparse matrix by rows (CSR).
    """

    def __init__(self, path: Path, node: Any) -> None:
        is_sparse = not hasattr(node, "shape")
        shape = node.attrs["shape"] if is_sparse else node.shape
        self._values = node["data"] if is_sparse else node
        super().__init__([int(size) for size in shape], readable_type(self._values.dtype))
        self._path, self._starts = path, node["indptr"][:].astype(np.int64) if is_sparse else None
        self._places = node["indices"] if is_sparse else None
        if self._starts is not None:
            self._check_layout(self._starts)
        self._opened = self._stamp()

    def read(self, index: np.ndarray) -> np.ndarray:
        """Read rows; see `RowReader`."""
        found = np.empty((len(index), self.shape[1]), self.dtype)
        size = max(1, BLOCK // (self.shape[1] * self._values.dtype.itemsize))
        for start in range(0, len(index), size):
            self._read_block(index[start : start + size], found[start : start + size])
        return found

    def values(self) -> Iterator[np.ndarray]:
        """Yield all values in the file; the zeros of a sparse matrix are not among them."""
        row_bytes = max(1, int(np.prod(self._values.shape[1:])) * self._values.dtype.itemsize)
        size = max(1, BLOCK // row_bytes)
        for start in range(0, len(self._values), size):
            yield self._values[start : start + size]

    def _read_block(self, index: np.ndarray, found: np.ndarray) -> None:
        """Read rows, one at least, in the order of the file; write them in their own order."""
        order = np.argsort(index, kind="stable")
        in_order = index[order]
        breaks = (np.flatnonzero(np.diff(in_order) != 1) + 1).tolist()
        spans = [
            (int(in_order[start]), int(in_order[end - 1]) + 1)
            for start, end in pairwise([0, *breaks, len(index)])
        ]
        try:
            if self._places is None:
                found[order] = np.concatenate([self._values[first:end] for first, end in spans])
            else:
                found[order] = self._read_sparse(spans, in_order)
        except ValueError as error:
            raise InputError(f"{self._path} cannot be used: {first_line(error)}", "data") from error
        except (OSError, RuntimeError, TypeError) as error:  # HDF5's errors
            raise InputError(
                f"{self._path} cannot be read any more ({first_line(error)}): put it back, and "
                "start again",
                "data",
            ) from error
        if self._stamp() != self._opened:  # HDF5 returns zeros for what is cut off
            raise InputError(
                f"{self._path} has changed since the data were loaded: start again", "data"
            )

    def _read_sparse(self, spans: list[tuple[int, int]], in_order: np.ndarray) -> np.ndarray:
        """Return rows, [M, D], in the file's order."""
        from scipy.sparse import csr_matrix

        assert self._starts is not None and self._places is not None
        starts = self._starts
        pieces = [slice(int(starts[first]), int(starts[end])) for first, end in spans]
        values = [self._values[piece] for piece in pieces]
        places = [self._places[piece] for piece in pieces]
        ends = np.cumsum(starts[in_order + 1] - starts[in_order])
        parts = np.concatenate(values), np.concatenate(places), np.concatenate([[0], ends])
        rows = csr_matrix(parts, shape=(len(in_order), self.shape[1]))
        check_indices(rows)
        if not rows.has_canonical_format:
            rows.sort_indices()
            if not rows.has_canonical_format:
                raise ValueError("some values have the same place: add them up (sum_duplicates)")
        return rows.toarray()

    def _check_layout(self, starts: np.ndarray) -> None:
        """Check whether the parts of a sparse matrix go together.

        Raises:
            ValueError: if they do not.
        """
        places, values = self._places, self._values
        assert places is not None
        fit = starts.shape == (self.shape[0] + 1,) and places.shape == values.shape
        if not (fit and values.ndim == 1 and places.dtype.kind in "iu" and self.shape[1] >= 0):
            raise ValueError("its indptr, indices and values do not go together")
        check_starts(starts, len(values))

    def _stamp(self) -> tuple[int, int]:
        """Return the size of the open file, and when it was changed."""
        status = os.fstat(self._values.file.id.get_vfd_handle())
        return status.st_size, status.st_mtime_ns


def is_by_rows(node: Any) -> bool:
    """Return whether rows of a matrix in a file can be read alone: an array, or CSR, of numbers."""
    if hasattr(node, "shape"):
        return len(node.shape) == 2 and node.dtype.kind in "biuf"
    return node.attrs.get("encoding-type") == "csr_matrix" and node["data"].dtype.kind in "biuf"


def stored_bytes(node: Any) -> int:
    """Return how many bytes a matrix in a file takes in memory, in the layout that it has there."""
    if hasattr(node, "shape"):
        return int(node.size) * int(node.dtype.itemsize)
    return sum(stored_bytes(part) for part in node.values())
