"""Sparse matrices: SciPy's selects rows quickly, and torch's shares its memory."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor


def to_torch(matrix: Any) -> Tensor:
    """Return a CSR matrix of SciPy as one of torch. Values become `float32`."""
    matrix = matrix.tocsr()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            size=matrix.shape,
            check_invariants=False,  # SciPy has checked them
        )


def to_scipy(matrix: Tensor) -> Any:
    """Return a CSR matrix of torch as one of SciPy, which shares its memory."""
    from scipy.sparse import csr_matrix

    parts = matrix.values(), matrix.col_indices(), matrix.crow_indices()
    return csr_matrix(tuple(part.numpy() for part in parts), shape=tuple(matrix.shape))


def sparse_rows(matrix: Tensor, index: Tensor) -> Tensor:
    """Return some rows of a CSR matrix of torch, as a CSR matrix."""
    return to_torch(to_scipy(matrix)[index.numpy()])
