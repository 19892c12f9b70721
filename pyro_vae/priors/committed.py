"""A prior that a factorial posterior cannot be equal to."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.priors.prior import Prior

STIFFEST = 1 - 1e-6  # a; z_i then is z_(i-1) to 0.0014, which single precision bears


class AR1(Prior):
    """A stationary autoregression, z_1 ~ N(0, 1), z_i = a z_(i-1) + sqrt(1 - a^2) N(0, 1).

    delta-VAE's committed rate (Razavi et al. 2019): whatever a posterior with independent
    dimensions does, its KL to this prior is at least

        1/2 ((d - 2) log(1 + a^2) - log(1 - a^2))

    (their equation 4), and a is chosen to make that `rate`: the KL cannot vanish. That its nats are
    spent on x is not made sure of; without, they are wasted. Any objective bounds log p(x) as
    always. A posterior with correlations, `FullNormal` say, commits to nothing.

    Args:
        latent_dim: d, two or more.
        rate: the least KL, in nats.
    """

    loc: Tensor
    scale_tril: Tensor

    def __init__(self, latent_dim: int, rate: float = 2.0) -> None:
        super().__init__()
        if latent_dim < 2:
            raise InputError("an AR1 prior needs two latent dimensions or more")
        most = _least_kl(STIFFEST, latent_dim)
        if not 1e-4 <= rate <= most:
            raise InputError(
                f"a rate of {rate:g} nats cannot be committed by {latent_dim} dimensions: take one "
                f"between 1e-4 and {most:.4g}"
            )
        from scipy.optimize import brentq

        a = brentq(lambda a: _least_kl(a, latent_dim) - rate, 0, STIFFEST)
        steps = torch.arange(latent_dim, dtype=torch.float64)
        covariance = a ** (steps - steps[:, None]).abs()
        self.register_buffer("loc", torch.zeros(latent_dim))
        self.register_buffer("scale_tril", torch.linalg.cholesky(covariance).float())

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)


def _least_kl(a: float, dim: int) -> float:
    """The least KL of a normal with independent dimensions to the autoregression, in nats."""
    return 0.5 * ((dim - 2) * math.log1p(a * a) - math.log1p(-a * a))
