"""Likelihoods of levels with independent pixels."""

import math

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn

from pyro_vae import distributions
from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind, Levels
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood, Shape
from pyro_vae.networks import MLP


class Binomial(Likelihood):
    """Independent levels, each the number of heads in L - 1 tosses of a coin.

    The standard deviation of a middle grey of 256 levels is 8 levels, whatever the decoder does.
    """

    kinds = (Levels,)
    kind: Levels

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(dist.Binomial(self.kind.largest, logits=self.decoder(z)))

    def initialize(self, images: Tensor) -> None:
        """Set the pixels' means to those of the data, at least 0.001 away from black and white."""
        self.decoder.bias.data.copy_(images.mean(0).clamp(1e-3, 1 - 1e-3).logit())


class DiscretizedLogistic(Likelihood):
    """A mixture of logistic densities, integrated over each level (Salimans et al. 2017).

    With one component it is the likelihood of Kingma et al. 2016.

    Args:
        decoder: the network that maps z to the location and scale of each component and, if there
            are several, to its weight.
        components: the number of logistic densities in the mixture of each pixel.
    """

    kinds = (Levels,)
    kind: Levels

    def __init__(
        self, latent_dim: int, x: Kind | Shape, decoder: Decoder = MLP, components: int = 1
    ) -> None:
        super().__init__(latent_dim, x, decoder, _outputs=outputs_of_mixture(components))
        self.components = components

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(logistics(torch.stack(self.decode(z), -1), self.kind.levels))

    def initialize(self, images: Tensor) -> None:
        """Set the components' means and deviations from those of each pixel, side by side."""
        loc, log_scale, *_ = self.decoder_bias.split(self.components)
        spread = torch.linspace(-1, 1, self.components + 2)[1:-1].to(loc)
        deviation = images.std(0)
        loc.copy_(images.mean(0) + deviation * spread.view(-1, *[1] * images[0].dim()))
        log_scale.copy_(
            ((self.kind.largest * deviation * math.sqrt(3) / math.pi) + 0.5).log().expand_as(loc)
        )


def outputs_of_mixture(components: int) -> int:
    """Return how many numbers a location, a scale and, of several components, a weight each are.

    Raises:
        InputError: if there is no component.
    """
    if components < 1:
        raise InputError(
            f"a mixture needs at least one component, and not {components}", "components"
        )
    return 2 if components == 1 else 3 * components


def logistics(parameters: Tensor, levels: int) -> dist.Distribution:
    """Return a mixture of discretised logistics for each pixel.

    Args:
        parameters: locations as intensities, log-scales in levels, and logits of the weights, one
            after another: shape [..., 3 * components]; [..., 2] for a single component.
        levels: the number of levels.
    """
    count = max(1, parameters.shape[-1] // 3)
    loc, log_scale, logits = parameters.split([count, count, parameters.shape[-1] - 2 * count], -1)
    scale = 0.05 + log_scale.clamp(-10, 10).exp()
    if count == 1:
        return distributions.DiscretizedLogistic((levels - 1) * loc[..., 0], scale[..., 0], levels)
    components = distributions.DiscretizedLogistic((levels - 1) * loc, scale, levels)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)


class Categorical(Likelihood):
    """Any distribution over the levels of each pixel.

    The decoder gives each pixel some features. A linear map, the same for all pixels, turns them
    into the logits of the levels; each pixel has its own biases.

    Args:
        decoder: the network that maps z to the features.
        features: the number of features of each pixel.
    """

    kinds = (Levels,)
    kind: Levels

    def __init__(
        self, latent_dim: int, x: Kind | Shape, decoder: Decoder = MLP, features: int = 8
    ) -> None:
        if features < 1:
            raise InputError(
                f"a Categorical needs one feature or more, and not {features}", "features"
            )
        super().__init__(latent_dim, x, decoder, _outputs=features)
        self.logits = nn.Linear(features, self.kind.levels, bias=False)
        self.biases = nn.Parameter(torch.zeros(*self.event_shape, self.kind.levels))

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        features = torch.stack(self.decode(z), -1)
        return self.independent(_Levels(logits=self.logits(features) + self.biases))

    def initialize(self, images: Tensor) -> None:
        """Set the biases to the log-frequencies of each pixel's levels.

        These are smoothed with the frequencies of the levels over all pixels.
        """
        levels = (self.kind.largest * images).round().long()
        counts = torch.stack(
            [(levels == level).sum(0) for level in range(self.kind.levels)], -1
        ).float()
        share = counts.flatten(0, -2).sum(0) + 1
        self.biases.data.copy_((counts + 10 * share / share.sum()).log())


class _Levels(dist.Categorical):
    """A categorical distribution over levels that has a mean."""

    @property
    def mean(self) -> Tensor:
        levels = torch.arange(
            self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device
        )
        return self.probs @ levels

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch declares it
        return super().sample(sample_shape).to(self.logits.dtype)
