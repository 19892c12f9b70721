"""Likelihoods p(x|z): what an image is, given its code.

-log p(x|z) is the reconstruction term of the loss. Cross-entropy is a `Bernoulli`; mean squared
error is a `Gaussian` of fixed scale, up to a constant. `support` says what x may be, and so in what
form images are shown to the likelihood (see `observations`); a log-probability of binary pixels and
a log-density on the unit interval are never comparable.

To add one, subclass `Likelihood`: the constructor takes the latent dimension, the shape of x, and
then the options of the command line; `forward` returns the distribution of x for a batch of z.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.errors import InputError
from pyro_vae.networks import MLP, Network
from pyro_vae.observations import Support

Decoder = Callable[[Sequence[int], Sequence[int]], Network]


class Likelihood(nn.Module, ABC):
    """A distribution over images for each code, from a decoder network.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to a parameter of each pixel's distribution.
    """

    support: ClassVar[Support]

    def __init__(self, latent_dim: int, event_shape: Sequence[int], decoder: Decoder = MLP) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.decoder = decoder((latent_dim,), event_shape)

    @abstractmethod
    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z), with batch shape [...] and event shape `event_shape`.

        Args:
            z: shape [..., latent_dim].
        """

    def initialize(self, images: Tensor) -> None:
        """Start from the data; called once before training.

        Args:
            images: training images, shape [N, *event_shape], intensities in [0, 1].
        """


class Bernoulli(Likelihood):
    """Independent binary pixels, the decoder giving their logits.

    -log p(x|z) is the cross-entropy.
    """

    support = "binary"

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return dist.Bernoulli(logits=self.decoder(z)).to_event(len(self.event_shape))

    def initialize(self, images: Tensor) -> None:
        """Start the pixels' probabilities at their means, off 0 and 1 by 0.001."""
        self.decoder.bias.data.copy_(images.mean(0).clamp(1e-3, 1 - 1e-3).logit())


class ContinuousBernoulli(Likelihood):
    """The Bernoulli made a density that integrates to one over [0, 1], from the same logits.

    log p(x|z) is the cross-entropy plus log C(logits) (Loaiza-Ganem & Cunningham 2019); without
    log C, as grey images are often scored, it is no likelihood.
    """

    support = "unit_interval"

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        pixels = distributions.ContinuousBernoulli(self.decoder(z))
        return pixels.to_event(len(self.event_shape))

    def initialize(self, images: Tensor) -> None:
        """Start the pixels' means at those of the data, found by bisection in the logit."""
        # Means closer than 1/30 to 0 or 1 are left for training to find: a pixel that was never
        # on may yet be.
        low = torch.full_like(self.decoder.bias, -30.0)
        high = -low
        mean = images.mean(0)
        for _ in range(40):
            middle = (low + high) / 2
            below = distributions.ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        self.decoder.bias.data.copy_(low)


class Gaussian(Likelihood):
    """N(m(z), s^2 I), one scale for all pixels, learned or fixed.

    With s fixed, -log p(x|z) = |x - m(z)|^2 / (2 s^2) + D log(s sqrt(2 pi)): the squared error up
    to a factor and a constant, so to choose its weight against the KL is to choose s. Learned, s
    settles at the root mean squared error of the reconstructions, and there is no weight left to
    choose (Rybkin, Daniilidis & Levine 2021).

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to m.
        scale: s, or where a learned s starts if there are no data to start it from.
        learn_scale: whether s is learned.
    """

    support = "unit_interval"

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        scale: float = 0.1,
        learn_scale: bool = True,
    ) -> None:
        super().__init__(latent_dim, event_shape, decoder)
        if not 1e-6 < scale < 1e6:
            raise InputError(f"a Gaussian's scale has to be in (1e-6, 1e6), and {scale} is not")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learn_scale)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        loc = self.decoder(z)
        return dist.Normal(loc, self.log_scale.exp()).to_event(len(self.event_shape))

    def initialize(self, images: Tensor) -> None:
        """Start m at the mean image, and a learned s at the deviation from it."""
        self.decoder.bias.data.copy_(images.mean(0))
        if self.log_scale.requires_grad:
            residual = (images - images.mean(0)).square().mean().sqrt()
            self.log_scale.data.copy_(residual.clamp(min=1e-3).log())
