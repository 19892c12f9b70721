"""Linear Gaussian hierarchies of several layers, whose answers are known in closed form."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_vae import VAE, likelihoods, networks, posteriors, priors
from pyro_vae.posteriors import Posterior

NOISE = 1.0  # the standard deviation of x given z
Affine = tuple[Tensor, Tensor, Tensor]  # A, b and covariance of N(A z + b, covariance)


def raw(scale: Tensor | float) -> Tensor:
    """Return what `positive_scale` maps to a scale."""
    return torch.log(torch.expm1(torch.as_tensor(scale, dtype=torch.float64) - 1e-5))


class LinearLayers:
    """p(z_L) = N(0, I), p(z_i | z_{i+1}) = N(A_i z_{i+1} + b_i, D_i), p(x|z) = N(W z + b, s^2 I).

    Args:
        make: a posterior, called with the shape of x and the dimension of z.
        latent_dim: the dimension of z.
        data_dim: the dimension of x.

    Attributes:
        vae: the VAE, in double precision.
        marginal: p(x).
        layers: A, b and covariance of x given z, of z given z_top, and so on.
    """

    def __init__(
        self,
        make: Callable[[Sequence[int], int], Posterior],
        latent_dim: int = 2,
        data_dim: int = 3,
    ) -> None:
        likelihood = likelihoods.Gaussian(
            latent_dim, [data_dim], networks.Linear, scale=NOISE, noise="fixed"
        )
        prior = priors.Hierarchical(latent_dim, network=networks.Linear)
        self.vae = VAE(prior, likelihood, make([data_dim], latent_dim)).double()
        decoder: Any = likelihood.decoder
        self.layers: list[Affine] = []
        with torch.no_grad():
            decoder.body[1].weight.normal_()
            decoder.bias.normal_()
            noise = NOISE**2 * torch.eye(data_dim).double()
            self.layers.append((decoder.body[1].weight.detach(), decoder.bias.detach(), noise))
            for network in prior.layer_networks:
                dim = network.bias.shape[-1]
                scale = torch.rand(dim).double() + 0.4
                network.body[1].weight.normal_()[dim:] = 0
                network.bias.normal_()[1] = raw(scale) - raw(1 + 1e-5)
                a, b = network.body[1].weight[:dim].detach(), network.bias[0].detach()
                self.layers.append((a, b, scale.square().diag()))
        self.marginal = MultivariateNormal(*self.moments(len(self.layers)))

    def given(self, height: int) -> Affine:
        """Return A, b and covariance of x given the layer of a height: 1 for z, 2 for z_top, .."""
        a, b, covariance = self.layers[0]
        for of_layer, loc, variance in self.layers[1:height]:
            covariance = covariance + a @ variance @ a.T
            a, b = a @ of_layer, b + a @ loc
        return a, b, covariance

    def moments(self, height: int) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of x, for N(0, I) at the layer of a height."""
        a, b, covariance = self.given(height)
        return b, covariance + a @ a.T


class LinearLadder(LinearLayers):
    """The same, with three layers of one dimension, where the ladder can be exact.

    What x says of z_i is then a normal whose mean is linear in x, and whose scale is constant.
    Combined with p(z_i | z_{i+1}) it is p(z_i | x, z_{i+1}). The network of the ladder can compute
    this mean, since silu(h) - silu(-h) = h.

    Args:
        misfit: the ratio of the scales s_i of the upward pass to the right ones.
        shift: what is added to its means.
    """

    def __init__(self, misfit: float = 1.0, shift: float = 0.0, data_dim: int = 3) -> None:
        def ladder(event_shape: Sequence[int], latent_dim: int) -> Posterior:
            return posteriors.Ladder(
                event_shape, latent_dim, networks.Linear, top_dim=[1, 1], features=2 * data_dim
            )

        super().__init__(ladder, 1, data_dim)
        q: Any = self.vae.posterior
        eye = torch.eye(data_dim).double()
        both = torch.cat([eye, -eye])
        self.estimates: list[tuple[Tensor, Tensor, Tensor]] = []  # m = g x + c, and s
        with torch.no_grad():
            q.top.encoder.body[1].weight.copy_(both)
            for step in q.top.steps:
                for layer in (step.body[1], step.body[3]):
                    layer.weight.copy_(both @ both.T)
                step.body[1].bias.zero_()
            for height, head in enumerate([*q.heads, q.top.head], start=1):
                a, b, covariance = self.given(height)
                precision = a.T @ torch.linalg.solve(covariance, a)
                gain = torch.linalg.solve(covariance, a).T / precision
                if head is q.top.head:  # it is not combined with the prior N(0, 1)
                    gain, precision = gain * precision / (precision + 1), precision + 1
                scale = misfit * precision.rsqrt().squeeze()
                offset = (shift - gain @ b).squeeze()
                head.body[1].weight.zero_()[0] = (gain @ both.T).squeeze()
                head.bias.copy_(torch.stack([offset, raw(scale)])[:, None])
                self.estimates.append((gain, offset, scale))

    def elbo(self, x: Tensor) -> Tensor:
        """Return log p(x) - KL(q || p(z, z_top, z_top2 | x)), where both are normal."""
        p_mean, p_covariance = self._chain([], x)
        q_mean, q_covariance = self._chain(self.estimates, x)
        a = torch.zeros(len(self.layers[0][0]), 3).double()
        a[:, :1] = self.layers[0][0]
        b = self.layers[0][1]
        precision = torch.linalg.inv(p_covariance) + a.T @ a / NOISE**2
        covariance = torch.linalg.inv(precision)
        shown = (x - b) @ a / NOISE**2 + torch.linalg.solve(p_covariance, p_mean[..., None])[..., 0]
        exact = MultivariateNormal(shown @ covariance, covariance)
        q = MultivariateNormal(q_mean, q_covariance)
        return self.marginal.log_prob(x) - torch.distributions.kl_divergence(q, exact)

    def _chain(self, estimates: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of (z, z_top, z_top2), under p, or under q with estimates."""
        loc, slope, variance = [], [], []
        for height in (1, 2, 3):
            a, b, prior_variance = self.layers[height] if height < 3 else (None, None, None)
            if height == 3:
                m, k, v = torch.zeros(len(x)).double(), 0.0, 1.0
                if estimates:
                    gain, offset, scale = estimates[2]
                    m, v = (x @ gain.T).squeeze(-1) + offset, scale.item() ** 2
            else:
                m, k, v = b.expand(len(x)), a.item(), prior_variance.item()
                if estimates:
                    gain, offset, scale = estimates[height - 1]
                    share = v / (v + scale.item() ** 2)  # of what x says
                    m = (1 - share) * m + share * ((x @ gain.T).squeeze(-1) + offset)
                    k, v = (1 - share) * k, share * scale.item() ** 2
            loc.append(m), slope.append(k), variance.append(v)
        mean2 = loc[2]
        mean1 = loc[1] + slope[1] * mean2
        mean0 = loc[0] + slope[0] * mean1
        lift = torch.tensor(
            [[1.0, slope[0], slope[0] * slope[1]], [0.0, 1.0, slope[1]], [0.0, 0.0, 1.0]]
        ).double()
        covariance = lift @ torch.tensor(variance).double().diag() @ lift.T
        return torch.stack([mean0, mean1, mean2], -1), covariance
