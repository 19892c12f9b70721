"""Guides with points, with factors, and with rejection samplers."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from like_pyro import assert_pyros
from pyro import poutine
from pyro.infer import SVI
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoMultivariateNormal, AutoNormal
from test_contracts import OBJECTIVES
from torch import Tensor

from pyro_vae import InputError
from pyro_vae.objectives import ELBO, IWAE


def test_points_are_trained_to_the_mode() -> None:
    """The loss is -log p(x, z); the mode of a normal mean is known. All others refuse points."""
    x = torch.tensor([1.0, 2.0, 4.0])

    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = AutoDelta(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), ELBO())
    for _ in range(300):
        loss = svi.step(x)
    mode = x.sum() / 4
    assert guide.median(x)["z"].item() == pytest.approx(mode.item(), abs=1e-3)
    log_p = dist.Normal(0.0, 1.0).log_prob(mode) + dist.Normal(mode, 1.0).log_prob(x).sum()
    assert loss == pytest.approx(-log_p.item(), rel=1e-4)
    assert svi.evaluate_loss(x) == pytest.approx(-log_p.item(), rel=1e-4)
    assert_pyros(model, guide, x)
    for objective in (make() for make, _ in OBJECTIVES.values()):
        if not isinstance(objective, ELBO) or objective.free_bits:
            with pytest.raises(InputError, match=r"point estimate|has no KL of its own"):
                objective.loss_and_grads(model, guide, x)


def test_points_beside_draws() -> None:
    """Some latent variables are points, and others are drawn, with and without auxiliary noise."""

    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean.sum(), spread), obs=x)

    x = torch.randn(5)
    for automatic in (AutoNormal, AutoMultivariateNormal):
        pyro.clear_param_store()
        guide = AutoGuideList(model)
        guide.append(automatic(poutine.block(model, hide=["spread"])))
        guide.append(AutoDelta(poutine.block(model, expose=["spread"])))
        assert_pyros(model, guide, x)
        with pytest.raises(InputError, match="'spread' is a point estimate"):
            IWAE(3).loss(model, guide, x)


def test_factors_of_a_guide() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    def guide(has_rsample: bool | None = True) -> None:
        loc = pyro.param("loc", lambda: torch.tensor(0.1))
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.factor("f", -z * loc, has_rsample=has_rsample)

    assert_pyros(model, guide)
    assert math.isfinite(ELBO().loss_and_grads(model, partial(guide, False)))
    with pytest.raises(InputError, match="missing specification of has_rsample"):
        ELBO().loss(model, partial(guide, None))
    with pytest.raises(InputError, match="factor 'f' is not a density"):
        IWAE(2).loss(model, guide)


class Skewed(dist.Rejector):
    """Draws of N(loc, 1), accepted with the probability Phi(x): half of them at loc 0."""

    def __init__(self, loc: Tensor) -> None:
        unit = dist.Normal(0.0, 1.0)
        super().__init__(
            dist.Normal(loc, 1.0), lambda x: unit.cdf(x).log(), unit.cdf(loc / 2**0.5).log()
        )


@pytest.mark.parametrize("nested", [False, True])
def test_rejection_samplers_have_a_score(nested: bool) -> None:
    """They are reparameterised in part. The exact gradient is an integral over a grid."""
    size = 50_000

    def model() -> None:
        with pyro.plate("data", size):
            x = pyro.sample("x", dist.Normal(torch.zeros(size, 1), 1.0).to_event(1))
            pyro.factor("f", -x.squeeze(-1).square())

    def guide() -> None:
        locs = pyro.param("locs", lambda: torch.zeros(size, 1))
        with pyro.plate("data", size):
            pyro.sample("x", Skewed(locs).to_event(1))

    def flat_model() -> None:
        with pyro.plate("data", size):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            pyro.factor("f", -x.square())

    def flat_guide() -> None:
        locs = pyro.param("locs", lambda: torch.zeros(size))
        with pyro.plate("data", size):
            pyro.sample("x", Skewed(locs))

    programs = (model, guide) if nested else (flat_model, flat_guide)
    x = torch.linspace(-7, 7, 4001, dtype=torch.float64)
    loc = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    log_q = Skewed(loc).log_prob(x)
    cost = log_q - dist.Normal(0.0, 1.0).log_prob(x) + x.square()
    (exact,) = torch.autograd.grad((log_q.exp() * cost).sum() * (x[1] - x[0]), loc)
    ELBO().loss_and_grads(*programs)
    found = pyro.param("locs").grad
    error = found.std() / size**0.5
    assert abs(found.mean() - exact) < 4.5 * error < 0.1 * abs(exact)
    with pytest.raises(InputError, match="'x' of the guide is not reparameterised"):
        IWAE(2, vectorize_particles=False).loss_and_grads(*programs)
