"""A model whose log p(x) is known in closed form."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_vae import likelihoods, networks, posteriors, priors
from pyro_vae.vae import VAE


class LinearGaussian:
    """p(z) = N(0, I), p(x|z) = N(Wz + b, s^2 I), so p(x) = N(b, W W' + s^2 I), in double precision.

    The guide has the exact posterior mean, and scales that are wrong by `misfit`. W and b are drawn
    from the global generator.

    Args:
        latent_dim: the dimension of z.
        data_dim: the dimension of x.
        misfit: the ratio of the guide's scales to the best ones; with one latent dimension and a
            misfit of 1 the guide is the exact posterior.

    Examples:
        >>> import torch
        >>> from pyro_vae import bounds
        >>> from pyro_vae.testing import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> exact = LinearGaussian(latent_dim=1, misfit=1.0)
        >>> x = exact.marginal.sample((5,))
        >>> log_w = bounds.log_weights(exact.vae.model, exact.vae.guide, x, 3)
        >>> bool((log_w - exact.marginal.log_prob(x)).abs().max() < 1e-6)
        True
    """

    def __init__(self, latent_dim: int = 2, data_dim: int = 4, misfit: float = 1.3) -> None:
        self.scale = 0.7
        self.vae = VAE(
            priors.StandardNormal(latent_dim),
            likelihoods.Gaussian(
                latent_dim, [data_dim], networks.Linear, scale=self.scale, noise="fixed"
            ),
            posteriors.Normal([data_dim], latent_dim, networks.Linear),
        ).double()
        weight = torch.randn(data_dim, latent_dim, dtype=torch.float64)
        bias = torch.randn(data_dim, dtype=torch.float64)
        precision = torch.eye(latent_dim) + weight.T @ weight / self.scale**2
        gain = torch.linalg.solve(precision, weight.T) / self.scale**2
        q_scale = misfit * precision.diagonal().rsqrt()
        encoder: Any = self.vae.posterior.encoder
        with torch.no_grad():
            self.weight.copy_(weight)
            self.bias.copy_(bias)
            encoder.body[1].weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
            encoder.bias.copy_(torch.stack([-gain @ bias, torch.log(torch.expm1(q_scale - 1e-5))]))
        covariance = weight @ weight.T + self.scale**2 * torch.eye(data_dim)
        self.marginal = MultivariateNormal(bias, covariance)
        self.posterior_covariance = torch.linalg.inv(precision)

    @property
    def weight(self) -> Tensor:
        """W, a parameter of the decoder, shape [data_dim, latent_dim]."""
        decoder: Any = self.vae.likelihood.decoder
        return decoder.body[1].weight

    @property
    def bias(self) -> Tensor:
        """b, a parameter of the decoder, shape [data_dim]."""
        return self.vae.likelihood.decoder.bias

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

    def evidence(self, x: Tensor) -> float:
        """Return the mean of log p(x) under the current weights of the decoder, trained or not."""
        weight, bias = self.weight.detach(), self.bias.detach()
        covariance = weight @ weight.T + self.scale**2 * torch.eye(len(bias))
        return MultivariateNormal(bias, covariance).log_prob(x).mean().item()
