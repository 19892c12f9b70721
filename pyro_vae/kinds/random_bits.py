"""Random binary pixels, exactly distributed and fast in compiled code: SplitMix64."""

import math

import torch
from torch import Tensor


def draw_bits(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw pixels that are on with probability level / 255, or with the float as probability."""
    if images.dtype != torch.uint8:
        return torch.rand(images.shape, generator=generator, device=images.device) < images

    # P(u < 257 level) = level / 255 for u uniform on 0 .. 65534. Of 16 random bits one value in
    # 65536 is one too many, and another is taken for it, the same for all of an image (if that is
    # one too many itself, the next below: an error of 2^-32). Words of 32 bits are the smallest
    # that compiled code works on by the vector. All is less 2^15.
    pixels = images.reshape(len(images), math.prod(images.shape[1:]))
    width = pixels.shape[1]
    words = _random_words(len(images), width // 4 + 1, generator, images.device).view(torch.int32)
    u = torch.cat([words >> 16, words << 16 >> 16], 1)
    spare = u[:, -1:].clamp(max=2**15 - 2)
    u = torch.where(u == 2**15 - 1, spare, u)[:, :width]
    return (u < pixels.int() * 257 - 2**15).view(images.shape)


def _random_words(
    rows: int, columns: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Draw words of 64 random bits by SplitMix64 (Steele, Lea & Flood 2014), as `int64`.

    The generator gives its seed, and compiled code makes the words in parallel and by the vector,
    where the generator would draw one after the other.
    """
    seed = torch.randint(-(2**63), 2**63 - 1, (1,), generator=generator, device=device)
    count = torch.arange(1, rows * columns + 1, device=device).view(rows, columns)
    state = (seed + count) * (0x9E3779B97F4A7C15 - 2**64)  # of a seed that is as random as this one
    state = (state ^ (state >> 30 & 2**34 - 1)) * (0xBF58476D1CE4E5B9 - 2**64)
    state = (state ^ (state >> 27 & 2**37 - 1)) * (0x94D049BB133111EB - 2**64)
    return state ^ (state >> 31 & 2**33 - 1)
