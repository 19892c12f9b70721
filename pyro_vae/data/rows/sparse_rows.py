"""Sparse matrices: SciPy's selects rows quickly, and torch's shares its memory."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.rows.row_reader import RowReader


def to_torch(matrix: Any, dtype: np.dtype | None = None) -> Tensor:
    """Return a CSR matrix of SciPy as one of torch.

    Args:
        matrix: the matrix, [N, D].
        dtype: the type of the values; by default that of the matrix.
    """
    matrix = matrix.tocsr()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(dtype or matrix.dtype)),
            size=matrix.shape,
            check_invariants=False,  # SciPy has checked them
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
