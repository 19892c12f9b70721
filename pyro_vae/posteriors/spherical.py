"""Posteriors on the unit sphere."""

from collections.abc import Sequence

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import normalize

from pyro_vae import distributions
from pyro_vae.errors import InputError
from pyro_vae.networks import MLP
from pyro_vae.posteriors.posterior import Encoder, Posterior, positive_scale


class PowerSpherical(Posterior):
    """The power spherical distribution on the unit sphere (De Cao & Aziz 2020).

    It is similar to the von Mises-Fisher distribution, but sampling needs no rejection.

    Args:
        latent_dim: the dimension of the space around the sphere, two or more.
        encoder: the network that maps x to the direction and the concentration.
    """

    support = "sphere"

    def __init__(self, event_shape: Sequence[int], latent_dim: int, encoder: Encoder = MLP) -> None:
        super().__init__(event_shape, latent_dim)
        if latent_dim < 2:
            raise InputError("a sphere needs two latent dimensions or more", "latent_dim")
        self.encoder = encoder(event_shape, (latent_dim + 1,))
        # The initial concentration is about 3 latent_dim: three parts of signal to one of noise.
        self.encoder.bias.data[-1] = 3.0

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        direction, raw = self.encoder(x).split([self.latent_dim, 1], -1)
        return distributions.PowerSpherical(
            normalize(direction, dim=-1), positive_scale(raw.squeeze(-1)) * self.latent_dim
        )

    def code(self, z: Tensor) -> Tensor:
        """Return codes of variance one, as `priors.UniformSphere` does."""
        return z * self.latent_dim**0.5
