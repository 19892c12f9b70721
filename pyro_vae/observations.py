"""How stored images are shown to a likelihood.

A likelihood declares its support. A binary likelihood is shown pixels in {0, 1}, drawn with the
grey value as their probability (dynamic binarisation, Salakhutdinov & Murray 2008; anew at every
look in training). A likelihood on the unit interval is shown `(level + u) / 256` with u uniform on
[0, 1): under uniform dequantisation the mean log-density, less log 256 a pixel, is a lower bound
on the log-probability of the levels (Theis, van den Oord & Bethge 2016). Float images
have no levels and are shown as they are.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from pyro_vae.errors import InputError

Support = Literal["binary", "unit_interval"]
Binarization = Literal["dynamic", "static", "threshold"]


def observe(images: Tensor, support: Support, generator: torch.Generator | None = None) -> Tensor:
    """Show images to a likelihood, with fresh noise.

    Args:
        images: stored images, `uint8` in 0..255 or `float32` in [0, 1], shape [N, *event].
        support: what the likelihood takes.
        generator: of the noise, on the images' device; without one the global generator is used.

    Returns:
        `float32`, shape [N, *event]: values in {0, 1}, or in [0, 1].

    Raises:
        InputError: if the support is unknown.
    """
    if support not in get_args(Support):
        known = ", ".join(get_args(Support))
        raise InputError(f"a likelihood's support has to be one of {known}, and not {support}")
    if support == "binary":
        return _bernoulli(images, generator).float()
    if images.dtype == torch.uint8:
        noise = torch.rand(images.shape, generator=generator, device=images.device)
        # 255 + u can round up to 256 in float32, hence the clamp.
        return ((images + noise) / 256).clamp(max=1.0)
    return images


def observe_once(images: Tensor, support: Support, seed: int) -> Tensor:
    """Show images to a likelihood with noise that only depends on `seed`: for held-out data."""
    generator = torch.Generator(images.device).manual_seed(seed)
    return observe(images, support, generator)


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
    white = 255 if images.dtype == torch.uint8 else 1
    if method == "threshold":
        on = images > white / 2
    else:
        on = _bernoulli(images, torch.Generator(images.device).manual_seed(seed))
    return on.to(images.dtype) * white


def intensities(images: Tensor) -> Tensor:
    """Return the stored images as `float32` in [0, 1], black as 0 and white as 1."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _bernoulli(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw pixels that are on with probability level / 255, or with the float as probability."""
    if images.dtype == torch.uint8:
        # u < level with u uniform on 0..254 is exact, and cheaper than torch.bernoulli.
        shape, device = images.shape, images.device
        return (
            torch.randint(255, shape, generator=generator, device=device, dtype=torch.uint8)
            < images
        )
    return torch.rand(images.shape, generator=generator, device=images.device) < images
