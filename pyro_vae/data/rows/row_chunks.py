"""Passes over rows in memory, in a mapped file, or elsewhere, a chunk at a time."""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from pyro_vae.data.rows.row_reader import RowReader
from pyro_vae.data.rows.workers import map_ahead

GIVE_BACK = 2**26  # bytes of a mapped file that may be resident during a pass
BLOCK = 2**24  # bytes that a reader reads at once


def row_chunks(
    array: Any, num_bytes: int = 2**20, pages: mmap.mmap | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the rows of an array, in chunks.

    The pages of a memory-mapped file are given back to the system after they were read, so that a
    pass over a large file stays in little memory. Rows of a sparse matrix become dense.

    Args:
        array: an array [N, ...], a sparse matrix of SciPy [N, D], or what reads rows.
        num_bytes: the size of a chunk; it has one row at least.
        pages: the mapped file that the array is in, if the array itself does not tell.

    Yields:
        The index of the chunk's first row, and the chunk.
    """
    row_bytes = max(1, int(np.prod(array.shape[1:])) * array.dtype.itemsize)
    rows = max(1, num_bytes // row_bytes)
    if isinstance(array, RowReader):
        blocks = range(0, len(array), max(rows, BLOCK // row_bytes))
        for first, block in zip(blocks, _read_blocks(array, blocks), strict=True):
            for start in range(0, len(block), rows):
                yield first + start, block[start : start + rows]
        return
    pages = find_pages(array) if pages is None else pages
    unread = 0
    for start in range(0, array.shape[0], rows):
        chunk = array[start : start + rows]
        yield start, chunk if isinstance(chunk, np.ndarray) else chunk.toarray()
        unread += rows * row_bytes
        if pages is not None and unread > GIVE_BACK:
            give_back(pages)
            unread = 0
    if pages is not None:
        give_back(pages)


def _read_blocks(reader: RowReader, starts: range) -> Iterator[np.ndarray]:
    """Read all rows, so many at a time; the next ones are read while some are used."""

    def read(start: int) -> np.ndarray:
        return reader.read(np.arange(start, min(start + starts.step, len(reader))))

    return map_ahead(read, starts)


def find_pages(array: Any) -> mmap.mmap | None:
    """Return the mapped file that an array is in, if it is in one."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return getattr(base, "_mmap", None)
        base = base.base
    return None


def give_back(pages: mmap.mmap) -> None:
    """Give the memory of a mapped file back to the system, which reads it again when it is used.

    Nothing may have been written to it: that would be lost.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
