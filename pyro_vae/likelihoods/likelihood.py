"""The base class of all likelihoods."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind
from pyro_vae.networks import MLP, Network

Shape = Sequence[int]
Decoder = Callable[[Shape, Shape], Network]


class Likelihood(nn.Module, ABC):
    """A distribution over examples x for each code z, from a decoder network.

    "Pixel" means one value of x, for any kind of data.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to the parameters of each pixel's distribution.
        _outputs: the number of parameters of each pixel, for a subclass in which it depends on an
            option; by default the class attribute `outputs`. The underscore hides it from the
            command line.

    Attributes:
        kind: what x is. Every subclass sets it.
        outputs: the number of parameters of each pixel.

    Raises:
        InputError: if the subclass has no kind.
    """

    kind: ClassVar[Kind]
    outputs: int = 1

    def __init__(
        self,
        latent_dim: int,
        event_shape: Shape,
        decoder: Decoder = MLP,
        *,
        _outputs: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(getattr(self, "kind", None), Kind):
            raise InputError(
                f"the likelihood {type(self).__name__} has no kind: set the class attribute kind "
                "to an object of pyro_vae.kinds, UnitInterval() for example",
                "likelihood",
            )
        if _outputs is not None:
            self.outputs = _outputs
        self.event_shape = torch.Size(event_shape)
        # The parameters of a pixel are channels, because convolutional decoders make channels.
        *channels, height, width = (1, *event_shape) if len(event_shape) == 1 else event_shape
        stacked = (self.outputs * math.prod(channels), height, width)
        self.decoder = decoder((latent_dim,), event_shape if self.outputs == 1 else stacked)

    @abstractmethod
    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z), with batch shape [...] and event shape `event_shape`.

        Args:
            z: codes, shape [..., latent_dim].
        """

    def for_training(self, z: Tensor, x: Tensor) -> dist.Distribution:
        """Return p(x|z) for a training step on x; for most likelihoods this is `self(z)`.

        The model calls this in training mode, once for each run on observed x. A likelihood that
        fits parameters to the batch does so here, and updates its running statistics here, as
        batch normalisation does. `log_prob` never changes anything.

        Args:
            z: codes, shape [..., batch, latent_dim].
            x: the observed batch, shape [batch, *event_shape].
        """
        return self(z)

    def decode(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the parameters of the pixels, `outputs` tensors of shape [..., *event_shape]."""
        parameters = self.decoder(z).reshape(*z.shape[:-1], self.outputs, *self.event_shape)
        return parameters.unbind(z.dim() - 1)

    @property
    def decoder_bias(self) -> Tensor:
        """The decoder's biases, for `initialize` to fill, shape [outputs, *event_shape]."""
        return self.decoder.bias.data.view(self.outputs, *self.event_shape)

    def initialize(self, images: Tensor) -> None:
        """Set the first values of parameters from the data; called once before training.

        Args:
            images: the features of training examples, as `kind.stored_features` returns them, shape
                [N, *event_shape]; for pixels, intensities in [0, 1].
        """

    def picture(self, z: Tensor) -> Tensor:
        """Return an image to look at for each z: the mean of p(x|z), if it is known.

        Args:
            z: codes, shape [..., latent_dim].

        Returns:
            Intensities in [0, 1], shape [..., *event_shape].
        """
        return self.kind.intensities(self(z).mean).clamp(0, 1)

    def independent(self, pixels: dist.Distribution) -> dist.Distribution:
        """Return the distribution of an example whose pixels are independent."""
        return pixels.to_event(len(self.event_shape))
