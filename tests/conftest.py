"""What all tests share: a clean Pyro, a fixed seed, and two models whose log p(x) is known."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_vae import VAE, likelihoods, networks, objectives, posteriors, priors, training

torch.set_num_threads(1)  # tests run side by side, and their tensors are small
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
                latent_dim, [data_dim], networks.Linear, scale=self.scale, noise="fixed"
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
    small = partial(networks.MLP, widths=[16], activation="Tanh")
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
    engine = training.EagerEngine(vae.model, vae.guide, objectives.IWAE(10), lr=1e-2)
    for _ in range(500):
        engine.step(vae.model(size=200))
    return vae


def assert_gradients(module: torch.nn.Module, value: Callable[[], Tensor]) -> None:
    """Gradients reach every parameter, and agree with finite differences along a random direction.

    Args:
        module: in double precision.
        value: a scalar, smooth function of its parameters, without noise from call to call.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(value(), list(parameters.values()))
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        assert gradient.abs().sum() > 0, name
        direction = torch.randn_like(parameter)
        step = 1e-6 * direction / direction.norm()
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step
                ends.append(value().item())
                parameter -= sign * step
        expected = (gradient * step).sum().item() * 2
        slack = 1e-5 * gradient.norm().item() * 2e-6 + 1e-13 * (1 + abs(ends[0]))
        assert abs(ends[0] - ends[1] - expected) < 1e-4 * abs(expected) + 50 * slack, name


def grid(dims: int = 2, points: int = 321) -> tuple[Tensor, Tensor]:
    """Points z of R^dims, and log-weights with which sums over them are integrals.

    The points are even in arsinh(z), and reach to 201: heavy tails are in.
    """
    u = torch.linspace(-6, 6, points, dtype=torch.float64)
    log_w = (u.cosh() * (u[1] - u[0])).log()
    z = torch.cartesian_prod(*[u.sinh()] * dims).reshape(-1, dims)
    return z, torch.cartesian_prod(*[log_w] * dims).reshape(-1, dims).sum(1)


def circle(points: int = 4000) -> tuple[Tensor, Tensor]:
    """The same for the unit circle."""
    angle = torch.arange(points, dtype=torch.float64) * (2 * math.pi / points)
    z = torch.stack([angle.cos(), angle.sin()], -1)
    return z, torch.full((points,), math.log(2 * math.pi / points), dtype=torch.float64)


def codes(support: str | None, points: int = 321) -> tuple[Tensor, Tensor]:
    """The same for any support of two dimensions; of four, two variables, for one-hot codes."""
    if support == "sphere":
        return circle()
    if support == "binary":
        z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 2)
    elif support == "categorical":
        z = torch.stack([torch.cat([a, b]) for a in torch.eye(2) for b in torch.eye(2)]).double()
    else:
        return grid(points=points)
    return z, torch.zeros(len(z), dtype=torch.float64)


def assert_normalised_and_sampled(
    p: Any, support: str | None, tolerance: float = 1e-4, points: int = 321
) -> None:
    """The density integrates to one, and draws have the moments that it says, by quadrature."""
    z, log_w = codes(support, points)
    count = 40_000
    with torch.no_grad():
        drawn = p.sample((count,))
        log_p = torch.cat([p.log_prob(part.to(drawn)) for part in z.split(100_000)])
        mass = (log_p.double() + log_w).exp()
        drawn = drawn.double()
    assert abs(mass.sum().item() - 1) < tolerance
    # Bounded functions, so that there is a standard error whatever the tails.
    for function in (torch.tanh, lambda v: torch.cos(1.7 * v), lambda v: v.prod(1).tanh()[:, None]):
        expected = (mass[:, None] * function(z)).sum(0)
        variance = (mass[:, None] * (function(z) - expected) ** 2).sum(0).clamp(min=0)
        error = (variance / count).sqrt()
        off = (function(drawn).mean(0) - expected).abs()
        assert (off < 4.5 * error + tolerance).all(), (off, error)
