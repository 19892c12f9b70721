"""How stored images are shown to a likelihood, and on what measure the answer is.

A likelihood declares its support:

- `binary`: pixels in {0, 1}, drawn with the grey value as their probability (dynamic binarisation,
  Salakhutdinov & Murray 2008; anew at every look in training).
- `levels`: the stored levels 0, 1, .., 255, as they are.
- `unit_interval`: `(level + u) / 256`, u uniform on [0, 1): uniform dequantisation. Float images
  have no levels and are shown as they are.

A probability and a density are on different base measures. With D pixels, a density p on [0, 1]^D
gives each image of levels the probability P(levels) = integral of p over its cell, of side 1/256.
By Jensen's inequality

    log P(levels) >= E_u[log p((levels + u) / 256)] - D log 256

(Theis, van den Oord & Bethge 2016), so a bound on the density, less log 256 a pixel, is a bound on
the probability, and the two can stand in one table: see `log_prob_of_levels`. Bits per dimension
are -log2 of it, per pixel. Binary pixels are other data, and never comparable.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from pyro_vae.errors import InputError

Support = Literal["binary", "levels", "unit_interval"]
Binarization = Literal["dynamic", "static", "threshold"]
BaseMeasure = Literal["binary pixels", "256 levels", "the unit interval"]


def observe(images: Tensor, support: Support, generator: torch.Generator | None = None) -> Tensor:
    """Show images to a likelihood, with fresh noise.

    Args:
        images: stored images, `uint8` in 0..255 or `float32` in [0, 1], shape [N, *event].
        support: what the likelihood takes.
        generator: of the noise, on the images' device; without one the global generator is used.

    Returns:
        `float32`, shape [N, *event]: values in {0, 1}, in {0, .., 255}, or in [0, 1]; in (0, 1) if
        they are dequantised.

    Raises:
        InputError: if the support is unknown, or the images have no levels and it wants them.
    """
    base_measure(images, support)
    if support == "binary":
        return _bernoulli(images, generator).float()
    if images.dtype != torch.uint8:
        return images
    if support == "levels":
        return images.float()
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    return inside((images + noise) / 256)


def inside(x: Tensor) -> Tensor:
    """Take values off 0 and 1, where densities may be infinite, to 2^-33 and 1 - 2^-24.

    In single precision dequantisation gets there: u can be 0, and 255 + u can round up to 256.
    """
    return x.clamp(2**-33, 1 - 2**-24)


def observe_once(images: Tensor, support: Support, seed: int) -> Tensor:
    """Show images to a likelihood with noise that only depends on `seed`: for held-out data."""
    generator = torch.Generator(images.device).manual_seed(seed)
    return observe(images, support, generator)


def base_measure(images: Tensor, support: Support) -> BaseMeasure:
    """Say on what measure log p(x) can be compared, for stored images and a likelihood's support.

    Raises:
        InputError: if the support is unknown, or the images have no levels and it wants them.
    """
    if support not in get_args(Support):
        known = ", ".join(get_args(Support))
        raise InputError(f"a likelihood's support has to be one of {known}, and not {support}")
    if support == "binary":
        return "binary pixels"
    if images.dtype == torch.uint8:
        return "256 levels"
    if support == "levels":
        raise InputError(
            "a likelihood of levels wants images as uint8, and these are floats: choose one that "
            "is binary or on the unit interval"
        )
    return "the unit interval"


def log_prob_of_levels(log_prob: Tensor, support: Support, dims: int) -> Tensor:
    """Put log p(x), or a bound on it, on the measure of the levels that x was made from.

    Args:
        log_prob: nats; of levels, or of a density on the unit interval after dequantisation.
        support: of the likelihood.
        dims: D, the number of pixels, colours counted apart.

    Returns:
        Nats: as it was for levels, less D log 256 for a density (a lower bound, as above).

    Raises:
        InputError: for binary pixels, which say nothing of levels.
    """
    if support == "binary":
        raise InputError("binary pixels are other data than levels: there is no common measure")
    return log_prob if support == "levels" else log_prob - dims * math.log(256)


def bits_per_dim(log_prob: float, dims: int) -> float:
    """Return -log2 P per pixel, from nats on a measure that counts."""
    return -log_prob / (dims * math.log(2))


def white(support: Support) -> float:
    """Return what a white pixel is, as a likelihood is shown it."""
    return 255.0 if support == "levels" else 1.0


def could_show(x: Tensor, images: Tensor, support: Support) -> Tensor:
    """Say which of some images an x can have been drawn from.

    Args:
        x: as a likelihood is shown it, shape [N, *event].
        images: intensities in [0, 1], shape [M, *event].
        support: of the likelihood.

    Returns:
        Whether `observe` can have shown x[n] for images[m], shape [N, M]. Of levels: whether they
        are the same; of dequantised ones, give or take one. Of binary pixels: whether none that was
        black is on, none that was white is off, and log p(x[n] | images[m]) is not below its mean
        by more than six of its standard deviations: of small images that may be true of several.
    """
    x, images = x.flatten(1) / white(support), images.flatten(1)
    if support == "binary":
        black, full = (images == 0).to(x), (images == 1).to(x)
        contradicted = x @ black.T + (1 - x) @ full.T
        logit = torch.where((black + full) == 0, images, 0.5).logit()
        deviation = (images * (1 - images) * logit.square()).sum(1).sqrt()
        return (contradicted == 0) & (x @ logit.T - (images * logit).sum(1) > -6 * deviation - 1e-3)
    nearest = 1 / 255 if support == "unit_interval" else 0.5 / 255  # in any one pixel
    return torch.cdist(x, images, p=math.inf) < nearest


def binarize(images: Tensor, method: Binarization, support: Support, seed: int) -> Tensor:
    """Fix the binarisation of stored images, where it is to be fixed.

    Args:
        images: stored images, `uint8` or `float32`, shape [N, *event].
        method: `dynamic` leaves the images alone, so that `observe` draws the pixels anew each
            time; `static` draws them once and for all; `threshold` compares them with one half.
        support: of the likelihood that will see them.
        seed: of the static draw.

    Returns:
        Stored images of the same type, all black and white unless `method` is `dynamic`.

    Raises:
        InputError: if the likelihood is not a binary one, and `method` is not `dynamic`.
    """
    if method == "dynamic":
        return images
    if support != "binary":
        raise InputError(
            f"--binarization {method} is for binary likelihoods, and this one's support is "
            f"{support}: leave it out"
        )
    on_level = 255 if images.dtype == torch.uint8 else 1
    if method == "threshold":
        on = images > on_level / 2
    else:
        on = _bernoulli(images, torch.Generator(images.device).manual_seed(seed))
    return on.to(images.dtype) * on_level


def intensities(images: Tensor) -> Tensor:
    """Return the stored images as `float32` in [0, 1], black as 0 and white as 1."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _bernoulli(images: Tensor, generator: torch.Generator | None) -> Tensor:
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
