"""Reads a file of HDF5 in a process of its own: `python h5ad_trial.py FILE SECONDS`.

On a damaged file HDF5's library may write outside its memory, or never return. Here only this
process is lost. It imports nothing of pyro_vae, to start quickly. Errors are not reported: who
reads the file afterwards meets them, too. After half of the time it stops by itself: what takes
longer hangs.
"""

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

import h5py

BLOCK = 2**24  # bytes that are read at once
LARGE = 2**30  # bytes of a file: of a larger one, the first block of each array is read
INFLATED = 1000  # times the file's size: a larger array is zeros, of which one value is read


def read(path: Path, seconds: float) -> None:
    """Read all attributes and arrays of a file; of a large file, a part of each array.

    What is not read after `seconds` is left out.
    """
    size, end = path.stat().st_size, time.monotonic() + seconds

    def visit(name: str, item: Any) -> None:
        with contextlib.suppress(Exception):  # HDF5's readers raise many types of errors
            list(item.attrs.items())
        with contextlib.suppress(Exception):
            if isinstance(item, h5py.Dataset):
                _read_array(item, size, end)

    with contextlib.suppress(Exception), h5py.File(path, "r") as file:
        visit("/", file)
        file.visititems(visit)


def _read_array(array: h5py.Dataset, size: int, end: float) -> None:
    if not array.shape:
        array[()]
        return
    if array.nbytes > max(BLOCK, INFLATED * size):
        array[(0,) * array.ndim]
        return
    row_bytes = max(1, array.nbytes // max(1, array.shape[0]))
    rows = max(1, BLOCK // row_bytes)
    if array.chunks is not None:  # whole chunks, each of which is read once
        rows = min(-(-rows // array.chunks[0]) * array.chunks[0], max(1, 16 * BLOCK // row_bytes))
    for start in range(0, array.shape[0] if size < LARGE else 1, rows):
        if time.monotonic() > end:
            return
        array[start : start + rows]


if __name__ == "__main__":
    limit = float(sys.argv[2])
    if hasattr(signal, "alarm"):  # it ends also if who started it is killed
        signal.alarm(int(limit) + 1)
    read(Path(sys.argv[1]), limit / 2)
