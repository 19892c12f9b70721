"""Scales: site by site where the objective is linear, and otherwise outside of the logarithm."""

from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from like_pyro import Program, Score, assert_pyros, gradients, locals_and_globals
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from test_contracts import OBJECTIVES
from torch import Tensor

from pyro_vae import InputError, objectives
from pyro_vae.objectives import CUBO, IWAE, RWS, TVO, AnalyticELBO, Renyi


def scaled(family: type[dist.Normal], subsample: bool, tensor: bool) -> tuple[Program, Program]:
    data = torch.linspace(-1, 2, 6)

    def scale() -> poutine.messenger.Messenger:
        return poutine.scale(scale=torch.tensor(0.7) if tensor else 0.7)

    def model() -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 6, 3 if subsample else None) as rows:
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            with poutine.scale(scale=torch.tensor([0.5, 1.5, 2.5])) if subsample else scale():
                pyro.sample("x", dist.Normal(z, 1.0), obs=data[rows])

    def guide() -> None:
        loc = pyro.param("loc", lambda: torch.tensor(0.2))
        with scale():
            mean = pyro.sample("mean", family(loc, 0.5))
        with pyro.plate("data", 6, 3 if subsample else None):
            locs = pyro.param("locs", lambda: torch.zeros(6), event_dim=0)
            pyro.sample("z", family(locs + mean, 0.9))

    return model, guide


@pytest.mark.parametrize("family", [dist.Normal, Score])
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("tensor", [False, True])
def test_scales_are_pyros(family: type[dist.Normal], subsample: bool, tensor: bool) -> None:
    """Site by site: a number, a tensor for each example, a random part of the data."""
    assert_pyros(*scaled(family, subsample, tensor))


def test_scales_of_a_closed_form() -> None:
    model, guide = scaled(dist.Normal, subsample=False, tensor=False)
    with pytest.raises(InputError, match="one scale in the guide and another in the model"):
        AnalyticELBO().loss(model, guide)
    model = poutine.scale(locals_and_globals(dist.Normal)[0], 2.0)
    guide = poutine.scale(locals_and_globals(dist.Normal)[1], 2.0)
    x = torch.randn(4)
    assert_pyros(model, guide, x, theirs=TraceMeanField_ELBO, ours=AnalyticELBO)


def part_of(data: Tensor, size: int = 3) -> tuple[Program, Program]:
    """A model and a guide that take some of the examples at random, or those that are given."""

    def model(rows: Tensor | None = None) -> None:
        with pyro.plate("data", len(data), size, subsample=rows) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=data[rows])

    def guide(rows: Tensor | None = None) -> None:
        loc = pyro.param("loc", lambda: torch.tensor(0.1))
        with pyro.plate("data", len(data), size, subsample=rows):
            pyro.sample("z", dist.Normal(loc, 1.1))

    return model, guide


@pytest.mark.parametrize("make", [partial(f, 3) for f in (IWAE, Renyi, CUBO, TVO, RWS)])
def test_a_scale_of_all_sites_is_outside_of_the_logarithm(
    make: Callable[[], objectives.Objective],
) -> None:
    """Half of the examples with scale 2 have, in the mean, the objective of all of them."""
    data = torch.randn(6)
    model, guide = part_of(data)

    def all_of(program: Program) -> Program:
        return lambda rows: poutine.scale(program, 0.5)(rows) if rows is None else program(rows)

    unscaled = poutine.scale(model, 0.5), poutine.scale(guide, 0.5)  # 0.5 times 6 / 3 is 1
    rows = torch.tensor([0, 2, 5])
    expected = gradients(make(), *unscaled, rows)
    found = gradients(make(), model, guide, rows)
    assert found[0] == pytest.approx(2 * expected[0], rel=1e-5)
    torch.testing.assert_close(found[1]["loc"], 2 * expected[1]["loc"], rtol=1e-5, atol=1e-6)
    torch.manual_seed(1)
    loss = make().loss(*unscaled, rows)
    torch.manual_seed(1)
    assert make().loss(model, guide, rows) == pytest.approx(2 * loss, rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_scales_inside_a_logarithm_are_refused(name: str) -> None:
    objective = OBJECTIVES[name][0]()
    if objective.linear:
        return
    model, guide = scaled(dist.Normal, subsample=False, tensor=False)
    with pytest.raises(InputError, match="has a scale of its own"):
        objective.loss(model, guide)
    with pytest.raises(InputError, match="has a scale of its own"):
        objective.differentiable_loss(poutine.scale(model, 2.0), guide)


def test_a_random_part_of_the_data_has_the_objective_of_all() -> None:
    """In the mean over the parts that are drawn."""
    data, objective = torch.randn(6), IWAE(4)
    draws = torch.tensor(
        [
            [objective.loss(*programs) for _ in range(500)]
            for programs in map(partial(part_of, data), (3, 6))
        ]
    )
    error = (draws.var(1).sum() / 500).sqrt()
    assert abs(draws[0].mean() - draws[1].mean()) < 4.5 * error < 0.1 * draws[1].mean()
