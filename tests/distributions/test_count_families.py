"""Distributions of counts against exact arithmetic, scipy in double precision, and their sums."""

import itertools
import math
from decimal import Decimal, localcontext

import pyro.distributions as dist
import pytest
import torch
from moments import assert_moments
from scipy import special, stats
from torch import Tensor

from pyro_vae.distributions import Multinomial, NegativeBinomial, Poisson, ZeroInflated

MEANS = [1e-30, 1e-9, 1e-3, 0.3, 1.0, 7.0, 300.0, 1e5, 1e7, 1e9]
THETAS = [1e-4, 1e-2, 0.5, 1.0, 9.0, 1e3, 1e5, 1e8]
COUNTS = torch.tensor([0.0, 1, 2, 5, 40, 1000, 123_456, 9_999_999]).double()


def log(value: float) -> Tensor:
    return torch.tensor(math.log(value), dtype=torch.float64)


def close(found: Tensor, expected: object, rtol: float = 1e-9, atol: float = 1e-6) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("mean", MEANS)
def test_poisson_agrees_with_scipy(mean: float) -> None:
    close(Poisson(log(mean)).log_prob(COUNTS), stats.poisson(mean).logpmf(COUNTS.numpy()))


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("mean", MEANS)
def test_negative_binomial_agrees_with_scipy(mean: float, theta: float) -> None:
    """`nbinom.logpmf` takes log of t / (t + m) and of 1 less it: here the terms are written out."""
    k, p = COUNTS.numpy(), NegativeBinomial(log(mean), log(theta))
    coefficient = special.gammaln(theta + k) - special.gammaln(theta) - special.gammaln(k + 1)
    expected = coefficient - theta * math.log1p(mean / theta) - k * math.log1p(theta / mean)
    close(p.log_prob(COUNTS), expected)
    if 1e-3 <= mean <= 1e5 and theta <= 1e5:
        close(p.log_prob(COUNTS), stats.nbinom(theta, theta / (theta + mean)).logpmf(k))


@pytest.mark.parametrize("theta", [1, 3, 10_000, 10**8])
@pytest.mark.parametrize("mean", [10.0**-30, 0.1, 20.0, 1e6])
def test_negative_binomial_in_exact_arithmetic(mean: float, theta: int) -> None:
    """For whole t, p(k) = C(k + t - 1, k) (t / (t + m))^t (m / (t + m))^k, in 60 digits."""
    log_mean, log_theta = log(mean), log(theta)
    with localcontext() as context:
        context.prec = 60
        m, t = Decimal(log_mean.item()).exp(), Decimal(log_theta.item()).exp()
        for k in (0, 1, 2, 17, 999):
            terms = Decimal(math.comb(k + theta - 1, k)).ln() - theta * (1 + m / t).ln()
            expected = float(terms + k * (m / (t + m)).ln())
            found = NegativeBinomial(log_mean, log_theta).log_prob(torch.tensor(float(k)))
            assert found.item() == pytest.approx(expected, rel=1e-9, abs=5e-7)


def test_negative_binomial_has_the_poisson_limit() -> None:
    """The first correction is ((k - m)^2 - k) / (2 t)."""
    k, log_mean = torch.arange(60.0).double(), torch.tensor([-40.0, 0, 3]).double()[:, None]
    limit = Poisson(log_mean).log_prob(k)
    theta = 1e8
    correction = ((k - log_mean.exp()).square() - k) / (2 * theta)
    close(NegativeBinomial(log_mean, log(theta)).log_prob(k), limit + correction, atol=5e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [mean for mean in MEANS if mean <= 1e7])
def test_poisson_sums_to_one(mean: float, dtype: torch.dtype) -> None:
    log_rate = log(mean).to(dtype)
    rate = log_rate.double().exp().item()
    reach = 40 * math.sqrt(rate + 10)
    k = torch.arange(max(0, int(rate - reach)), int(rate + reach), dtype=torch.float64)
    mass = Poisson(log_rate).log_prob(k).double().exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-6)
    # Both tails, relative to their probabilities. At 10^7 scipy's upper tail is 2 % off.
    low, high = rate - 6 * math.sqrt(rate), rate + 6 * math.sqrt(rate) + 3
    if low > 0:
        below = mass[k <= math.floor(low)].sum().item()
        assert below == pytest.approx(stats.poisson(rate).cdf(low), rel=1e-5)
    if mean <= 1e5:
        above = mass[k > math.floor(high)].sum().item()
        assert above == pytest.approx(stats.poisson(rate).sf(high), rel=1e-5)


def probability_below(count: float, mean: float, theta: float) -> float:
    """P(k <= count) of the negative binomial, by the incomplete beta function."""
    return special.betainc(theta, count + 1, theta / (theta + mean))


def probability_above(count: float, mean: float, theta: float) -> float:
    return special.betainc(count + 1, theta, mean / (theta + mean))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("theta", [1e-4, 1e-2, 0.5, 1.0, 9.0, 1e3, 1e5])
@pytest.mark.parametrize("mean", [1e-30, 1e-3, 0.3, 7.0, 300.0, 1e5])
def test_negative_binomial_sums_to_one(mean: float, theta: float, dtype: torch.dtype) -> None:
    log_mean, log_theta = log(mean).to(dtype), log(theta).to(dtype)
    mean, theta = log_mean.double().exp().item(), log_theta.double().exp().item()
    deviation = math.sqrt(mean + mean**2 / theta)
    k = torch.arange(min(2_000_000, 1000 + int(mean + 40 * deviation)), dtype=torch.float64)
    mass = NegativeBinomial(log_mean, log_theta).log_prob(k).double().exp()
    # For small t the tail goes on: its rest is added.
    rest = probability_above(k[-1].item(), mean, theta)
    assert (mass.sum().item() + rest) == pytest.approx(1, abs=1e-6)
    for count in (0, int(mean / 3), int(mean + 6 * deviation), int(mean + 12 * deviation)):
        if count < 1_000_000:
            above = mass[count + 1 :].sum().item() + rest
            expected = probability_above(count, mean, theta)
            assert above == pytest.approx(expected, rel=1e-5, abs=1e-300)
            below = mass[: count + 1].sum().item()
            assert below == pytest.approx(probability_below(count, mean, theta), rel=1e-5)


BASES = {
    "Poisson": Poisson,
    "NegativeBinomial": lambda log_mean: NegativeBinomial(log_mean, torch.zeros_like(log_mean)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("base", BASES)
def test_zero_inflated_sums_to_one(base: str, dtype: torch.dtype) -> None:
    logits = torch.tensor([-1e6, -90, -20, -1, 0, 3, 20, 90, 1e6], dtype=dtype)[:, None]
    log_mean = torch.tensor([-60.0, -3, 0, 4, 6], dtype=dtype)
    k = torch.arange(40_000, dtype=dtype)[:, None, None]
    p = ZeroInflated(BASES[base](log_mean), logits)
    log_p = p.log_prob(k).double()
    assert log_p.isfinite().all()
    close(log_p.exp().sum(0), torch.ones(9, 5), atol=1e-6)
    # As Lambert writes it, where exponentials do not overflow.
    inside = (logits.abs() <= 20).flatten()
    gate, base_p = logits.double().sigmoid(), BASES[base](log_mean.double()).log_prob(k).exp()
    expected = torch.where(k == 0, gate + (1 - gate) * base_p, (1 - gate) * base_p)
    found = log_p.exp()[:, inside]
    torch.testing.assert_close(found, expected[:, inside], rtol=2e-5, atol=1e-40)


def test_zero_inflated_for_extreme_logits() -> None:
    """In single precision: the limits, and log p(k > 0) = logit to rounding."""
    base = Poisson(torch.tensor(1.0))
    k = torch.arange(4.0)
    never = ZeroInflated(base, torch.tensor(-1e6)).log_prob(k)
    torch.testing.assert_close(never, base.log_prob(k))
    always = ZeroInflated(base, torch.tensor(1e6)).log_prob(k)
    torch.testing.assert_close(always, torch.tensor([0.0, -1e6, -1e6, -1e6]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("theirs", [dist.Poisson, dist.NegativeBinomial])
def test_that_the_families_of_torch_are_not_accurate_enough(theirs: type) -> None:
    """Else they should be used."""
    rate, k = torch.tensor(1e7), torch.tensor(10_000_123.0)
    if theirs is dist.Poisson:
        found, exact = theirs(rate).log_prob(k), Poisson(rate.log()).log_prob(k)
    else:
        theta = torch.tensor(1e7)
        found = theirs(theta, logits=torch.tensor(0.0)).log_prob(k)
        exact = NegativeBinomial(theta.log(), theta.log()).log_prob(k)
    assert abs(found - exact) > 1
    base, k, logits = dist.Poisson(torch.tensor(1.0)), torch.tensor(3.0), torch.tensor(-1.3e6)
    found = dist.ZeroInflatedDistribution(base, gate_logits=logits).log_prob(k)
    assert abs(found - ZeroInflated(base, logits).log_prob(k)) > 0.01


def test_gradients_of_single_counts() -> None:
    """Against finite differences, far from the mean too; and finite in single precision."""
    k = torch.tensor([0.0, 1, 5, 1000]).double()[:, None]
    log_mean = torch.tensor([-69.0, -5, 0, 4, 9]).double().requires_grad_()
    other = torch.tensor([-9.0, -2, 0, 3, 9]).double().requires_grad_()
    families = {
        "poisson": lambda m, t: Poisson(m).log_prob(k) + 0 * t,
        "negative binomial": lambda m, t: NegativeBinomial(m, t).log_prob(k),
        "zero-inflated": lambda m, t: ZeroInflated(Poisson(m), t).log_prob(k),
        "both": lambda m, t: ZeroInflated(NegativeBinomial(m, t), t).log_prob(k),
    }
    for name, family in families.items():
        # The finite differences of numbers of 7e4 have errors of 1e-5.
        assert torch.autograd.gradcheck(family, (log_mean, other), atol=1e-4, rtol=1e-4), name
    log_mean = torch.tensor([-300.0, -69, 0, 16, 20], requires_grad=True)
    log_theta = torch.tensor([-9.2, 0, 18.4])[:, None].requires_grad_()
    wide = torch.tensor([0.0, 1, 9_999_999])[:, None, None]
    negative_binomial = NegativeBinomial(log_mean, log_theta)
    for logits in (-1e6, 0.0, 1e6):
        p = ZeroInflated(negative_binomial, torch.tensor(logits, requires_grad=True))
        total = p.log_prob(wide).sum() + Poisson(log_mean).log_prob(wide).sum()
        for gradient in torch.autograd.grad(total, (log_mean, log_theta, p.logits)):
            assert gradient.isfinite().all()


def test_gradient_of_negative_binomial_by_theta() -> None:
    """It is t (psi(t + k) - psi(t) - log(1 + m / t) + (m - k) / (m + t)); 0 in the limit."""
    thetas = torch.tensor(THETAS[:-1]).double()
    k, m = torch.tensor([[0.0], [3], [50]]).double(), 10.0
    log_theta = thetas.log().requires_grad_()
    log_p = NegativeBinomial(log(m), log_theta).log_prob(k)
    (found,) = torch.autograd.grad(log_p.sum(), log_theta)
    each = (thetas + k).digamma() - thetas.digamma() - torch.log1p(m / thetas)
    close(found, (thetas * (each + (m - k) / (m + thetas))).sum(0), rtol=1e-6)
    log_theta = log(1e8).requires_grad_()
    NegativeBinomial(log(m), log_theta).log_prob(torch.tensor(12.0)).backward()
    assert abs(log_theta.grad) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_of_single_counts(dtype: torch.dtype) -> None:
    log_mean = torch.tensor([-2.0, 0, 2, 7, 14], dtype=dtype)
    log_theta = torch.tensor([0.0, 1, 3, 18], dtype=dtype)[:, None]
    logits = torch.tensor([-3.0, 0, 1], dtype=dtype)[:, None, None]
    negative_binomial = NegativeBinomial(log_mean, log_theta)
    families = (Poisson(log_mean), negative_binomial, ZeroInflated(negative_binomial, logits))
    for p in families:
        x = p.sample((1000,))
        assert x.dtype == dtype and p.support.check(x).all() and p.log_prob(x).isfinite().all()
        assert_moments(p, 20_000)
        zeros = (p.sample((20_000,)) == 0).double().mean(0)
        expected = p.log_prob(torch.zeros((), dtype=dtype)).double().exp()
        error = (expected * (1 - expected) / 20_000).sqrt()
        assert ((zeros - expected).abs() <= 4.5 * error + 1e-3 / 20_000).all()


def compositions(total: int, classes: int) -> Tensor:
    rows = itertools.product(range(total + 1), repeat=classes)
    return torch.tensor([row for row in rows if sum(row) == total], dtype=torch.float64)


@pytest.mark.parametrize("total", [0, 1, 6])
def test_multinomial_sums_to_one_over_rows_of_its_total(total: int) -> None:
    logits = torch.tensor([[0.0, 0, 0, 0], [3, -2, 0, 1], [-80, 80, 0, 5]]).double()
    x = compositions(total, 4)
    p = Multinomial(torch.tensor(float(total)), logits)
    log_p = p.log_prob(x[:, None])
    close(log_p.exp().sum(0), torch.ones(3), atol=1e-12)
    for row, logit in enumerate(logits):
        theirs = stats.multinomial(total, logit.softmax(-1).numpy()).logpmf(x.numpy())
        close(log_p[:, row], theirs, atol=1e-9) if row < 2 else None
    assert (p.log_prob(compositions(total + 1, 4)[:, None]) == -torch.inf).all()


def test_multinomial_of_large_totals() -> None:
    """In single precision: one class of two is binomial."""
    total, logits = torch.tensor(1e7), torch.tensor([0.3, 0.0])
    heads = torch.tensor([5e6, 5_744_425, 6e6, 1e7, 0])
    found = Multinomial(total, logits).log_prob(torch.stack([heads, total - heads], -1))
    share = special.expit(logits[0].double().item())
    expected = stats.binom(1e7, share).logpmf(heads.numpy())
    close(found, expected, rtol=1e-6)


def test_multinomial_draws_of_different_totals() -> None:
    total = torch.tensor([0.0, 1, 30, 1e6])
    logits = torch.tensor([0.0, 2, -3, 1, -200])
    p = Multinomial(total, logits)
    x = p.sample((20_000,))
    assert x.shape == (20_000, 4, 5) and torch.equal(x.sum(-1), total.expand(20_000, 4))
    assert p.support.check(x).all() and p.log_prob(x).isfinite().all()
    assert_moments(p, 20_000)
    # Pairs of classes: the covariance is -n p_i p_j.
    centred = x[:, 2].double() - p.mean[2]
    products = centred[:, 0] * centred[:, 1]
    share = logits.softmax(-1).double()
    expected = -30 * share[0] * share[1]
    assert abs(products.mean() - expected) < 4.5 * products.std() / 20_000**0.5
    one = Multinomial(torch.tensor([3.0, 9.0]), torch.zeros(1))
    assert torch.equal(one.sample(), torch.tensor([[3.0], [9.0]]))
    assert torch.equal(one.log_prob(torch.tensor([[3.0], [9.0]])), torch.zeros(2))


def test_multinomial_gradients() -> None:
    logits = torch.tensor([0.0, 2, -30, 40]).double().requires_grad_()
    x = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 10]]).double()

    def log_p(logits: Tensor) -> Tensor:
        return Multinomial(torch.tensor(10.0).double(), logits).log_prob(x)

    assert torch.autograd.gradcheck(log_p, logits)


def test_shapes_with_leading_dimensions() -> None:
    x = torch.tensor([[0.0, 3, 1], [2, 0, 7]])
    log_mean, logits = torch.randn(7, 2, 3), torch.randn(7, 2, 3)
    for p in (
        Poisson(log_mean).to_event(1),
        NegativeBinomial(log_mean, torch.randn(3)).to_event(1),
        ZeroInflated(Poisson(log_mean), logits).to_event(1),
        ZeroInflated(Poisson(torch.randn(3)), logits).to_event(1),
        ZeroInflated(Poisson(log_mean), torch.randn(3)).to_event(1),
        Multinomial(x.sum(-1), logits),
    ):
        assert p.batch_shape == (7, 2) and p.event_shape == (3,)
        assert p.log_prob(x).shape == (7, 2) and p.sample((4,)).shape == (4, 7, 2, 3)
        assert p.mean.shape == p.variance.shape == (7, 2, 3)
        assert p.expand((5, 7, 2)).log_prob(x).shape == (5, 7, 2)


def test_values_and_arguments_are_checked() -> None:
    zero = torch.tensor(0.0)
    for p in (Poisson(zero), NegativeBinomial(zero, zero), ZeroInflated(Poisson(zero), zero)):
        for wrong in (-1.0, 0.5, math.nan):
            with pytest.raises(ValueError, match="support"):
                p.log_prob(torch.tensor(wrong))
    with pytest.raises(ValueError, match="support"):
        Multinomial(torch.tensor(2.0), torch.zeros(2)).log_prob(torch.tensor([2.5, -0.5]))
    nan = torch.tensor(math.nan)
    for make in (
        lambda: Poisson(nan),
        lambda: NegativeBinomial(zero, nan),
        lambda: ZeroInflated(Poisson(zero), nan),
        lambda: Multinomial(torch.tensor(1.5), torch.zeros(2)),
        lambda: ZeroInflated(dist.Normal(zero, 1), zero),
        lambda: ZeroInflated(Poisson(torch.zeros(2)).to_event(1), zero),
    ):
        with pytest.raises(ValueError):
            make()
