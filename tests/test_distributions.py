"""The continuous Bernoulli, against quadrature and against torch where torch is right."""

import pytest
import torch
from torch.distributions import ContinuousBernoulli as Reference

from pyro_vae.distributions import ContinuousBernoulli

LOGITS = torch.tensor(
    [-900, -100.0, -40, -10, -1, -0.41, -0.39, -1e-4, 0, 1e-7, 0.2, 0.4, 3, 20, 100]
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_density_integrates_to_one_and_has_its_mean(dtype: torch.dtype) -> None:
    x = ((torch.arange(2_000_000, dtype=torch.float64) + 0.5) / 2_000_000).to(dtype)
    tolerance = 2e-5 if dtype == torch.float32 else 1e-6
    for logit in LOGITS.to(dtype):
        p = ContinuousBernoulli(logit)
        mass = p.log_prob(x).double().exp()
        # In single precision logit * x is only known to 1e-7 of its size.
        slack = tolerance + (2e-7 * abs(logit.item()) if dtype == torch.float32 else 0)
        assert abs(mass.mean().item() - 1) < slack, logit
        assert abs((mass * x.double()).mean().item() - p.mean.item()) < slack, logit


def test_agrees_with_torch_for_moderate_logits() -> None:
    logits = torch.linspace(-12, 12, 101, dtype=torch.float64)
    x = torch.rand(50, 101, dtype=torch.float64)
    ours, theirs = ContinuousBernoulli(logits), Reference(logits=logits)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-6, rtol=0)


def test_samples_follow_the_density() -> None:
    p = ContinuousBernoulli(LOGITS)
    x = p.sample((40_000,)).double()
    assert x.min() >= 0 and x.max() <= 1
    error = x.std(0) / len(x) ** 0.5
    assert ((x.mean(0) - p.mean).abs() < 4.5 * error + 1e-7).all()
    # F(x) is uniform: F = expm1(logit x) / expm1(logit).
    slope = LOGITS.double()
    inside = slope.abs() > 1e-3
    uniform = torch.expm1(slope * x)[:, inside] / torch.expm1(slope[inside])
    assert ((uniform.mean(0) - 0.5).abs() < 4.5 * (1 / 12 / len(x)) ** 0.5).all()
    assert ((uniform.var(0) - 1 / 12).abs() < 0.002).all()


def test_gradients() -> None:
    logits = LOGITS.double().requires_grad_()
    x = torch.rand(15, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: ContinuousBernoulli(v).log_prob(x), logits)
    # d log p / d logits = x - mean, of which every other route would be a cancellation.
    single = LOGITS.clone().requires_grad_()
    ContinuousBernoulli(single).log_prob(x.float()).sum().backward()
    expected = x - ContinuousBernoulli(LOGITS.double()).mean
    torch.testing.assert_close(single.grad.double(), expected, atol=2e-6, rtol=0)
    moderate = torch.tensor([-30.0, -2, 0.5, 8], dtype=torch.float64, requires_grad=True)

    def sample(v: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return ContinuousBernoulli(v).rsample((3,))

    assert torch.autograd.gradcheck(sample, moderate)


def test_shapes_and_support() -> None:
    p = ContinuousBernoulli(torch.zeros(3, 1)).expand((2, 3, 1))
    assert p.batch_shape == (2, 3, 1) and p.sample((5,)).shape == (5, 2, 3, 1)
    assert p.to_event(1).log_prob(torch.rand(2, 3, 1)).shape == (2, 3)
    with pytest.raises(ValueError, match="support"):
        p.log_prob(torch.tensor(1.1))
    with pytest.raises(ValueError, match="logits"):
        ContinuousBernoulli(torch.tensor(float("nan")))
