"""Columns of several distributions, side by side."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_vae.distributions import Poisson, SideBySide

PLACES = [(2, 0), (1, 3, 4)]


def columns(*batch: int) -> SideBySide:
    loc = torch.arange(2.0) + torch.zeros(*batch, 2)
    rate = torch.tensor([0.0, 1, 2]) + torch.zeros(*batch, 3)
    return SideBySide([dist.Normal(loc, 0.5).to_event(1), Poisson(rate).to_event(1)], PLACES)


def test_log_prob_is_the_sum_over_the_columns() -> None:
    p = columns(4)
    x = p.sample((3,))
    assert p.batch_shape == (4,) and p.event_shape == (5,) and x.shape == (3, 4, 5)
    expected = dist.Normal(torch.tensor([1.0, 0.0]), 0.5).log_prob(x[..., [0, 2]]).sum(-1)
    expected = expected + Poisson(torch.tensor([0.0, 1, 2])).log_prob(x[..., [1, 3, 4]]).sum(-1)
    torch.testing.assert_close(p.log_prob(x), expected)
    assert torch.equal(x[..., [1, 3, 4]], x[..., [1, 3, 4]].round())
    torch.testing.assert_close(columns().mean, torch.tensor([1.0, 1, 0, torch.e, torch.e**2]))


def test_expand_and_plates() -> None:
    wide = columns().expand(torch.Size([2, 1])).expand((2, 3))
    x = wide.sample((4,))
    assert x.shape == (4, 2, 3, 5) and len(x.flatten().unique()) > 20
    torch.testing.assert_close(wide.log_prob(x), columns().log_prob(x))
    with pyro.plate("data", 6):
        trace = poutine.trace(lambda: pyro.sample("x", columns())).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (6,)


def test_values_outside_of_a_column_s_support_are_refused() -> None:
    p = SideBySide(columns().parts, PLACES, validate_args=True)
    p.log_prob(torch.tensor([0.3, 2, -1, 0, 1]))
    with pytest.raises(ValueError, match="support"):
        p.log_prob(torch.tensor([0.3, 2.5, -1, 0, 1]))
