"""Observed values: the fast check of supports is the slow one, and refuses what it should."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from pyro_vae import InputError
from pyro_vae.programs.observed_values import ObservedValues, all_inside

VALUES = [0.0, 1.0, -1.0, 0.5, 3.0, -0.0, 1e-30, 1 - 2**-24, 1 + 2**-23, 1e30, math.nan]
VALUES += [math.inf, -math.inf]
SUPPORTS = [
    constraints.boolean,
    constraints.real,
    constraints.unit_interval,
    constraints.half_open_interval(0, 1),
    constraints.interval(torch.tensor(-1.0), 1.0),
    constraints.interval(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 3.0])),
    constraints.positive,
    constraints.nonnegative,
    constraints.less_than(1.0),
    constraints.nonnegative_integer,
    constraints.integer_interval(0, 3),
    constraints.simplex,
]


@pytest.mark.parametrize("support", SUPPORTS, ids=str)
@pytest.mark.parametrize("other", [0.0, 1.0, 0.5])
def test_the_fast_check_is_the_slow_one(support: constraints.Constraint, other: float) -> None:
    for value in VALUES:
        values = torch.tensor([[other, value], [other, other]])
        for checked in (support, constraints.independent(support, 1)):
            result = all_inside(checked, values)
            assert result.dtype is torch.bool and result.dim() == 0
            assert bool(result) == bool(checked.check(values).all()), value
    assert all_inside(constraints.boolean, torch.tensor([1, 0]))  # other types
    assert not all_inside(constraints.boolean, torch.tensor([1, 3]))
    assert all_inside(support, torch.ones(0, 2))  # no values


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(torch.full((3,), 0.5)).to_event(1), obs=x)


def test_the_sentence_names_site_and_support() -> None:
    said = r"site 'x' observes values outside the support.*Boolean\(\) for Bernoulli: change"
    for bad in (3.0, math.nan, 0.5):
        x = torch.zeros(2, 3)
        with ObservedValues():
            model(x)
        x[1, 2] = bad
        with pytest.raises(InputError, match=said), ObservedValues():
            model(x)


def test_results_are_collected_on_request() -> None:
    x = torch.zeros(2, 3)
    with ObservedValues(refuse=False) as values:
        model(x)
        with poutine.scale(scale=1.0):
            pyro.sample("y", dist.Gamma(1.0, 1.0), obs=torch.tensor(-1.0))
    assert [bool(inside) for inside in values.inside] == [True, False]
    assert "'y'" in values.sentences[1]


def test_only_observed_sites_are_checked() -> None:
    with ObservedValues() as values:
        pyro.deterministic("d", torch.tensor(math.nan))
        pyro.factor("f", torch.tensor(-3.0))
        pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("part", 10, subsample_size=3):
            pass
    assert all(values.inside)
