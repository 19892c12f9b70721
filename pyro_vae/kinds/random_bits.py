"""Random binary pixels with exact probabilities, fast in compiled code: SplitMix64."""

import math

import torch
from torch import Tensor


def draw_bits(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw pixels that are on with probability level / 255, or with the float as probability."""
    if images.dtype != torch.uint8:
        return torch.rand(images.shape, generator=generator, device=images.device) < images

    # P(u < 257 level) = level / 255 for u uniform on 0 .. 65534. A draw of 16 random bits has one
    # value too many, 65535. A spare draw replaces it; each image has one spare draw. If the
    # spare draw is 65535 too, it becomes 65534: an error of 2^-32. Everything is shifted by -2^15,
    # to be signed. The random words are split into 32-bit integers because these are the smallest
    # that compiled code vectorises.
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

    The generator draws only the seed. Compiled code computes the words in parallel and vectorised;
    the generator would draw them one after the other.
    """
    seed = torch.randint(-(2**63), 2**63 - 1, (1,), generator=generator, device=device)
    count = torch.arange(1, rows * columns + 1, device=device).view(rows, columns)
    # SplitMix64 computes seed' + count * gamma. Here seed' is seed * gamma, which is as random.
    state = (seed + count) * (0x9E3779B97F4A7C15 - 2**64)
    state = (state ^ (state >> 30 & 2**34 - 1)) * (0xBF58476D1CE4E5B9 - 2**64)
    state = (state ^ (state >> 27 & 2**37 - 1)) * (0x94D049BB133111EB - 2**64)
    return state ^ (state >> 31 & 2**33 - 1)
