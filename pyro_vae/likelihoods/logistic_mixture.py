"""A mixture of logistic densities on the real line."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae import distributions
from pyro_vae.kinds import Kind, Real, UnitInterval
from pyro_vae.likelihoods.discretized import outputs_of_mixture
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood, Shape
from pyro_vae.networks import MLP


class LogisticMixture(Likelihood):
    """A mixture of logistic densities for each value, all of whose parameters depend on z.

    It can have several modes, as real values often do. `DiscretizedLogistic` is the same for levels
    (Salimans et al. 2017).

    Args:
        decoder: the network that maps z to the location and scale of each component and, if there
            are several, to its weight. Scales are at least 0.001, in standardised units.
        components: the number of logistic densities in the mixture of each value.

    Raises:
        InputError: if there is no component.
    """

    kinds = (UnitInterval, Real)

    def __init__(
        self, latent_dim: int, x: Kind | Shape, decoder: Decoder = MLP, components: int = 3
    ) -> None:
        super().__init__(latent_dim, x, decoder, _outputs=outputs_of_mixture(components))
        self.components = components

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        count = self.components
        loc, log_scale, *logits = torch.stack(self.decode(z), -1).split(count, -1)
        scale = 1e-3 + log_scale.clamp(-10, 10).exp()
        loc, scale = (
            torch.stack(each, -1)
            for each in zip(*map(self.kind.in_units, loc.unbind(-1), scale.unbind(-1)), strict=True)
        )
        if not logits:
            return self.independent(distributions.Logistic(loc[..., 0], scale[..., 0]))
        logistics = distributions.Logistic(loc, scale)
        weights = dist.Categorical(logits=logits[0])
        return self.independent(dist.MixtureSameFamily(weights, logistics))

    @property
    def _least_variance(self) -> float:
        """The variance of the noise in a dequantised pixel; of other values a small number."""
        levels = self.kind.levels if isinstance(self.kind, UnitInterval) else None
        return 1 / 12 / levels**2 if levels else 1e-4

    def initialize(self, images: Tensor) -> None:
        """Set the components side by side: the mixture has the data's mean and deviation."""
        loc, log_scale, *_ = self.decoder_bias.split(self.components)
        spread = torch.linspace(-1, 1, self.components + 2)[1:-1].to(loc)
        deviation = (images.var(0) + self._least_variance).sqrt()
        loc.copy_(images.mean(0) + deviation * spread.view(-1, *[1] * deviation.dim()))
        rest = 1 - spread.square().mean()  # of the variance, for each component
        scale = deviation * (3 * rest).sqrt() / math.pi
        log_scale.copy_((scale - 1e-3).clamp(min=1e-3).log().expand_as(loc))
