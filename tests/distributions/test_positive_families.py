"""Gamma, log-normal and mixtures of logistics: quadrature, scipy, gradients and draws."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from moments import assert_moments
from scipy import integrate, stats
from torch import Tensor

from pyro_vae.distributions import Gamma, Logistic

SHAPES = [1e-3, 0.1, 1.0, 3.0, 100.0, 1e5]
LOG_MEANS = torch.tensor([-60.0, -3, 0, 5, 60]).double()


def integral_over_log_x(p: dist.TorchDistribution, low: float, high: float) -> float:
    """The integral of p(x) dx over exp(low) < x < exp(high), by Simpson's rule in log x."""
    log_x = torch.linspace(low, high, 400_001, dtype=torch.float64)
    density = (p.log_prob(log_x.exp()).double() + log_x).exp()
    return integrate.simpson(density.numpy(), x=log_x.numpy()).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_gamma_integrates_to_one(shape: float, dtype: torch.dtype) -> None:
    log_a = torch.tensor(math.log(shape), dtype=dtype)
    a = log_a.double().exp().item()
    for log_mean in (-20.0, 0.0, 20.0):
        p = Gamma(torch.tensor(log_mean, dtype=dtype), log_a)
        # For small a most of the mass is at x that are zero even in double precision: the rest.
        reach = 12 / math.sqrt(a) if a > 100 else 12.0
        low = max(log_mean - reach - 30 / a, -700.0)
        below = stats.gamma(a, scale=math.exp(log_mean) / a).cdf(math.exp(low))
        total = integral_over_log_x(p, low, log_mean + reach) + below
        # In single precision the density has a relative error of 6e-8 times its logarithm.
        assert total == pytest.approx(1, abs=2e-5 if dtype == torch.float32 else 1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_gamma_agrees_with_scipy(shape: float) -> None:
    log_a = torch.tensor(math.log(shape), dtype=torch.float64)
    for log_mean in LOG_MEANS:
        reference = stats.gamma(shape, scale=log_mean.exp().item() / shape)
        ratio = torch.tensor([1e-30, 0.5, 0.99, 1, 1.01, 3, 40], dtype=torch.float64)
        x = log_mean.exp() * ratio
        found = Gamma(log_mean, log_a).log_prob(x)
        torch.testing.assert_close(
            found, torch.as_tensor(reference.logpdf(x.numpy())), rtol=1e-8, atol=1e-7
        )
        single = Gamma(log_mean.float(), log_a.float()).log_prob(x).double()
        at = (log_mean.float().double(), log_a.float().double())
        torch.testing.assert_close(single, Gamma(*at).log_prob(x), rtol=1e-6, atol=1e-6)


def test_that_torchs_gamma_is_not_accurate_enough() -> None:
    """Else it should be used."""
    shape = torch.tensor(1e5)
    found = dist.Gamma(shape, shape).log_prob(torch.tensor(1.0))
    exact = Gamma(torch.tensor(0.0), shape.log()).log_prob(torch.tensor(1.0))
    assert abs(found - exact) > 0.01


def test_gamma_gradients() -> None:
    log_mean = torch.tensor([-9.0, 0, 3]).double().requires_grad_()
    log_a = torch.tensor([-6.9, 0, 2, 9]).double()[:, None].requires_grad_()
    x = torch.tensor([1e-9, 0.3, 9.0]).double()[:, None, None].requires_grad_()

    def log_p(x: Tensor, log_mean: Tensor, log_a: Tensor) -> Tensor:
        return Gamma(log_mean, log_a).log_prob(x)

    inputs = (x[1:].detach().requires_grad_(), log_mean, log_a)
    assert torch.autograd.gradcheck(log_p, inputs, rtol=1e-4, atol=1e-3)
    single = [tensor.detach().float().requires_grad_() for tensor in (x, log_mean, log_a)]
    for gradient in torch.autograd.grad(log_p(*single).sum(), single):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gamma_draws(dtype: torch.dtype) -> None:
    log_a = torch.tensor([-1.0, 0, 2, 11.5], dtype=dtype)[:, None]
    p = Gamma(torch.tensor([-20.0, 0, 9], dtype=dtype), log_a)
    assert_moments(p, 40_000)
    x = p.sample((20_000,))
    assert x.dtype == dtype
    # The logarithm: E[log x] = psi(a) - log a + log m, Var[log x] = psi'(a).
    a = log_a.double().exp()
    deviation = x.double().log().mean(0) - (a.digamma() - a.log() + p.log_mean)
    assert (deviation.abs() <= 4.5 * (torch.polygamma(1, a) / 20_000).sqrt()).all()
    least = Gamma(torch.tensor(0.0, dtype=dtype), torch.tensor(-6.9, dtype=dtype))
    x = least.sample((10_000,))
    assert (x > 0).all() and least.log_prob(x).isfinite().all()


def test_gamma_draws_have_gradients() -> None:
    """E[x] = m and E[x^2] = m^2 (1 + 1 / a), differentiated through the draws."""
    log_mean = torch.full((100_000,), 0.5).double().requires_grad_()
    log_a = torch.full((100_000,), 1.0).double().requires_grad_()
    x = Gamma(log_mean, log_a).rsample()
    by_mean, by_a = torch.autograd.grad(x.square().sum(), (log_mean, log_a))
    m, a = math.exp(0.5), math.exp(1.0)
    for gradient, expected in ((by_mean, 2 * m**2 * (1 + 1 / a)), (by_a, -(m**2) / a)):
        error = gradient.std() / 100_000**0.5
        assert abs(gradient.mean() - expected) < 4.5 * error


def test_gamma_shapes_and_support() -> None:
    p = Gamma(torch.zeros(7, 4, 2), torch.zeros(2))
    x = torch.rand(4, 2) + 0.1
    assert p.to_event(1).log_prob(x).shape == (7, 4) and p.mean.shape == p.variance.shape
    assert p.expand((3, 7, 4, 2)).sample((5,)).shape == (5, 3, 7, 4, 2)
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="support"):
            p.log_prob(torch.tensor(wrong))
    with pytest.raises(ValueError, match="log_concentration"):
        Gamma(torch.tensor(0.0), torch.tensor(math.nan))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 10.0])
def test_log_normal_of_torch_is_accurate(scale: float, dtype: torch.dtype) -> None:
    for loc in (-20.0, 0.0, 20.0):
        p = dist.LogNormal(torch.tensor(loc, dtype=dtype), torch.tensor(scale, dtype=dtype))
        low, high = loc - 12 * scale, loc + 12 * scale
        assert integral_over_log_x(p, low, high) == pytest.approx(1, abs=1e-5)
        x = torch.linspace(low, high, 101, dtype=torch.float64).exp()
        expected = torch.as_tensor(stats.lognorm(p.scale.item(), scale=math.exp(loc)).logpdf(x))
        torch.testing.assert_close(p.log_prob(x).double(), expected, rtol=1e-5, atol=1e-5)


def mixture(dtype: torch.dtype) -> dist.MixtureSameFamily:
    weights = torch.tensor([0.0, 1, -2], dtype=dtype)
    loc, scale = torch.tensor([-3.0, 0, 2], dtype=dtype), torch.tensor([0.01, 1, 3], dtype=dtype)
    return dist.MixtureSameFamily(dist.Categorical(logits=weights), Logistic(loc, scale))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixture_of_logistics(dtype: torch.dtype) -> None:
    p = mixture(dtype)
    x = torch.linspace(-150, 150, 3_000_001, dtype=torch.float64)
    density = p.log_prob(x).double().exp()
    assert integrate.simpson(density.numpy(), x=x.numpy()) == pytest.approx(1, abs=1e-6)
    share = p.mixture_distribution.probs.double()
    at = torch.tensor([-3e4, -40.0, -3, 0, 60], dtype=torch.float64)
    parts = zip(p.component_distribution.loc, p.component_distribution.scale, strict=True)
    each = [stats.logistic(loc.item(), scale.item()).logpdf(at.numpy()) for loc, scale in parts]
    expected = torch.logsumexp(torch.as_tensor(np.array(each)).T + share.log(), -1)
    torch.testing.assert_close(p.log_prob(at).double(), expected, rtol=1e-5, atol=1e-5)
    assert_moments(p, 100_000)


def test_logistic_draws_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the uniform number is zero, once in 2^24 draws, Pyro's are infinite."""
    p = Logistic(torch.tensor(1.0), torch.tensor(2.0))
    with monkeypatch.context() as patched:
        patched.setattr(torch, "rand", lambda *args, **kwargs: torch.zeros(3))
        draws = p.sample((3,))
        assert draws.isfinite().all() and (draws < 1 - 2 * 16).all()
    assert_moments(p.expand((3, 2)))
    assert type(p.expand((3,))) is Logistic
    leaf = torch.tensor(0.3, requires_grad=True)
    (gradient,) = torch.autograd.grad(Logistic(leaf, torch.tensor(1.0)).rsample((5,)).sum(), leaf)
    assert gradient == 5
