"""The functions for exact log p(x), against each other and against known answers."""

import copy
import math
from itertools import pairwise

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
            a = pyro.sample("a", dist.Normal(x.new_tensor(1.0), 2.0))
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
        bounds.gaussian(copy.deepcopy(nonlinear).double().model, nonlinear.model(size=3).double())
    with pytest.raises(ValueError, match="single precision"):
        bounds.gaussian(LinearGaussian(2).vae.float().model, torch.zeros(3, 4))
    with pytest.raises(InputError, match="'wild' is discrete"):
        bounds.gaussian(robust_regression, torch.zeros(4, 3), plate="examples")

    def flat(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.factor("tilt", z**2)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="no maximum"):
        bounds.gaussian(flat, torch.zeros(3).double())


def test_enumeration_by_hand() -> None:
    """Two sites, one of which depends on the other: every term of the sum is written out."""
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


def test_values_that_depend_on_others_are_complete_or_refused() -> None:
    """The values of z are read off one run, whose count may be smaller than in other runs."""

    def growing(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            count = pyro.sample("count", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Binomial(count + 1.0, 0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.0, 2.0])
    terms = [
        math.log(math.comb(n, z) * 0.5**n / 3) + torch.distributions.Normal(z, 1.0).log_prob(x)
        for n in (1, 2, 3)
        for z in range(n + 1)
    ]
    exact = torch.stack(terms).logsumexp(0).double()
    refused = 0
    for seed in range(10):
        torch.manual_seed(seed)
        try:
            with pyro.validation_enabled(False):
                log_p = bounds.enumeration(growing, x)
        except ValueError as error:
            assert "depend on another" in str(error)
            refused += 1
        else:
            torch.testing.assert_close(log_p, exact, atol=1e-5, rtol=0)
    assert 0 < refused < 10


def test_bounds_of_discrete_codes() -> None:
    """Every lower bound is below the enumerated log p(x), in expectation, and IWAE near it."""
    vae = VAE(
        priors.Bernoulli(8), likelihoods.Bernoulli(8, [3, 4]), posteriors.Bernoulli([3, 4], 8)
    ).eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(3)
    x = vae.model(size=100)
    exact = bounds.enumeration(vae.model, x)
    result = bounds.evaluate(vae.model, vae.guide, x, 2000)
    lower = [result.elbo, *(result.iwae[k] for k in (5, 50, 500))]
    for low, high in pairwise(lower):
        assert high.mean - low.mean > 3 * math.hypot(low.mc_se, high.mc_se)
    top = result.iwae[2000]
    off = top.values - exact  # the Monte Carlo error of the mean is unknown
    assert math.isnan(top.mc_se)
    assert abs(off.mean()) < 4.5 * off.std() / 10 + result.looseness
    assert bounds.certified(top.values, 1e-6) < exact.mean().item()


@pytest.mark.parametrize("latent_dim", [10, 50])
def test_bounds_in_more_dimensions(latent_dim: int) -> None:
    """In 10 and 50 dimensions each rung is below the next, and all are below log p(x)."""
    known = LinearGaussian(latent_dim, 2 * latent_dim)
    x = known.marginal.sample((100,))
    each = bounds.gaussian(known.vae.model, x)
    exact = each.mean().item()
    result = bounds.evaluate(known.vae.model, known.vae.guide, x, 5000)
    lower = [result.elbo, *(result.iwae[k] for k in (5, 50, 500, 5000))]
    for low, high in pairwise(lower):
        assert low.mean < high.mean
    # The Monte Carlo error is unknown: use the spread over examples.
    assert math.isnan(lower[-1].mc_se)
    error = (lower[-1].values - each).std().item() / len(each) ** 0.5
    assert lower[-1].mean < exact + 4.5 * error
    assert bounds.certified(lower[-1].values, 1e-6) < exact
    # The jackknife is closer than IWAE at equal K.
    assert abs(result.jackknife.mean - exact) < abs(lower[-1].mean - exact) + error
