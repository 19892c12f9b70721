"""Relaxed codes: their densities, very confident codes, and the discrete codes they relax."""

import math

import pytest
import torch
from torch import Tensor

from pyro_vae import posteriors, priors
from pyro_vae.distributions import relaxed


def test_a_relaxed_bernoulli_is_a_density() -> None:
    """The density integrates to one, by quadrature over the logit."""
    y = torch.linspace(-300, 300, 60_001, dtype=torch.float64)[:, None]
    for logit in (-40.0, -3.0, 0.0, 1.0, 40.0):
        p = relaxed.bernoulli(torch.tensor([logit]).double(), 0.5)
        mass = p.log_prob(y).exp() * (600 / 60_000)
        assert mass.sum().item() == pytest.approx(1, abs=1e-6)
        # The code exceeds one half with the probability that the variable is 1 (Maddison et al.
        # 2017).
        on = relaxed.bernoulli(torch.tensor([logit]).double(), None).log_prob(torch.ones(1)).exp()
        at_zero = mass[len(y) // 2] / 2
        assert (mass[y[:, 0] > 0].sum() + at_zero).item() == pytest.approx(on.item(), abs=1e-6)


def test_a_relaxed_one_hot_is_the_density_of_torch() -> None:
    """The densities on the simplex differ by the log-Jacobian of exp."""
    logits = torch.randn(2, 3).double()
    y = relaxed.one_hot(logits, 0.7).sample((50,))
    z = y.reshape(50, 2, 3).exp()
    torch.testing.assert_close(z.sum(-1), torch.ones(50, 2).double())
    theirs = torch.distributions.RelaxedOneHotCategorical(torch.tensor(0.7).double(), logits=logits)
    expected = theirs.log_prob(z).sum(-1) + y.sum(-1)
    torch.testing.assert_close(relaxed.one_hot(logits, 0.7).log_prob(y), expected)


@pytest.mark.parametrize("temperatures", [(2 / 3, 0.5), (0.1, 0.1)])
@pytest.mark.parametrize("size", [1.0, 12.0, 20.0, 60.0, 100.0])
def test_kl_of_confident_codes(size: float, temperatures: tuple[float, float]) -> None:
    """KL(relaxed || relaxed prior) and its slope agree in single and double precision.

    For codes in (0, 1) instead of logits, single precision made the KL fall without limit beyond
    logits of 12.
    """

    def kl(logit: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        dtype, logit = logit.dtype, logit.expand(1)
        q = relaxed.bernoulli(logit, temperatures[0])
        p = relaxed.bernoulli(torch.zeros(1, dtype=dtype), temperatures[1])
        uniform = torch.rand(4000, 1, dtype=torch.float32).clamp(1e-6, 1 - 1e-6).to(dtype)
        y = (logit + uniform.log() - (-uniform).log1p()) / temperatures[0]
        return (q.log_prob(y) - p.log_prob(y)).mean()

    for sign in (1, -1):
        results = []
        for dtype in (torch.float32, torch.float64):
            logit = torch.tensor(sign * size, dtype=dtype, requires_grad=True)
            value = kl(logit, 0)
            (slope,) = torch.autograd.grad(value, logit)
            results.append((value.item(), slope.item()))
        (single, single_slope), (double, double_slope) = results
        assert single == pytest.approx(double, rel=1e-4, abs=1e-3)
        assert single_slope == pytest.approx(double_slope, rel=1e-3, abs=1e-4)
        if size >= 12:  # log q is constant in the logit, and -log p grows with |y| T_p
            assert single_slope * sign == pytest.approx(temperatures[1] / temperatures[0], rel=0.01)


@pytest.mark.parametrize("size", [1.0, 20.0, 100.0])
def test_draws_of_confident_codes(size: float) -> None:
    """In single precision: means, finite densities, and gradients by reparameterisation."""
    logits = torch.tensor([size, -size], requires_grad=True)
    y = relaxed.bernoulli(logits, 0.5).rsample((20_000,))
    error = math.pi / math.sqrt(3) / 0.5 / 20_000**0.5
    assert ((y.mean(0) - logits / 0.5).abs() < 4.5 * error).all()
    assert relaxed.bernoulli(logits, 0.5).log_prob(y).isfinite().all()
    (gradient,) = torch.autograd.grad(y.mean(0).sum(), logits)
    torch.testing.assert_close(gradient, torch.full((2,), 2.0))
    categories = torch.tensor([[size, 0.0, -size]], requires_grad=True)
    q = relaxed.one_hot(categories, 0.5)
    y = q.rsample((1000,))
    log_q = q.log_prob(y)
    assert log_q.isfinite().all() and y.exp().isfinite().all()
    (gradient,) = torch.autograd.grad(log_q.mean(), categories)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", ["Bernoulli", "Categorical"])
def test_codes_in_training_and_in_evaluation(kind: str) -> None:
    prior, posterior = getattr(priors, kind)(4), getattr(posteriors, kind)([3], 4)
    for part, p in ((prior, prior()), (posterior, posterior(torch.rand(3)))):
        code = part.code(p.sample((100,)))
        assert ((code > 0) & (code < 1)).all()
        if kind == "Categorical":
            torch.testing.assert_close(code.sum(-1), torch.ones(100))
    for part in (prior.eval(), posterior.eval()):
        p = part() if part is prior else part(torch.rand(3))
        z = p.sample((100,))
        assert torch.equal(part.code(z), z) and set(z.unique().tolist()) == {0.0, 1.0}
    vamp = priors.Vamp(4, components=2)
    vamp.build(posterior.train())
    y = torch.randn(5, 4)
    assert torch.equal(vamp.code(y), posterior.code(y)) and not torch.equal(vamp.code(y), y)
