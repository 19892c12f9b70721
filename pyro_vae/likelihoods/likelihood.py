"""The base class of all likelihoods."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind, Stored
from pyro_vae.networks import MLP, Network

Shape = Sequence[int]
Decoder = Callable[[Shape, Shape], Network]


class Likelihood(nn.Module, ABC):
    """A distribution over examples x for each code z, from a decoder network.

    "Pixel" means one value of x, for any kind of data.

    Args:
        latent_dim: the dimension of z.
        x: what x is: the kind of the data, or the shape of one x; then it is of the first of
            `kinds`.
        decoder: the network that maps z to the parameters of each pixel's distribution.
        _outputs: the number of parameters of each pixel, for a subclass in which it depends on an
            option; by default the class attribute `outputs`. The underscore hides it from the
            command line.

    Attributes:
        kinds: the kinds of data that it models. Every subclass sets it.
        kind: what x is.
        event_shape: the shape of one x.
        outputs: the number of parameters of each pixel.

    Raises:
        InputError: if the subclass has no kinds, or they cannot stand for the kind of the data.
    """

    kinds: ClassVar[tuple[type[Kind], ...]] = ()
    outputs: int = 1

    def __init__(
        self,
        latent_dim: int,
        x: Kind | Shape,
        decoder: Decoder = MLP,
        *,
        _outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.kind = self.kind_of(x)
        if _outputs is not None:
            self.outputs = _outputs
        self.event_shape = self.kind.shape
        self.decoder = decoder((latent_dim,), self.decoder_shape)

    @property
    def decoder_shape(self) -> Shape:
        """The shape of what the decoder computes for one z: by default `outputs` numbers a pixel.

        They are channels, because convolutional decoders make channels.
        """
        shape = self.event_shape
        if self.outputs == 1:
            return shape
        *channels, height, width = (1, *shape) if len(shape) == 1 else shape
        return (self.outputs * math.prod(channels), height, width)

    def fit_kind(self, stored: Stored) -> None:
        """Let the kind take its statistics from training examples, shape [N, *event_shape]."""
        self.kind = self.kind.fitted(stored)

    @classmethod
    def kind_of(cls, x: Kind | Shape) -> Kind:
        """Return the kind in which this likelihood models data of a kind, or of a shape.

        Raises:
            InputError: if it does not model such data.
        """
        if not cls.kinds:
            raise InputError(
                f"the likelihood {cls.__name__} has no kinds: set the class attribute kinds to "
                "classes of pyro_vae.kinds, (UnitInterval,) for example",
                "likelihood",
            )
        if not isinstance(x, Kind):
            return cls.kinds[0](x)
        for kind in cls.kinds:
            seen = kind.seeing(x)
            if seen is not None:
                return seen
        raise InputError(
            f"the likelihood {cls.__name__} models {cls._models()}, and these data are {x}: name "
            "another, or none, for the one that suits them",
            "likelihood",
        )

    @classmethod
    def _models(cls) -> str:
        return " or ".join(f"{kind.name} data" for kind in cls.kinds)

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

    def given(self, z: Tensor, x: Tensor) -> dist.Distribution:
        """Return p(x|z) for the model to observe x: where its total is known, it is that of x.

        Args:
            z: codes, shape [..., batch, latent_dim].
            x: the observed batch, shape [batch, *event_shape].
        """
        return self.for_training(z, x) if self.training else self(z)

    def under(self, x: Tensor) -> "Likelihood":
        """Return the likelihood with the conditions y of some examples fixed; by default itself.

        What decodes codes alone calls it first, so that it works for p(x|z, y) too.

        Args:
            x: examples whose conditions are meant, of a shape [..., *event_shape] whose first
                dimensions are those of the codes, or expand to them; one example is for all codes.
        """
        return self

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
                [N, *kind.feature_shape]; for pixels, intensities in [0, 1].
        """

    def typical(self, z: Tensor) -> Tensor:
        """Return what is typical of p(x|z), as x: its mean; of categories, the most probable one.

        Args:
            z: codes, shape [..., latent_dim].
        """
        return self(z).mean

    def picture(self, z: Tensor) -> Tensor:
        """Return an image to look at for each z: by default, what is typical of p(x|z).

        Args:
            z: codes, shape [..., latent_dim].

        Returns:
            Intensities in [0, 1], shape [..., *event_shape]; without conditions that x comes with.
        """
        return self.kind.intensities(self.typical(z)).clamp(0, 1)

    def independent(self, pixels: dist.Distribution) -> dist.Distribution:
        """Return the distribution of an example whose pixels are independent."""
        return pixels.to_event(len(self.event_shape))
