"""Ordered levels: the cumulative logit against its definition, in both tails."""

import math
from decimal import Decimal, localcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from torch import Tensor

from pyro_vae.distributions import CumulativeLogit

CUTPOINTS = torch.tensor([-2.0, -1.999, 0.5, 4.0], dtype=torch.float64)
LOCS = torch.tensor([-900.0, -40, -3, 0, 0.7, 25, 900], dtype=torch.float64)


def every_level(count: int = 5) -> Tensor:
    return torch.arange(float(count))[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_to_one(dtype: torch.dtype) -> None:
    log_p = CumulativeLogit(LOCS.to(dtype), CUTPOINTS.to(dtype)).log_prob(every_level())
    assert log_p.dtype == dtype and log_p.isfinite().all()
    total = log_p.double().exp().sum(0)
    # In single precision c - loc has an error of 3e-8 relative to it: of 1e-6 where it matters.
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(total, torch.ones(7).double(), atol=tolerance, rtol=0)


def test_agrees_with_the_definition_in_exact_arithmetic() -> None:
    """F(c_{k+1} - loc) - F(c_k - loc), in 1000 digits because it may be exp(-900)."""
    found = CumulativeLogit(LOCS, CUTPOINTS).log_prob(every_level())
    with localcontext() as context:
        context.prec = 1000
        for column, loc in enumerate(LOCS.tolist()):
            below = [1 / (1 + (Decimal(loc) - Decimal(c)).exp()) for c in CUTPOINTS.tolist()]
            below = [Decimal(0), *below, Decimal(1)]
            for k in range(5):
                expected = float((below[k + 1] - below[k]).ln())
                assert found[k, column].item() == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_single_precision_agrees_with_double() -> None:
    locs, cutpoints = LOCS.float(), CUTPOINTS.float()
    single = CumulativeLogit(locs, cutpoints).log_prob(every_level())
    double = CumulativeLogit(locs.double(), cutpoints.double()).log_prob(every_level())
    # The distance of 0.001 between two cutpoints is exact. Elsewhere: rounding.
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=1e-6)


def test_that_pyros_is_not_accurate_enough() -> None:
    """Else it should be used: it limits log-probabilities to -16, with no gradient beyond."""
    loc, level = torch.tensor(40.0), torch.tensor(0.0)
    theirs = dist.OrderedLogistic(loc, CUTPOINTS.float()).log_prob(level)
    assert abs(theirs - CumulativeLogit(loc, CUTPOINTS.float()).log_prob(level)) > 20


def test_gradients() -> None:
    locs, cutpoints = LOCS.clone().requires_grad_(), CUTPOINTS.clone().requires_grad_()

    def log_p(loc: Tensor, cutpoints: Tensor) -> Tensor:
        return CumulativeLogit(loc, cutpoints, validate_args=False).log_prob(every_level())

    assert torch.autograd.gradcheck(log_p, (locs, cutpoints), atol=1e-4, rtol=1e-4, eps=1e-7)
    single = LOCS.float().requires_grad_()
    ends = torch.tensor([0.0, 1, torch.inf]).requires_grad_()
    total = CumulativeLogit(single, ends).log_prob(every_level(3)).sum()
    for gradient in torch.autograd.grad(total, (single, ends)):
        assert gradient.isfinite().all()


def test_draws_and_mean() -> None:
    p = CumulativeLogit(torch.tensor([-30.0, -2, 0, 1, 30]), CUTPOINTS.float())
    x = p.sample((100_000,))
    for k in range(5):
        expected = p.log_prob(torch.tensor(float(k))).double().exp()
        error = (expected * (1 - expected) / 100_000).sqrt()
        assert (((x == k).double().mean(0) - expected).abs() <= 4.5 * error + 1e-7).all()
    mean = (p.log_prob(every_level()).exp() * every_level()).sum(0)
    torch.testing.assert_close(p.mean, mean, atol=1e-5, rtol=1e-5)


def test_variables_with_different_numbers_of_levels() -> None:
    cutpoints = torch.tensor([[0.0, 1, 2], [0, 1, torch.inf], [0, torch.inf, torch.inf]])
    p = CumulativeLogit(torch.tensor([0.3, -0.2, 1.0]), cutpoints)
    assert p.levels.tolist() == [4, 3, 2]
    for column, count in enumerate(p.levels.tolist()):
        alone = CumulativeLogit(p.loc[column], cutpoints[column, : count - 1])
        for k in range(count):
            value = torch.zeros(3)
            value[column] = k
            torch.testing.assert_close(
                p.log_prob(value)[column], alone.log_prob(torch.tensor(float(k)))
            )
    with pytest.raises(ValueError, match="support"):
        p.log_prob(torch.tensor([3.0, 3, 0]))
    p._validate_args = False
    assert p.log_prob(torch.tensor([3.0, 3, 2])).isfinite().tolist() == [True, False, False]
    assert (p.sample((1000,)).amax(0) < p.levels).all()
    with pytest.raises(NotImplementedError, match="different numbers"):
        p.enumerate_support()


def test_is_enumerated_by_pyro() -> None:
    """The joint log-density with a normal x whose mean is the level."""
    level = CumulativeLogit(torch.tensor([0.3, -2.0]), CUTPOINTS.float())
    x = torch.tensor([1.3, 0.4])

    @config_enumerate
    def model() -> None:
        with pyro.plate("data", 2):
            k = pyro.sample("k", level)
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    enumerated = poutine.enum(model, first_available_dim=-2)
    trace = poutine.trace(enumerated).get_trace()
    trace.compute_log_prob()
    joint = trace.nodes["k"]["log_prob"] + trace.nodes["x"]["log_prob"]
    expected = level.log_prob(every_level()) + dist.Normal(every_level(), 1.0).log_prob(x)
    torch.testing.assert_close(joint, expected)
    assert level.enumerate_support().shape == (5, 2)
    assert level.enumerate_support(expand=False).shape == (5, 1)


def test_shapes_and_arguments() -> None:
    cutpoints = torch.tensor([[0.0, 1, 2], [0, 1, torch.inf]])
    p = CumulativeLogit(torch.randn(7, 4, 2), cutpoints).to_event(1)
    x = torch.tensor([[0.0, 1], [3, 2], [2, 0], [1, 1]])
    assert p.batch_shape == (7, 4) and p.log_prob(x).shape == (7, 4)
    assert p.sample((5,)).shape == (5, 7, 4, 2) and p.mean.shape == (7, 4, 2)
    assert p.expand((3, 7, 4)).log_prob(x).shape == (3, 7, 4)
    for wrong in (torch.tensor([1.0, 0]), torch.tensor([0.0, 0]), torch.tensor([0.0, math.nan])):
        with pytest.raises(ValueError, match="increase"):
            CumulativeLogit(torch.tensor(0.0), wrong)
