"""Paired differences whose distribution is known."""

import pytest
import torch
from torch import Tensor

from pyro_vae import InputError, bounds


def models(count: int, advantage: float) -> dict[str, Tensor]:
    """Examples that differ by far more than the models do."""
    hardness = 20 * torch.randn(count, dtype=torch.float64) - 90
    noise = torch.randn(2, count, dtype=torch.float64)
    return {"first": hardness + noise[0], "second": hardness + advantage + noise[1]}


def test_the_interval_covers_the_true_difference() -> None:
    """In about 95 of 100 repetitions: a binomial count is in 86..100 but for one case in 10^4."""
    covered = 0
    for _ in range(100):
        difference = bounds.compare(models(200, 0.3)).differences["second"]
        assert difference.se == pytest.approx((2 / 200) ** 0.5, rel=0.3)  # not 20 nats
        covered += difference.ci95[0] < 0.3 < difference.ci95[1]
    assert 86 <= covered <= 100


def test_means_are_those_of_each_model() -> None:
    values = models(50, 1.0)
    result = bounds.compare(values)
    for name, bound in result.bounds.items():
        assert bound.mean == pytest.approx(values[name].mean().item())
        assert f"{bound.mean:.3f}" in str(result)
    assert set(result.differences) == {"second"}
    assert f"{result.differences['second'].mean:+.3f}" in str(result)


def test_what_is_refused() -> None:
    values = models(50, 1.0)
    with pytest.raises(InputError, match="two models"):
        bounds.compare({"first": values["first"]})
    with pytest.raises(InputError, match="the same examples"):
        bounds.compare({"first": values["first"], "second": values["second"][:49]})
