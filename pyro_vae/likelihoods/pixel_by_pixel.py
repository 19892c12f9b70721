"""Likelihoods whose pixels depend on each other: strong decoders."""

import math
from collections.abc import Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions import Autoregressive
from pyro_vae.errors import InputError
from pyro_vae.kinds import Binary, Kind, Levels
from pyro_vae.likelihoods.discretized import logistics
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood
from pyro_vae.networks import MLP, GatedPixelCNN


class PixelCNN(Likelihood):
    """An autoregressive decoder of binary pixels: a gated PixelCNN whose context is z.

    log p(x|z) = sum_i log p(x_i | x_<i, z), in raster order (van den Oord et al. 2016; as a
    decoder, Gulrajani et al. 2017, Chen et al. 2017). So strong that it may do without z: posterior
    collapse. The fewer layers and the smaller the kernel, the less it sees, the more it needs z.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x: [H, W] or [C, H, W].
        decoder: the network that maps z to the context of each pixel.
        context: how many numbers that is, for each colour.
        channels: of the hidden layers.
        layers: how many there are.
        kernel_size: of the convolutions, odd.
    """

    kind: ClassVar[Kind] = Binary()
    pixel_scale: ClassVar[float] = 1.0  # of a white pixel
    pixel_support: ClassVar[constraints.Constraint] = constraints.boolean
    pixel_outputs: ClassVar[int] = 1

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        context: int = 4,
        channels: int = 16,
        layers: int = 4,
        kernel_size: int = 5,
    ) -> None:
        if context < 1:
            raise InputError(f"a PixelCNN needs a context of one number or more, not {context}")
        self.outputs = context
        super().__init__(latent_dim, event_shape, decoder)
        context_channels = context * math.prod(event_shape[:-2])
        self.network = GatedPixelCNN(
            event_shape, self.pixel_outputs, context_channels, channels, layers, kernel_size
        )

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return Autoregressive(
            self.network,
            self.pixels,
            self.decoder(z).reshape(*z.shape[:-1], -1, *self.event_shape[-2:]),
            self.event_shape,
            scale=self.pixel_scale,
            support=self.pixel_support,
        )

    def pixels(self, parameters: Tensor) -> dist.Distribution:
        """Return the distribution of the pixels, for parameters of shape [N, 1, *event_shape]."""
        return dist.Bernoulli(logits=parameters[:, 0])

    def picture(self, z: Tensor) -> Tensor:
        """Return a draw from p(x|z): its mean is not known."""
        return self.kind.features(self(z).sample())


class PixelCNNLevels(PixelCNN):
    """An autoregressive decoder of 256 levels: a gated PixelCNN whose context is z.

    As `PixelCNN`, and each pixel a mixture of three discretised logistics (Salimans et al. 2017).
    """

    kind = Levels()
    pixel_scale = 255.0
    pixel_support = constraints.integer_interval(0, 255)
    pixel_outputs = 9  # of three components

    def pixels(self, parameters: Tensor) -> dist.Distribution:
        """Return the distribution of the pixels, for parameters of shape [N, 9, *event_shape]."""
        loc, log_scale, logits = parameters.movedim(1, -1).split(self.pixel_outputs // 3, -1)
        apart = torch.linspace(0, 1, loc.shape[-1]).to(loc)  # black, grey and white to start from
        return logistics(torch.cat([loc + apart, log_scale + 2, logits], -1))
