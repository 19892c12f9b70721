"""What tests of objectives share: Pyro's loss and gradients, to compare with ours."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_vae.objectives import ELBO

Program = Callable[..., Any]


class Score(dist.Normal):
    """A normal distribution that is not reparameterised."""

    has_rsample = False


def gradients(
    objective: pyro.infer.ELBO, model: Program, guide: Program, *args: Any, **kwargs: Any
) -> tuple[float, dict[str, Tensor]]:
    """The loss and the gradients of all parameters, for one seed."""
    for value in pyro.get_param_store().values():
        value.unconstrained().grad = None
    torch.manual_seed(7)
    loss = objective.loss_and_grads(model, guide, *args, **kwargs)
    parameters = dict(pyro.get_param_store().named_parameters())
    return loss, {n: p.grad.clone() for n, p in parameters.items() if p.grad is not None}


def assert_pyros(
    model: Program, guide: Program, *args: Any, theirs: Any = Trace_ELBO, ours: Any = ELBO, **k: Any
) -> None:
    """Ours and Pyro's agree: one draw, several runs, and several draws at once."""
    for options in ({}, {"num_particles": 3, "vectorize_particles": False}):
        reference = theirs(**options)
        reference.loss(model, guide, *args, **k)  # makes the parameters
        expected = gradients(reference, model, guide, *args, **k)
        found = gradients(ours(**options), model, guide, *args, **k)
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        assert found[1].keys() == expected[1].keys() and found[1]
        for name, gradient in expected[1].items():
            torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5)


def locals_and_globals(family: type[dist.Normal]) -> tuple[Program, Program]:
    """A mean outside the plate, two variables inside, and a second plate."""

    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            with pyro.plate("inner", 2, dim=-2):
                w = pyro.sample("w", dist.Normal(z, 0.7))
            pyro.sample("x", dist.Normal(z + w.sum(-2), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.tensor(0.3))
        slope = pyro.param("slope", lambda: torch.tensor(0.4))
        scale = pyro.param("scale", lambda: torch.tensor(0.8), constraint=constraints.positive)
        mean = pyro.sample("mean", family(loc, scale))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", family(mean + slope * x, scale))
            with pyro.plate("inner", 2, dim=-2):
                pyro.sample("w", family(slope * z, scale))

    return model, guide
