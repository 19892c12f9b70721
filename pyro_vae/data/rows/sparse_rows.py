"""Sparse matrices: their indices are checked; SciPy selects rows, and torch shares the memory."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.free_memory import check_fits
from pyro_vae.data.number_types import readable
from pyro_vae.data.rows.row_reader import RowReader
from pyro_vae.errors import InputError


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch says of sparse tensors: their support is in beta, and checks take time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*[Ss]parse", UserWarning)
        yield


def checked_csr(matrix: Any, where: str, parameter: str) -> Any:
    """Return a sparse matrix of SciPy by rows (CSR), once its indices have been checked.

    SciPy trusts the indices that a file or a caller gives: one outside the matrix makes it write
    outside its memory. Nothing of SciPy that uses them runs before the check.

    Args:
        matrix: the matrix, [N, D], in any layout of SciPy. It is not changed.
        where: the name of the file or object, for messages.
        parameter: what was given, for messages.

    Returns:
        The matrix in the order of its columns, with numbers of `readable_type`. Values that have
        the same place are added up.

    Raises:
        InputError: if it is not of two dimensions, or its indices do not fit its shape.
    """
    if len(matrix.shape) != 2:
        raise InputError(f"{where} has shape {list(matrix.shape)}: expected [N, D]", parameter)
    rows = int(matrix.shape[0])
    check_fits(f"{where} has {rows} rows, which take", 8 * rows, parameter)
    try:
        if getattr(matrix, "format", "") == "dia":
            matrix = matrix.tocoo()
        layout = getattr(matrix, "format", "")
        if layout in ("csr", "csc", "bsr"):
            check_indices(matrix)
            matrix = _with_numbers(matrix, readable(matrix.data))
        elif layout == "coo":  # its places are checked when it is built; `tocsr` adds values up
            numbers = _wide(readable(matrix.data))
            matrix = type(matrix)((numbers, (matrix.row, matrix.col)), shape=matrix.shape)
        by_rows = matrix.tocsr()
        check_indices(by_rows)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{where} is not a sparse matrix of shape {list(matrix.shape)} "
            f"({_first_line(error)}): make it again",
            parameter,
        ) from error
    if by_rows.has_canonical_format:
        return by_rows
    by_rows = by_rows.copy()  # it may be the caller's
    by_rows.sort_indices()
    if not by_rows.has_canonical_format:
        by_rows = _with_numbers(by_rows, _wide(by_rows.data))
        by_rows.sum_duplicates()
    return by_rows


def check_indices(matrix: Any) -> None:
    """Check the indices of a sparse matrix of SciPy, in the layout CSR, CSC or BSR.

    SciPy's own check leaves out some: those of a matrix whose last row ends at 0 or below.

    Raises:
        ValueError: if they do not fit its shape.
    """
    starts, places = matrix.indptr, matrix.indices
    rows, columns = matrix.shape
    if matrix.format == "csc":
        rows, columns = columns, rows
    if matrix.format == "bsr":
        height, width = matrix.blocksize
        if rows % height or columns % width:
            raise ValueError("its shape is no multiple of its blocks")
        rows, columns = rows // height, columns // width
    one_each = matrix.data.ndim == (3 if matrix.format == "bsr" else 1)
    one_each = one_each and places.ndim == 1 and len(places) == len(matrix.data)
    if starts.shape != (rows + 1,) or not one_each:
        raise ValueError("its indptr, indices and values do not go together")
    check_starts(starts, len(places))
    used = places[: starts[-1]]
    if len(used) and (used.min() < 0 or used.max() >= columns):
        raise ValueError(f"its indices must be 0 or more, and less than {columns}")


def check_starts(starts: np.ndarray, most: int) -> None:
    """Check where the rows of a sparse matrix begin, among `most` values.

    Raises:
        ValueError: if they do not rise from 0 to that number at most.
    """
    # Numbers are compared: a difference could overflow.
    if starts[0] != 0 or starts[-1] > most or (starts[1:] < starts[:-1]).any():
        raise ValueError("its indptr must rise from 0 to the number of values at most")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _with_numbers(matrix: Any, numbers: np.ndarray) -> Any:
    """Return a matrix with these values at the places of its own; `astype` would sort them."""
    if numbers is matrix.data:
        return matrix
    return type(matrix)((numbers, matrix.indices, matrix.indptr), shape=matrix.shape)


def _wide(numbers: np.ndarray) -> np.ndarray:
    """Return whole numbers in 64 bits, in which sums do not overflow."""
    is_small = numbers.dtype.kind in "iu" and numbers.dtype.itemsize < 8
    return numbers.astype(np.int64) if is_small else numbers


def dense_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor of another layout, sparse for instance, as a dense one.

    Indices are checked: torch, too, trusts those that a file or a caller gives.

    Raises:
        InputError: if they do not fit its shape, or the tensor does not fit into memory.
    """
    check_fits("a sparse tensor holds", tensor.numel() * tensor.element_size(), "name")
    size, layout = tensor.shape, tensor.layout
    try:
        if layout == torch.sparse_coo:
            parts = tensor._indices(), tensor._values()
            tensor = torch.sparse_coo_tensor(*parts, size, check_invariants=True)
        elif layout in (torch.sparse_csr, torch.sparse_bsr, torch.sparse_csc, torch.sparse_bsc):
            by_rows = layout in (torch.sparse_csr, torch.sparse_bsr)
            starts = tensor.crow_indices() if by_rows else tensor.ccol_indices()
            places = tensor.col_indices() if by_rows else tensor.row_indices()
            with quiet():
                tensor = torch.sparse_compressed_tensor(
                    starts, places, tensor.values(), size, layout=layout, check_invariants=True
                )
        return tensor.to_dense()
    except RuntimeError as error:
        raise InputError(
            f"a tensor of shape {list(size)} is not a sparse one that can be read "
            f"({_first_line(error)}): make it again",
            "name",
        ) from error


def to_torch(matrix: Any, dtype: np.dtype | None = None) -> Tensor:
    """Return a CSR matrix of SciPy as one of torch.

    Args:
        matrix: the matrix, [N, D]; see `checked_csr`.
        dtype: the type of the values; by default that of the matrix.
    """
    with quiet():
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(dtype or matrix.dtype)),
            size=matrix.shape,
            check_invariants=False,  # `checked_csr` has checked them
        )


def to_scipy(matrix: Tensor) -> Any:
    """Return a CSR matrix of torch as one of SciPy, which shares its memory."""
    from scipy.sparse import csr_matrix

    parts = matrix.values(), matrix.col_indices(), matrix.crow_indices()
    return csr_matrix(tuple(part.numpy() for part in parts), shape=tuple(matrix.shape))


class SparseRows(RowReader):
    """Rows of a CSR matrix of torch, which become dense.

    Args:
        matrix: the matrix, [N, D].
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix.shape, matrix.values().numpy().dtype)
        self._matrix = to_scipy(matrix)

    def read(self, index: np.ndarray) -> np.ndarray:
        """Return rows; see `RowReader`."""
        return self._matrix[index].toarray().astype(self.dtype, copy=False)
