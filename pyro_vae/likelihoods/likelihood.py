"""The base of all likelihoods."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.kinds import Kind
from pyro_vae.networks import MLP, Network

Decoder = Callable[[Sequence[int], Sequence[int]], Network]


class Likelihood(nn.Module, ABC):
    """A distribution over images for each code, from a decoder network.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to the parameters of each pixel's distribution.

    Attributes:
        kind: what x is.
        outputs: how many parameters a pixel has; set before the constructor of this class, if it
            depends on an option.
    """

    kind: ClassVar[Kind]
    outputs: int = 1

    def __init__(self, latent_dim: int, event_shape: Sequence[int], decoder: Decoder = MLP) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        # As channels, so that convolutional decoders make them as they make colours.
        *channels, height, width = (1, *event_shape) if len(event_shape) == 1 else event_shape
        stacked = (self.outputs * math.prod(channels), height, width)
        self.decoder = decoder((latent_dim,), event_shape if self.outputs == 1 else stacked)

    @abstractmethod
    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z), with batch shape [...] and event shape `event_shape`.

        Args:
            z: shape [..., latent_dim].
        """

    def decode(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the parameters of the pixels, `outputs` tensors of shape [..., *event_shape]."""
        parameters = self.decoder(z).reshape(*z.shape[:-1], self.outputs, *self.event_shape)
        return parameters.unbind(z.dim() - 1)

    @property
    def start(self) -> Tensor:
        """The decoder's biases, to be filled, shape [outputs, *event_shape]."""
        return self.decoder.bias.data.view(self.outputs, *self.event_shape)

    def initialize(self, images: Tensor) -> None:
        """Start from the data; called once before training.

        Args:
            images: training images, shape [N, *event_shape], intensities in [0, 1].
        """

    def picture(self, z: Tensor) -> Tensor:
        """Return an image to look at for each z: the mean of p(x|z), if it is known.

        Args:
            z: shape [..., latent_dim].

        Returns:
            Intensities in [0, 1], shape [..., *event_shape].
        """
        return self.kind.features(self(z).mean).clamp(0, 1)

    def independent(self, pixels: dist.Distribution) -> dist.Distribution:
        """Return the distribution of an image of independent pixels."""
        return pixels.to_event(len(self.event_shape))
