"""Types of numbers that files have, and that torch has."""

from typing import Any

import numpy as np


def readable_type(dtype: np.dtype) -> np.dtype:
    """Return the type as which numbers are read: torch has it, in this machine's byte order."""
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    return dtype.newbyteorder("=")


def readable(numbers: Any) -> Any:
    """Return an array, or a sparse matrix of SciPy, with numbers of `readable_type`."""
    dtype = readable_type(numbers.dtype)
    return numbers if numbers.dtype == dtype else numbers.astype(dtype)
