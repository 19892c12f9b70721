"""A prior from which every factorial posterior has a minimum KL."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.priors.prior import Prior

LARGEST_A = 1 - 1e-6  # then z_i - z_(i-1) has a deviation of 0.0014: single precision can do that


class AR1(Prior):
    """A stationary autoregression, z_1 ~ N(0, 1), z_i = a z_(i-1) + sqrt(1 - a^2) N(0, 1).

    This is the committed rate of delta-VAE (Razavi et al. 2019): for every posterior with
    independent dimensions, the KL to this prior is at least

        1/2 ((d - 2) log(1 + a^2) - log(1 - a^2))

    (their equation 4). a is chosen so that this is `rate`, so the KL cannot vanish. Nothing ensures
    that the posterior uses these nats for x; if it does not, they are wasted. Any objective bounds
    log p(x) as with other priors. A posterior with correlations, such as `FullNormal`, has no
    minimum KL.

    Args:
        latent_dim: d, two or more.
        rate: the minimum KL, in nats.
    """

    loc: Tensor
    scale_tril: Tensor

    def __init__(self, latent_dim: int, rate: float = 2.0) -> None:
        from scipy.optimize import brentq

        super().__init__()
        if latent_dim < 2:
            raise InputError("an AR1 prior needs two latent dimensions or more", "latent_dim")
        largest_rate = _minimum_kl(LARGEST_A, latent_dim)
        if not 1e-4 <= rate <= largest_rate:
            raise InputError(
                f"an AR1 prior of {latent_dim} dimensions cannot commit to a rate of {rate:g} "
                f"nats: choose one between 1e-4 and {largest_rate:.4g}",
                "rate",
            )
        a = brentq(lambda a: _minimum_kl(a, latent_dim) - rate, 0, LARGEST_A)
        steps = torch.arange(latent_dim, dtype=torch.float64)
        covariance = a ** (steps - steps[:, None]).abs()
        self.register_buffer("loc", torch.zeros(latent_dim))
        self.register_buffer("scale_tril", torch.linalg.cholesky(covariance).float())

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)


def _minimum_kl(a: float, dim: int) -> float:
    """The minimum KL of a normal with independent dimensions to the autoregression, in nats."""
    return 0.5 * ((dim - 2) * math.log1p(a * a) - math.log1p(-a * a))
