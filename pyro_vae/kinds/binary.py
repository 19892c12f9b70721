"""Binary pixels."""

import torch
from torch import Tensor

from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.kind import Binarization
from pyro_vae.kinds.pixels import Pixels
from pyro_vae.kinds.random_bits import draw_bits


class Binary(Pixels):
    """Pixels in {0, 1}, drawn with the grey value as their probability.

    Dynamic binarisation (Salakhutdinov & Murray 2008) draws them anew each time that an image is
    used in training. Binary pixels are different data from the levels that they are drawn from:
    their log p(x) is never comparable with that of levels. Stored values 0 and 1 are two levels:
    they are unchanged.
    """

    name = "binary"

    @property
    def num_categories(self) -> Tensor:
        """Two."""
        return torch.tensor(2)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return pixels in {0, 1}, drawn anew."""
        if self.levels == 2:
            return stored.float()
        return draw_bits(stored, self.largest, generator).float()

    def binarize(self, stored: Tensor, method: Binarization, seed: int) -> Tensor:
        """Return the examples unchanged (`dynamic`), or black and white; see `Kind.binarize`."""
        if method == "dynamic":
            return stored
        if method == "threshold":
            on = stored > self.largest / 2
        else:
            generator = torch.Generator(stored.device).manual_seed(seed)
            on = draw_bits(stored, self.largest, generator)
        return on.to(stored.dtype) * self.largest

    def base_measure(self) -> BaseMeasure:
        """Return the counting measure on binary images."""
        return BaseMeasure("binary pixels", counts=True)

    def measured(self, stored: Tensor, x: Tensor) -> Tensor:
        """Return the drawn pixels, because p(x) is their probability."""
        return x

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return whether x can have been drawn from each image; see `Kind.could_show`.

        It can if three things are true: no black pixel of the image is on, no white pixel is off,
        and log p(x[n] | image m) is not more than six of its standard deviations below its mean.
        For small images several may satisfy all three.
        """
        x, images = x.flatten(1), features.flatten(1)
        black, white = (images == 0).to(x), (images == 1).to(x)
        contradictions = x @ black.T + (1 - x) @ white.T
        logit = torch.where((black + white) == 0, images, 0.5).logit()
        deviation = (images * (1 - images) * logit.square()).sum(1).sqrt()
        excess = x @ logit.T - (images * logit).sum(1)  # of log p(x[n] | image m) over its mean
        return (contradictions == 0) & (excess > -6 * deviation - 1e-3)
