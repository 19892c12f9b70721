"""What is called exact, against each other and against known answers."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import LinearGaussian
from test_bounds import robust_regression
from torch import Tensor

from pyro_vae import VAE, InputError, bounds, likelihoods, posteriors, priors


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_quadrature_is_exact(latent_dim: int) -> None:
    known = LinearGaussian(latent_dim)
    x = known.marginal.sample((20,))
    log_p = bounds.quadrature(known.vae.model, x, points=300)
    torch.testing.assert_close(log_p, known.marginal.log_prob(x), atol=1e-6, rtol=0)


def test_quadrature_refuses_what_it_cannot_do(linear_gaussian: LinearGaussian) -> None:
    model, x = linear_gaussian.vae.model, linear_gaussian.marginal.sample((3,))
    with pytest.raises(ValueError, match="edge of the grid"):
        bounds.quadrature(model, x, half_width=0.5)
    with pytest.raises(ValueError, match="too coarse"):
        bounds.quadrature(model, x, points=8)
    with pytest.raises(ValueError, match="for one latent site"):
        bounds.quadrature(robust_regression, torch.zeros(4, 3), site="level", plate="examples")
    with pytest.raises(ValueError, match="one or two dimensions"):
        bounds.quadrature(LinearGaussian(3).vae.model, x)


@pytest.mark.parametrize("latent_dim", [1, 2, 10, 50])
def test_linear_gaussian_models_in_closed_form(latent_dim: int) -> None:
    known = LinearGaussian(latent_dim, latent_dim + 5)
    x = known.marginal.sample((20,))
    log_p = bounds.gaussian(known.vae.model, x)
    torch.testing.assert_close(log_p, known.marginal.log_prob(x), atol=1e-6, rtol=1e-8)


def test_all_sites_of_a_gaussian_model_are_integrated_out() -> None:
    """A random effect in two layers: x_j = a + b + noise, in a nested plate."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            a = pyro.sample("a", dist.Normal(1.0, 2.0))
            b = pyro.sample("b", dist.Normal(a, 0.5))
            with pyro.plate("pixels", x.shape[1], dim=-1):
                pyro.sample("x", dist.Normal(a + b, 0.8), obs=x)

    x = torch.randn(7, 3, dtype=torch.float64)
    # b = a + e, so a + b = 2 a + e has mean 2 and variance 16 + 0.25.
    covariance = 16.25 * torch.ones(3, 3).double() + 0.64 * torch.eye(3)
    exact = torch.distributions.MultivariateNormal(2 * torch.ones(3).double(), covariance).log_prob(
        x
    )
    torch.testing.assert_close(bounds.gaussian(model, x), exact, atol=1e-5, rtol=1e-5)


def test_what_is_not_gaussian_is_refused(nonlinear: VAE) -> None:
    with pytest.raises(ValueError, match="not quadratic"):
        bounds.gaussian(nonlinear.model, nonlinear.model(size=3))
    with pytest.raises(InputError, match="'wild' is discrete"):
        bounds.gaussian(robust_regression, torch.zeros(4, 3), plate="examples")

    def flat(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("tilt", z**2)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="no maximum"):
        bounds.gaussian(flat, torch.zeros(3))


def test_enumeration_by_hand() -> None:
    """Two sites, one chosen by the other: every term of the sum, written out."""
    p = torch.tensor([0.2, 0.5, 0.3])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(p))
            loud = pyro.sample("loud", dist.Bernoulli(0.1 + 0.4 * kind))
            pyro.sample("x", dist.Normal(kind.to(x.dtype), 1.0 + loud), obs=x)

    x = torch.randn(5, dtype=torch.float64)
    terms = [
        math.log(p[k])
        + math.log(0.1 + 0.4 * k if on else 0.9 - 0.4 * k)
        + torch.distributions.Normal(float(k), 1.0 + on).log_prob(x)
        for k in range(3)
        for on in (0, 1)
    ]
    exact = torch.stack(terms).logsumexp(0)
    torch.testing.assert_close(bounds.enumeration(model, x), exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("code", ["Bernoulli", "Categorical"])
def test_enumeration_of_discrete_codes(code: str) -> None:
    """The probabilities of all images sum to one."""
    vae = VAE(
        getattr(priors, code)(8),
        likelihoods.Bernoulli(8, [2, 3]),
        getattr(posteriors, code)([2, 3], 8),
    ).eval()
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6).reshape(-1, 2, 3)
    total = bounds.enumeration(vae.model, images).logsumexp(0)
    assert abs(total.item()) < 1e-5


def test_what_cannot_be_enumerated_is_refused(nonlinear: VAE) -> None:
    with pytest.raises(ValueError, match="'z' cannot be enumerated: Normal is not finite"):
        bounds.enumeration(nonlinear.model, nonlinear.model(size=3))
    vae = VAE(
        priors.Bernoulli(30), likelihoods.Bernoulli(30, [3]), posteriors.Bernoulli([3], 30)
    ).eval()
    with pytest.raises(ValueError, match="1073741824 values"):
        bounds.enumeration(vae.model, torch.zeros(2, 3))
