"""Guides with points, with factors, and with rejection samplers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from like_pyro import assert_pyros
from pyro import poutine
from pyro.distributions.testing.rejection_gamma import RejectionStandardGamma
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
    with pytest.raises(InputError, match="factor 'f' is no density"):
        IWAE(2).loss(model, guide)


def test_rejection_samplers_have_a_score() -> None:
    """They are reparameterised in part. The exact gradient in their shape is known."""
    size = 20_000
    wraps: list[Callable[[Any], Any]] = [lambda d: d, lambda d: d.expand([size, 1]).to_event(1)]
    for wrap in wraps:
        pyro.clear_param_store()

        def model(wrap: Any = wrap) -> None:
            with pyro.plate("data", size):
                x = pyro.sample("x", wrap(dist.Gamma(2.0, 1.0)))
                pyro.factor("f", -x.reshape(-1))

        def guide(wrap: Any = wrap) -> None:
            shapes = pyro.param("shapes", lambda: torch.full((size, 1), 1.5))
            shapes = shapes if wrap is wraps[1] else shapes.squeeze(-1)
            with pyro.plate("data", size):
                pyro.sample("x", wrap(RejectionStandardGamma(shapes)))

        shape = torch.tensor(1.5, requires_grad=True)
        # E_q[log q - log Gamma(2, 1) + x] in closed form.
        kl = torch.distributions.kl_divergence(
            torch.distributions.Gamma(shape, 1.0), torch.distributions.Gamma(2.0, 1.0)
        )
        (exact,) = torch.autograd.grad(kl + shape, shape)
        ELBO().loss_and_grads(model, guide)
        found = pyro.param("shapes").grad
        error = found.std() / size**0.5
        assert abs(found.mean() - exact) < 4.5 * error < 0.15 * abs(exact)
        with pytest.raises(InputError, match="'x' of the guide is not reparameterised"):
            IWAE(2, vectorize_particles=False).loss_and_grads(model, guide)
