"""What all kinds of pixels have in common."""

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.kind import Kind


class Pixels(Kind):
    """Pixels, stored as `uint8` levels in 0..255 or as `float32` intensities in [0, 1].

    Their features are intensities in [0, 1], for encoders and figures alike.
    """

    def check(self, stored: Tensor) -> None:
        """Refuse floats outside of [0, 1].

        Raises:
            InputError: with the range of the floats.
        """
        if stored.dtype != torch.uint8 and not 0 <= stored.min() <= stored.max() <= 1:
            raise InputError(
                f"the data have values from {stored.min():g} to {stored.max():g}: scale floats to "
                "[0, 1], or save levels 0..255 as uint8",
                "data",
            )

    def stored_features(self, stored: Tensor) -> Tensor:
        """Return intensities in [0, 1]: levels are divided by 255, floats are unchanged."""
        return stored.float() / 255 if stored.dtype == torch.uint8 else stored

    def intensities(self, x: Tensor) -> Tensor:
        """Return the features, which are intensities."""
        return self.features(x)
