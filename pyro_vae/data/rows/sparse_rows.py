"""Sparse matrices: SciPy's selects rows quickly, and torch's shares its memory."""

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
    outside its memory. Values that have the same place are added up, as `toarray` does.

    Args:
        matrix: the matrix, [N, D], in any layout of SciPy.
        where: the name of the file or object, for messages.
        parameter: what was given, for messages.

    Raises:
        InputError: if it is not of two dimensions, or its indices do not fit its shape.
    """
    if len(matrix.shape) != 2:
        raise InputError(f"{where} has shape {list(matrix.shape)}: expected [N, D]", parameter)
    if matrix.dtype.kind in "biuf":
        matrix = readable(matrix)  # SciPy has no half precision
    try:
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=True)
            if (np.diff(matrix.indptr) < 0).any():  # which SciPy checks if the last one is not 0
                raise ValueError("indptr must be a non-decreasing sequence")
        elif matrix.format == "coo":  # these are checked when they are built
            matrix = type(matrix)((matrix.data, (matrix.row, matrix.col)), shape=matrix.shape)
    except ValueError as error:
        raise InputError(
            f"{where} is not a sparse matrix of shape {list(matrix.shape)} ({error}): write it "
            "again",
            parameter,
        ) from error
    matrix = matrix.tocsr()
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


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
    except RuntimeError as error:
        raise InputError(
            f"a sparse tensor of shape {list(size)} has indices that do not fit it "
            f"({str(error).splitlines()[0]})",
            "name",
        ) from error
    return tensor.to_dense()


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
