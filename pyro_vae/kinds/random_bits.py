"""Random binary pixels with exact probabilities, fast in compiled code: SplitMix64."""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

_first_row = 0  # the place in its batch of the first row that is drawn for


@contextlib.contextmanager
def starting_at(row: int) -> Iterator[None]:
    """Draw the bits of the rows of a batch from one row on, in a process that has only these."""
    global _first_row
    before, _first_row = _first_row, row
    try:
        yield
    finally:
        _first_row = before


def draw_bits(stored: Tensor, largest: int, generator: torch.Generator | None) -> Tensor:
    """Draw pixels that are on with probability stored / largest.

    Args:
        stored: whole numbers from 0 to `largest`, or floats in [0, 1], whose largest is 1.
        largest: the value of a pixel that is always on.
        generator: the source of randomness; by default the global generator.
    """
    width = 2**16 // largest
    if stored.is_floating_point() or 2**16 - width * largest > 1:
        uniform = torch.rand(stored.shape, generator=generator, device=stored.device)
        return uniform * largest < stored

    # Of 2^16 values of a uniform u, width * largest are used: P(u < width * stored) is then
    # stored / largest. One value may be too many (for 255, not for 16). A spare draw replaces it;
    # each image has one spare draw. If the spare draw is that value too, it becomes the next lower
    # one: an error of 2^-32. Everything is shifted by -2^15, to be signed. The random words are
    # split into 32-bit integers because these are the smallest that compiled code vectorises.
    pixels = stored.reshape(len(stored), math.prod(stored.shape[1:]))
    count = pixels.shape[1]
    words = _random_words(len(stored), count // 4 + 1, generator, stored.device).view(torch.int32)
    u = torch.cat([words >> 16, words << 16 >> 16], 1)
    spare = u[:, -1:].clamp(max=2**15 - 2)
    u = torch.where(u == 2**15 - 1, spare, u) if width * largest < 2**16 else u
    return (u[:, :count] < pixels.int() * width - 2**15).view(stored.shape)


def _random_words(
    rows: int, columns: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Draw words of 64 random bits by SplitMix64 (Steele, Lea & Flood 2014), as `int64`.

    The generator draws only the seed. Compiled code computes the words in parallel and vectorised;
    the generator would draw them one after the other.
    """
    seed = torch.randint(-(2**63), 2**63 - 1, (1,), generator=generator, device=device)
    first = 1 + _first_row * columns
    count = torch.arange(first, first + rows * columns, device=device).view(rows, columns)
    # SplitMix64 computes seed' + count * gamma. Here seed' is seed * gamma, which is as random.
    state = (seed + count) * (0x9E3779B97F4A7C15 - 2**64)
    state = (state ^ (state >> 30 & 2**34 - 1)) * (0xBF58476D1CE4E5B9 - 2**64)
    state = (state ^ (state >> 27 & 2**37 - 1)) * (0x94D049BB133111EB - 2**64)
    return state ^ (state >> 31 & 2**33 - 1)
