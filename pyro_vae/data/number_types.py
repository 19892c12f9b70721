"""Types of numbers that files have, and that torch has."""

import numpy as np


def readable_type(dtype: np.dtype) -> np.dtype:
    """Return the type as which numbers are read: torch has it, in this machine's byte order."""
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    return dtype.newbyteorder("=")


def readable(numbers: np.ndarray) -> np.ndarray:
    """Return an array with numbers of `readable_type`; the same array if it has them."""
    dtype = readable_type(numbers.dtype)
    return numbers if numbers.dtype == dtype else numbers.astype(dtype)
