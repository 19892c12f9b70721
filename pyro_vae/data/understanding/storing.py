"""How numbers of one kind are stored."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.column_spec import ColumnSpec
from pyro_vae.data.rows import RowReader, Rows
from pyro_vae.data.rows.row_chunks import row_chunks


def stored(array: Any, spec: ColumnSpec, has_missing: bool = False) -> Tensor | Rows:
    """Return numbers of one kind as they are stored.

    Binary numbers, categories, and up to 256 levels are `uint8`; more levels and counts are
    `int32`, or `float64` above its range; others are `float32`. Numbers that have this type share
    memory with the array, and a mapped file stays mapped. Sparse matrices stay sparse, and rows
    that are read when they are needed stay where they are: their numbers have the same type.

    Args:
        array: an array, a sparse matrix of SciPy, or what reads rows.
        spec: what all its numbers are.
        has_missing: whether some are NaN. Whole numbers are then floats, too: `float32`, or
            `float64` of counts.
    """
    if spec.kind in ("binary", "categories", "ordered") or 0 < spec.levels <= 256:
        dtype: np.dtype = np.dtype(np.uint8)
    elif spec.kind in ("levels", "counts"):
        dtype = np.dtype(np.int32)
    else:
        dtype = np.dtype(np.float32)
    if has_missing:
        dtype = np.dtype(np.float64 if spec.kind == "counts" else np.float32)
    if isinstance(array, RowReader):
        return Rows(array.stored_as(dtype))
    if not isinstance(array, np.ndarray):
        from pyro_vae.data.rows.sparse_rows import to_torch

        return to_torch(array, dtype)
    if dtype == np.uint8 and array.dtype == np.bool_:
        numbers = array.view(np.uint8)  # true is any byte but 0: Pillow's is 255
        if all(chunk.max() <= 1 for _, chunk in row_chunks(numbers)):
            array = numbers
    if array.dtype != dtype:
        changed = np.empty(array.shape, dtype)
        for start, chunk in row_chunks(array):
            changed[start : start + len(chunk)] = chunk
        array = changed
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)
