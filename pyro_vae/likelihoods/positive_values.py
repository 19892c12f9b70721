"""Densities of positive values.

The decoder works in the units that the encoder sees, those of standardised log x. The densities are
those of x in its own units.
"""

from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.kinds import Kind, Positive
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood, Shape
from pyro_vae.networks import MLP

Spread = Literal["shared", "per_column", "per_example"]


class _PositiveValues(Likelihood):
    """Two parameters of each value: one from the decoder, the other from it or learned."""

    kinds = (Positive,)
    kind: Positive

    def __init__(
        self, latent_dim: int, x: Kind | Shape, decoder: Decoder = MLP, noise: Spread = "per_column"
    ) -> None:
        super().__init__(latent_dim, x, decoder, _outputs=2 if noise == "per_example" else 1)
        self.noise: Spread = noise
        if noise != "per_example":
            shape = self.event_shape if noise == "per_column" else ()
            self.second = nn.Parameter(torch.zeros(shape))

    def parameters_of(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoder's first output, and the second parameter, which may be learned."""
        first, *second = self.decode(z)
        return first, second[0] if second else self.second

    def start(self, first: Tensor, second: Tensor) -> None:
        """Set the first values of both parameters, given in shape `event_shape`."""
        self.decoder_bias[0] = first
        if self.noise == "per_example":
            self.decoder_bias[1] = second
        else:
            self.second.data.copy_(second if self.noise == "per_column" else second.mean())


class LogNormal(_PositiveValues):
    """The logarithm of each value is N(m(z), s^2).

    Args:
        decoder: the network that maps z to m and, with `noise="per_example"`, to log s.
        noise: the way in which s is set. `shared`: one s is learned, in the units that the encoder
            sees. `per_column`: one for each column, or pixel. `per_example`: the decoder computes
            s(z). It is at least 0.001 of these units.
    """

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        loc, log_scale = self.parameters_of(z)
        return self.independent(dist.LogNormal(*self.kind.in_units(loc, 1e-3 + log_scale.exp())))

    def initialize(self, images: Tensor) -> None:
        """Set m and s to the mean and the deviation of log x."""
        self.start(images.mean(0), images.std(0).clamp(min=1e-3).log())


class Gamma(_PositiveValues):
    """Each value is a Gamma variable of mean m(z) and shape a: its variance is m^2 / a.

    Args:
        decoder: the network that maps z to log m and, with `noise="per_example"`, to log a.
        noise: the way in which a is set. `shared`: one a is learned. `per_column`: one for each
            column, or pixel. `per_example`: the decoder computes a(z). It is at most e^12, for
            standard deviations of 0.0025 m.
    """

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        log_mean, log_a = self.parameters_of(z)
        log_mean, _ = self.kind.in_units(log_mean, torch.ones_like(log_mean))
        return self.independent(distributions.Gamma(log_mean, log_a.clamp(-7, 12)))

    def initialize(self, images: Tensor) -> None:
        """Set m to the mean, and a to nearly its maximum-likelihood estimate (Minka 2002)."""
        unit = self.kind.scale.to(images)
        log_x = unit * images
        log_mean = log_x.logsumexp(0) - torch.tensor(len(log_x)).log()
        s = (log_mean - log_x.mean(0)).clamp(min=1e-6)
        a = (3 - s + ((s - 3).square() + 24 * s).sqrt()) / (12 * s)
        self.start(log_mean / unit, a.log())
