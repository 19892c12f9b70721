"""How often errors, intervals and certified bounds hold when the truth is known."""

import math

import pytest
import torch
from torch import Tensor

from pyro_vae import InputError, bounds
from pyro_vae.bounds import Corrected, Estimate
from pyro_vae.bounds.estimates import leave_one_out, with_error

REPETITIONS = 400


def exactly(values: Tensor) -> Estimate:
    return Estimate(values.double(), torch.zeros(len(values), dtype=torch.float64))


def noisy(values: Tensor, error: float) -> Estimate:
    """Values with Monte Carlo noise, and its variance."""
    noise = error * torch.randn(len(values), dtype=torch.float64)
    return Estimate(values + noise, torch.full_like(values, error**2))


def corrected(size: int, chosen: int) -> tuple[Corrected, Tensor]:
    """Examples that differ by 20 nats, with two bounds that differ by 1.5 (spread 0.5)."""
    costly = -90 + 20 * torch.randn(size, dtype=torch.float64)
    cheap = costly - 1.5 + 0.5 * torch.randn(size, dtype=torch.float64)
    index = torch.randperm(size)[:chosen]
    return Corrected(exactly(cheap), exactly(costly[index]), index), costly


def test_a_subset_corrects_the_whole() -> None:
    """The stated error is the spread of reruns; the intervals cover both means."""
    errors, over_population, over_subset = [], 0, 0
    for _ in range(REPETITIONS):
        estimate, costly = corrected(300, 60)
        off = estimate.mean - costly.mean().item()
        errors.append(off)
        low, high = estimate.ci95
        over_population += low <= -90 <= high
        over_subset += abs(off) < 1.96 * estimate.subset_se
    spread = torch.tensor(errors)
    exact = 0.5 * math.sqrt((1 / 60) * (1 - 60 / 300))
    assert abs(spread.mean()) < 4.5 * exact / REPETITIONS**0.5  # no bias
    assert spread.std().item() == pytest.approx(exact, rel=4.5 / math.sqrt(2 * REPETITIONS))
    for covered in (over_population, over_subset):
        assert 0.90 * REPETITIONS <= covered <= 0.99 * REPETITIONS
    estimate, _ = corrected(300, 60)
    assert estimate.se == pytest.approx(
        math.hypot(20 / 300**0.5, exact), rel=4.5 / math.sqrt(2 * 60)
    )
    assert estimate.to_dict()["subset"] == 60


def test_monte_carlo_error_of_a_corrected_mean() -> None:
    """It is the spread of reruns on the same examples, with new noise in both bounds."""
    costly, chosen = torch.randn(30, dtype=torch.float64), torch.arange(8)
    means = []
    for _ in range(REPETITIONS):
        first = Estimate(
            costly - 1 + 0.3 * torch.randn(30).double(), torch.full((30,), 0.09).double()
        )
        second = Estimate(
            costly[:8] + 0.1 * torch.randn(8).double(), torch.full((8,), 0.01).double()
        )
        estimate = Corrected(first, second, chosen)
        means.append(estimate.mean)
    spread = torch.tensor(means).std().item()
    assert estimate.mc_se == pytest.approx(spread, rel=4.5 / math.sqrt(2 * REPETITIONS))


def test_a_subset_that_is_the_whole() -> None:
    estimate, costly = corrected(50, 50)
    assert estimate.mean == pytest.approx(costly.mean().item()) and estimate.subset_se == 0


def test_errors_have_two_digits() -> None:
    assert with_error(0.15178, 0.00417) == "0.1518 ± 0.0042"
    assert with_error(24.3888, 1.0356) == "24.4 ± 1.0"
    assert with_error(-0.0002, 0.0996) == "0.00 ± 0.10"  # no minus zero
    assert with_error(3.68888, 0.0) == with_error(3.68888, math.nan) == "3.69"
    assert with_error(math.nan, math.nan) == "unknown"


def test_certified_bounds_hold() -> None:
    """With the stated probability, also for weights whose variance is infinite."""
    size, delta, sigma = 20, 0.1, 2.0
    log_p = torch.zeros(REPETITIONS, size, dtype=torch.float64)
    normal = torch.randn(REPETITIONS, size, dtype=torch.float64)
    log_normal = log_p + sigma * normal - sigma**2 / 2  # E[p-hat] = p
    pareto = torch.rand(REPETITIONS, size, dtype=torch.float64).log() / -1.5 + math.log(1 / 3)
    for estimates in (log_normal, pareto):
        failed = sum(bounds.certified(row, delta) > 0 for row in estimates)
        assert failed <= delta * REPETITIONS
    # Markov's inequality is an equality for one or two examples whose estimates are either zero or
    # as large as possible: here the bound is reached with probability delta exactly.
    for count in (1, 2):
        each = delta ** (1 / count)
        on = torch.rand(20_000, count) < each
        estimates = torch.where(on, torch.tensor(-math.log(each), dtype=torch.float64), -math.inf)
        reached = estimates.sum(1).isfinite()
        assert abs(reached.double().mean() - delta) < 4.5 * (delta / 20_000) ** 0.5
        assert bounds.certified(estimates[reached][0], delta) == pytest.approx(0, abs=1e-12)
    values = torch.tensor([1.0, 2.0, 6.0, 7.0]).double()
    assert bounds.certified(values, 0.05) == pytest.approx(4 - math.log(20) / 4)
    with pytest.raises(InputError, match="delta"):
        bounds.certified(log_p[0], 0.0)


def test_leave_one_out() -> None:
    log_w = 5 * torch.randn(7, 4, dtype=torch.float64)
    log_w[2, 0] = 80  # this weight has nearly all the mass
    log_w[:, 1] = -math.inf
    log_w[3, 1] = 0  # the only weight that is not zero
    for k in range(7):
        others = torch.cat([log_w[:k], log_w[k + 1 :]])
        torch.testing.assert_close(leave_one_out(log_w)[k], bounds.iwae(others))
