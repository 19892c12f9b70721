"""Likelihoods of 256 levels."""

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn

from pyro_vae import distributions
from pyro_vae.errors import InputError
from pyro_vae.kinds import Levels
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood
from pyro_vae.networks import MLP


class Binomial(Likelihood):
    """Independent levels, each the number of 255 coins that fall heads up.

    At middling greys its deviation is 8 levels, whatever the decoder does.
    """

    kind = Levels()

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(dist.Binomial(255, logits=self.decoder(z)))

    def initialize(self, images: Tensor) -> None:
        """Start the pixels' means at those of the data, off black and white by 0.001."""
        self.decoder.bias.data.copy_(images.mean(0).clamp(1e-3, 1 - 1e-3).logit())


class DiscretizedLogistic(Likelihood):
    """A mixture of logistic densities, integrated over each level (Salimans et al. 2017).

    With one component: Kingma et al. 2016.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to the location and scale of each component, and to its
            weight.
        components: how many are mixed, pixel by pixel.
    """

    kind = Levels()

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        components: int = 1,
    ) -> None:
        if components < 1:
            raise InputError(f"a mixture needs at least one component, and not {components}")
        self.outputs = 2 if components == 1 else 3 * components
        super().__init__(latent_dim, event_shape, decoder)
        self.components = components

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(logistics(torch.stack(self.decode(z), -1)))

    def initialize(self, images: Tensor) -> None:
        """Start at the mean and deviation of each pixel, the components side by side."""
        loc, log_scale, *_ = self.start.split(self.components)
        spread = torch.linspace(-1, 1, self.components + 2)[1:-1].to(loc)
        deviation = images.std(0)
        loc.copy_(images.mean(0) + deviation * spread.view(-1, *[1] * images[0].dim()))
        log_scale.copy_(((255 * deviation * math.sqrt(3) / math.pi) + 0.5).log().expand_as(loc))


def logistics(parameters: Tensor) -> dist.Distribution:
    """A mixture of discretised logistics for each pixel.

    Args:
        parameters: locations as intensities, log-scales in levels, and logits, one after another:
            shape [..., 3 * components]; [..., 2] for a single one.
    """
    count = max(1, parameters.shape[-1] // 3)
    loc, log_scale, logits = parameters.split([count, count, parameters.shape[-1] - 2 * count], -1)
    scale = 0.05 + log_scale.clamp(-10, 10).exp()
    if count == 1:
        return distributions.DiscretizedLogistic(255 * loc[..., 0], scale[..., 0])
    components = distributions.DiscretizedLogistic(255 * loc, scale)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)


class Categorical(Likelihood):
    """Any distribution over the 256 levels of each pixel.

    The decoder gives each pixel some features, and all pixels share a linear map from these to the
    logits of the levels; each pixel has biases of its own.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to the features.
        features: of each pixel.
    """

    kind = Levels()

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        features: int = 8,
    ) -> None:
        if features < 1:
            raise InputError(f"a Categorical needs one feature or more, and not {features}")
        self.outputs = features
        super().__init__(latent_dim, event_shape, decoder)
        self.logits = nn.Linear(features, 256, bias=False)
        self.biases = nn.Parameter(torch.zeros(*event_shape, 256))

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        features = torch.stack(self.decode(z), -1)
        return self.independent(_Levels(logits=self.logits(features) + self.biases))

    def initialize(self, images: Tensor) -> None:
        """Start at how often each pixel has each level, smoothed with how often any pixel has."""
        levels = (255 * images).round().long()
        counts = torch.stack([(levels == level).sum(0) for level in range(256)], -1).float()
        share = counts.flatten(0, -2).sum(0) + 1
        self.biases.data.copy_((counts + 10 * share / share.sum()).log())


class _Levels(dist.Categorical):
    """A categorical distribution over levels, whose mean is one."""

    @property
    def mean(self) -> Tensor:
        levels = torch.arange(256, dtype=self.logits.dtype, device=self.logits.device)
        return self.probs @ levels

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        return super().sample(sample_shape).to(self.logits.dtype)
