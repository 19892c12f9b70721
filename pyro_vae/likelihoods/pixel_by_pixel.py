"""Likelihoods with dependent pixels: strong decoders."""

import math
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions import Autoregressive
from pyro_vae.errors import InputError
from pyro_vae.kinds import Binary, Kind, Levels, Pixels
from pyro_vae.likelihoods.discretized import logistics
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood, Shape
from pyro_vae.networks import MLP, GatedPixelCNN, LocalFeatures
from pyro_vae.networks.network import check_positive


class PixelCNN(Likelihood):
    """An autoregressive decoder of binary pixels: a gated PixelCNN whose context is z.

    log p(x|z) = sum_i log p(x_i | x_<i, z), in raster order (van den Oord et al. 2016; as a
    decoder, Gulrajani et al. 2017, Chen et al. 2017). It is strong enough to model x without z,
    which is posterior collapse. With fewer layers and a smaller kernel it sees fewer pixels and
    needs z more.

    Args:
        x: what x is, or its shape, that of an image: [H, W] or [C, H, W].
        decoder: the network that maps z to the context of each pixel.
        context: the number of context values of each pixel, for each colour.
        channels: the number of channels of the hidden layers.
        layers: the number of hidden layers.
        kernel_size: the size of the convolutions, an odd number.
    """

    kinds: ClassVar[tuple[type[Kind], ...]] = (Binary,)
    kind: Pixels
    pixel_outputs: ClassVar[int] = 1

    def __init__(
        self,
        latent_dim: int,
        x: Kind | Shape,
        decoder: Decoder = MLP,
        context: int = 4,
        channels: int = 16,
        layers: int = 4,
        kernel_size: int = 5,
    ) -> None:
        if context < 1:
            raise InputError(
                f"a PixelCNN needs a context of one number or more, not {context}", "context"
            )
        super().__init__(latent_dim, x, decoder, _outputs=context)
        context_channels = context * math.prod(self.event_shape[:-2])
        self.network = GatedPixelCNN(
            self.event_shape, self.pixel_outputs, context_channels, channels, layers, kernel_size
        )

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return Autoregressive(
            self.network,
            self.pixels,
            self.decoder(z).reshape(*z.shape[:-1], -1, *self.event_shape[-2:]),
            self.event_shape,
            scale=self.pixel_scale,
            support=constraints.integer_interval(0, self.pixel_scale),
        )

    @property
    def pixel_scale(self) -> int:
        """The value of a white pixel."""
        return 1

    def pixels(self, parameters: Tensor) -> dist.Distribution:
        """Return the distribution of the pixels, for parameters of shape [N, 1, *event_shape]."""
        return _bernoulli(parameters)

    def picture(self, z: Tensor) -> Tensor:
        """Return a draw from p(x|z), because its mean is not known."""
        return self.kind.intensities(self(z).sample())


class LocalPixels(Likelihood):
    """An autoregressive decoder of binary pixels that reads only the pixels nearby.

    The logit of pixel i is b_i(z) + sum_c a_ci(z) h_ci, where the features h = tanh(W x + w) are of
    the pixels before i in raster order that are at most `reach` rows and columns away. So z says
    how a pixel follows from its neighbours, and what these cannot tell has to come from z
    (Chen et al. 2017, "Variational lossy autoencoder", use a small PixelCNN in this way). All draws
    of z for an image share h: many of them cost little more than for independent pixels.

    Args:
        x: what x is, or its shape, that of an image: [H, W] or [C, H, W].
        decoder: the network that maps z to b and a of each pixel.
        features: the number of features of each pixel, and of each of its colours.
        reach: how many rows and columns away a pixel is read.
    """

    kinds: ClassVar[tuple[type[Kind], ...]] = (Binary,)
    kind: Pixels

    def __init__(
        self,
        latent_dim: int,
        x: Kind | Shape,
        decoder: Decoder = MLP,
        features: int = 8,
        reach: int = 3,
    ) -> None:
        check_positive("features", [features])
        super().__init__(latent_dim, x, decoder, _outputs=1 + features)
        self.network = LocalFeatures(self.event_shape, features, reach)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return Autoregressive(
            self.network,
            _bernoulli,
            self.decoder(z).reshape(*z.shape[:-1], -1, *self.event_shape[-2:]),
            self.event_shape,
            support=constraints.boolean,
            combine=self._logits,
        )

    def initialize(self, images: Tensor) -> None:
        """Start at the pixels' means, at least 0.001 away from 0 and 1, if all a are zero."""
        self.decoder_bias[0] = images.mean(0).clamp(1e-3, 1 - 1e-3).logit()

    def _logits(self, features: Tensor, context: Tensor) -> Tensor:
        """Return b + sum_c a_c h_c, shape [..., 1, *event_shape].

        Args:
            features: h, shape [..., features, *event_shape].
            context: b and a, shape [..., (1 + features) * C, H, W].
        """
        if len(self.event_shape) == 3:
            context = context.unflatten(-3, (-1, self.event_shape[0]))
        dim = -len(self.event_shape) - 1
        b, a = context.split([1, self.outputs - 1], dim)
        return b + (a * features).sum(dim, keepdim=True)

    def picture(self, z: Tensor) -> Tensor:
        """Return a draw from p(x|z), because its mean is not known."""
        return self.kind.intensities(self(z).sample())


class PixelCNNLevels(PixelCNN):
    """An autoregressive decoder of levels: a gated PixelCNN whose context is z.

    It is `PixelCNN` with a mixture of three discretised logistics for each pixel (Salimans et al.
    2017).
    """

    kinds = (Levels,)
    kind: Levels
    pixel_outputs = 9  # of three components

    @property
    def pixel_scale(self) -> int:
        """The value of a white pixel."""
        return self.kind.largest

    def pixels(self, parameters: Tensor) -> dist.Distribution:
        """Return the distribution of the pixels, for parameters of shape [N, 9, *event_shape]."""
        loc, log_scale, logits = parameters.movedim(1, -1).split(self.pixel_outputs // 3, -1)
        first_locations = torch.linspace(0, 1, loc.shape[-1]).to(loc)  # black, grey and white
        parameters = torch.cat([loc + first_locations, log_scale + 2, logits], -1)
        return logistics(parameters, self.kind.levels)


def _bernoulli(parameters: Tensor) -> dist.Distribution:
    """Return the distribution of binary pixels, for logits of shape [N, 1, *event_shape]."""
    return dist.Bernoulli(logits=parameters[:, 0])
