"""What identifies data: their rows' content, whatever the order of the rows and the file's path.

A row's hash is the sum over its 64-bit words w[j] of mix(w[j] + (j + 1) gamma), modulo 2^64, where
gamma is the golden ratio's constant and mix the finaliser of SplitMix64 (Steele, Lea & Flood 2014,
"Fast splittable pseudorandom number generators"), which maps 64-bit words one to one; the sum is
mixed once more. Rows that differ in one word never share a hash, and other different rows share one
with a probability of about 2^-64. These hashes find mistakes; they do not withstand an attacker.

Rows are hashed as they are stored, so the type of the numbers matters: 1 as `float32` and as
`float64` are different content, and so are 0.0 and -0.0. Labels do not matter.
"""

from mmap import mmap
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.data.rows import RowReader, Rows
from pyro_vae.data.rows.row_chunks import row_chunks

GAMMA = np.uint64(0x9E3779B97F4A7C15)
STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))  # shifts and factors
MASK = 2**64 - 1
CHUNK = 2**17  # bytes; it and its copies stay in the processor's cache


def row_hashes(examples: Any, pages: mmap | None = None) -> np.ndarray:
    """Return a hash of each row's content.

    Args:
        examples: a tensor or an array [N, *event], in memory or mapped from a file; or a sparse
            matrix [N, D] of SciPy or in torch's CSR layout, whose rows are hashed as dense rows;
            or rows that are read when they are needed.
        pages: the file that a tensor is mapped from, if it is; see `Part`.

    Returns:
        64-bit hashes, `uint64`, shape [N].
    """
    if isinstance(examples, Rows):
        return row_hashes(examples.reader)[examples.index.numpy()]
    if isinstance(examples, RowReader):
        known = examples.row_hashes()
        if known is not None:
            return known
    elif isinstance(examples, Tensor):
        if examples.is_sparse_csr:
            from pyro_vae.data.rows.sparse_rows import to_scipy

            examples = to_scipy(examples)
        else:
            examples = examples.detach().cpu().numpy()
    hashes = np.empty(examples.shape[0], np.uint64)
    num_bytes = int(np.prod(examples.shape[1:])) * examples.dtype.itemsize
    width = -(-num_bytes // 8)
    keys = np.arange(1, width + 1, dtype=np.uint64) * GAMMA
    spare: tuple[np.ndarray, np.ndarray] | None = None
    for start, chunk in row_chunks(examples, CHUNK, pages):
        if spare is None:
            spare = (
                np.empty((len(chunk), width), np.uint64),
                np.empty((len(chunk), width), np.uint64),
            )
        words, work = (buffer[: len(chunk)] for buffer in spare)
        np.add(_words(chunk, num_bytes, width), keys, out=words)
        mix(words, work)
        np.add.reduce(words, axis=1, out=hashes[start : start + len(chunk)])
    mix(hashes, np.empty_like(hashes))
    return hashes


def fingerprint(examples: Any, hashes: np.ndarray | None = None, about: str = "") -> str:
    """Return what identifies examples, in any order.

    Args:
        examples: what `row_hashes` accepts.
        hashes: the rows' hashes, if they are there already.
        about: what else identifies the data, such as names and kinds of columns.

    Returns:
        24 or more hexadecimal digits: a hash of the type, the shape of an example, `about`, and the
        sum of the rows' hashes modulo 2^64 (16 digits), and the number of rows.
    """
    hashes = row_hashes(examples) if hashes is None else hashes
    dtype = str(examples.dtype).removeprefix("torch.")
    start = [*dtype.encode(), 0, *examples.shape[1:], *about.encode()]
    total = start[0] * int(GAMMA) & MASK
    for word in (*start[1:], int(np.add.reduce(hashes, dtype=np.uint64))):
        total = (_mixed(total) + word) & MASK
    return f"{_mixed(total):016x}{len(hashes):08x}"


def _mixed(word: int) -> int:
    """Return what `mix` makes of one word. For one word Python's numbers are four times as fast."""
    for shift, factor in STEPS:
        word = (word ^ word >> shift) * factor & MASK
    return word


def _words(chunk: np.ndarray, num_bytes: int, width: int) -> np.ndarray:
    """Return rows as 64-bit words, shape [N, width]; the last word is filled up with zeros."""
    if chunk.dtype.kind == "f" and np.isnan(chunk.sum()):  # all missing values are alike
        chunk = np.where(np.isnan(chunk), chunk.dtype.type(np.nan), chunk)
    rows = np.ascontiguousarray(chunk).reshape(len(chunk), -1).view(np.uint8)
    if num_bytes % 8 == 0:
        return rows.view(np.uint64)
    filled = np.zeros((len(rows), 8 * width), np.uint8)
    filled[:, :num_bytes] = rows
    return filled.view(np.uint64)


def mix(words: np.ndarray, work: np.ndarray) -> None:
    """Replace words by SplitMix64's finaliser of them. `work` is memory of the same shape."""
    for shift, factor in STEPS:
        np.right_shift(words, np.uint64(shift), out=work)
        np.bitwise_xor(words, work, out=words)
        if factor != 1:
            np.multiply(words, np.uint64(factor), out=words)
