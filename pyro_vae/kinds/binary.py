"""Binary pixels."""

import torch
from torch import Tensor

from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Binarization, Kind, check_pixels
from pyro_vae.kinds.random_bits import draw_bits


class Binary(Kind):
    """Pixels in {0, 1}, drawn with the grey value as their probability.

    Dynamic binarisation (Salakhutdinov & Murray 2008) draws them anew at every look in training.
    Binary pixels are other data than the levels that they are drawn from: their log p(x) is never
    comparable with that of levels.
    """

    name = "binary"

    def check(self, stored: Tensor) -> None:
        """Refuse floats outside of [0, 1]."""
        check_pixels(stored)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return pixels in {0, 1}, drawn anew."""
        return draw_bits(stored, generator).float()

    def binarize(self, stored: Tensor, method: Binarization, seed: int) -> Tensor:
        """Return the examples unchanged (`dynamic`), or black and white; see `Kind.binarize`."""
        if method == "dynamic":
            return stored
        white = 255 if stored.dtype == torch.uint8 else 1
        if method == "threshold":
            on = stored > white / 2
        else:
            on = draw_bits(stored, torch.Generator(stored.device).manual_seed(seed))
        return on.to(stored.dtype) * white

    def base_measure(self, stored: Tensor) -> BaseMeasure:
        """Return the counting measure on binary images."""
        return BaseMeasure("binary pixels", counts=True)

    def measured(self, stored: Tensor, x: Tensor) -> Tensor:
        """Return the drawn pixels: log p(x) is their probability."""
        return x

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return whether x can have been drawn from each image; see `Kind.could_show`.

        It can if no black pixel is on, no white pixel is off, and log p(x[n] | image m) is not more
        than six of its standard deviations below its mean. Of small images that may be true of
        several.
        """
        x, images = x.flatten(1), features.flatten(1)
        black, full = (images == 0).to(x), (images == 1).to(x)
        contradicted = x @ black.T + (1 - x) @ full.T
        logit = torch.where((black + full) == 0, images, 0.5).logit()
        deviation = (images * (1 - images) * logit.square()).sum(1).sqrt()
        return (contradicted == 0) & (x @ logit.T - (images * logit).sum(1) > -6 * deviation - 1e-3)
