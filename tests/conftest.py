"""What all tests share: a clean Pyro, a fixed seed, and two models whose log p(x) is known."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyro
import pytest
import torch
from torch import Tensor

from pyro_vae import VAE, likelihoods, networks, objectives, posteriors, priors, svi

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    pyro.clear_param_store()
    torch.manual_seed(0)
    yield


class LinearGaussian:
    """p(z) = N(0, I), p(x|z) = N(Wz + b, s^2 I), so p(x) = N(b, W W' + s^2 I), in double precision.

    The guide has the exact posterior mean, and scales that are wrong by `misfit`.
    """

    def __init__(self, latent_dim: int = 2, data_dim: int = 4, misfit: float = 1.3) -> None:
        self.scale = 0.7
        self.vae = VAE(
            priors.StandardNormal(latent_dim),
            likelihoods.Gaussian(
                latent_dim, [data_dim], networks.Linear, scale=self.scale, learn_scale=False
            ),
            posteriors.Normal([data_dim], latent_dim, networks.Linear),
        ).double()
        weight = torch.randn(data_dim, latent_dim, dtype=torch.float64)
        bias = torch.randn(data_dim, dtype=torch.float64)
        precision = torch.eye(latent_dim) + weight.T @ weight / self.scale**2
        gain = torch.linalg.solve(precision, weight.T) / self.scale**2
        q_scale = misfit * precision.diagonal().rsqrt()
        decoder, encoder = self.vae.likelihood.decoder, self.vae.posterior.encoder
        with torch.no_grad():
            decoder.body[1].weight.copy_(weight)
            decoder.bias.copy_(bias)
            encoder.body[1].weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
            encoder.bias.copy_(torch.stack([-gain @ bias, torch.log(torch.expm1(q_scale - 1e-5))]))
        covariance = weight @ weight.T + self.scale**2 * torch.eye(data_dim)
        self.marginal = torch.distributions.MultivariateNormal(bias, covariance)
        self.posterior_covariance = torch.linalg.inv(precision)

    def elbo(self, x: Tensor) -> Tensor:
        """Return log p(x) less the closed-form KL from q(z|x) to the exact posterior."""
        q_variance = self.vae.posterior(x).variance
        inverse = torch.linalg.inv(self.posterior_covariance)
        kl = 0.5 * (
            (inverse.diagonal() * q_variance).sum(-1)
            - q_variance.shape[-1]
            + torch.logdet(self.posterior_covariance)
            - q_variance.log().sum(-1)
        )
        return self.marginal.log_prob(x) - kl


@pytest.fixture
def linear_gaussian() -> LinearGaussian:
    return LinearGaussian()


@pytest.fixture(scope="session")
def nonlinear() -> VAE:
    """A VAE with two latent dimensions and 12 binary pixels, bent decoder, guide fitted by SVI."""
    torch.manual_seed(3)
    small = partial(networks.MLP, widths=[16])
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(2, [3, 4], small),
        posteriors.Normal([3, 4], 2, small),
    )
    with torch.no_grad():
        for layer in (1, 3):
            vae.likelihood.decoder.body[layer].weight.normal_(std=1.0 / math.sqrt(layer))
    vae.likelihood.requires_grad_(False)
    # IWAE makes the guide broad enough for its weights to have a variance; the ELBO does not.
    engine = svi.EagerEngine(vae.model, vae.guide, objectives.IWAE(10), lr=1e-2)
    for _ in range(500):
        engine.step(vae.model(size=200))
    return vae
