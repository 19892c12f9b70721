"""Objectives on programs that were written for Pyro's own: arguments, plates, shapes, keywords."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import LinearGaussian
from like_pyro import Program, Score, assert_pyros, gradients, locals_and_globals
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO
from test_contracts import OBJECTIVES
from torch import Tensor, nn

from pyro_vae import InputError, objectives
from pyro_vae.objectives import ELBO, IWAE, AnalyticELBO, TargetKL


@pytest.mark.parametrize("family", [dist.Normal, Score])
def test_plates_and_score_functions_are_pyros(family: type[dist.Normal]) -> None:
    """With the score function, the cost of a site is split by plates; else it would have noise."""
    assert_pyros(*locals_and_globals(family), torch.randn(5))


def test_scores_within_plates_have_no_noise_of_other_elements() -> None:
    """The variance of a local score-function gradient does not grow with the size of the data."""

    def model(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            loc = pyro.param("loc", lambda: torch.zeros(len(x)))
            pyro.sample("z", Score(loc, 1.0))

    variances = []
    for size in (2, 200):
        pyro.clear_param_store()
        x, objective = torch.ones(size), ELBO(500)
        objective.loss(model, guide, x)
        loc = pyro.param("loc").unconstrained()
        draws = []
        for _ in range(100):
            loss = objective.differentiable_loss(model, guide, x)
            draws.append(torch.autograd.grad(loss, loc)[0])
        each = torch.stack(draws)
        # d/dloc of E_q[log q(z) - log p(z) - log p(1|z)] at loc 0 is -1.
        assert ((each.mean(0) + 1).abs() < 4.5 * each.std(0) / 10).all()
        variances.append(each.var(0).mean().item())
    assert variances[1] < 1.5 * variances[0]


def test_arguments_of_all_kinds() -> None:
    """Positional and keyword arguments, nests of them, and other structures from call to call."""

    def model(batch: dict[str, Any], *, extra: Tensor | None = None, wide: bool = False) -> None:
        x, parts = batch["x"], batch["parts"]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            if wide:
                with pyro.plate("inner", 2):
                    pyro.sample("w", dist.Normal(z, 1.0))
            loc = z + parts[0] * parts[1][1] + (0.0 if extra is None else extra)
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def guide(batch: dict[str, Any], *, extra: Tensor | None = None, wide: bool = False) -> None:
        loc = pyro.param("loc", lambda: torch.tensor(0.1))
        with pyro.plate("data", len(batch["x"])):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            if wide:
                with pyro.plate("inner", 2):
                    pyro.sample("w", dist.Normal(z, 0.5))

    def batch(size: int) -> dict[str, Any]:
        return {"x": torch.randn(size), "parts": (torch.randn(size), [2, torch.randn(size)])}

    looks: list[int] = []
    objective = ELBO(2)
    counted = lambda *args, **kwargs: (looks.append(1), guide(*args, **kwargs))  # noqa: E731
    for step, (size, options, new) in enumerate(
        [
            (4, {}, True),
            (7, {}, False),  # another size is no other structure
            (7, {"extra": torch.ones(7)}, True),
            (3, {"extra": torch.ones(3)}, False),
            (3, {"extra": torch.tensor(1.0)}, True),  # a number, not one for each example
            (4, {"wide": True}, True),
            (5, {}, False),  # known from the first call
        ]
    ):
        looks.clear()
        data = batch(size)
        found = gradients(objective, model, counted, data, **options)
        assert (len(looks) > 1) == new, step
        reference = Trace_ELBO(2, vectorize_particles=True)
        reference.loss(model, guide, data, **options)  # draws numbers to find the plates
        expected = gradients(reference, model, guide, data, **options)
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        torch.testing.assert_close(found[1]["loc"], expected[1]["loc"], rtol=1e-4, atol=1e-5)


def test_modes_of_modules_are_looked_at() -> None:
    """Batch statistics are right for one draw at a time; in `eval` all draws are made at once."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                flat = self.norm(z.reshape(-1, 1)).reshape(z.shape)
                pyro.sample("x", dist.Normal(flat, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    model, x, objective = Model(), torch.randn(6, 1), ELBO(3)
    model.eval()
    objective.loss(model, guide, x)
    model.train()
    with pytest.warns(UserWarning, match="run once for each draw"):
        objective.loss(model, guide, x)
    model.train()
    torch.manual_seed(1)
    found = objective.loss(model, guide, x)
    torch.manual_seed(1)
    assert found == pytest.approx(Trace_ELBO(3).loss(model, guide, x), rel=1e-5)


def test_programs_that_cannot_be_vectorised() -> None:
    """`vectorize_particles` True refuses them, None says so, and False is one run for each draw."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            logits = z.softmax(1)  # of the examples, among several draws
            pyro.sample("x", dist.Normal(logits[..., 0], 1.0), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    x = torch.randn(4)
    assert_pyros(model, guide, x)
    with pytest.raises(InputError, match="cannot make several draws at once") as refusal:
        ELBO(3, vectorize_particles=True).loss(model, guide, x)
    assert refusal.value.parameter == "vectorize"
    with pytest.warns(UserWarning, match="run once for each draw"):
        torch.manual_seed(3)
        loss = IWAE(3).loss(model, guide, x)
    torch.manual_seed(3)
    assert IWAE(3, vectorize_particles=False).loss(model, guide, x) == loss


GLOBAL = {
    "one": lambda: dist.Normal(torch.tensor(0.0), 1.0),
    "many": lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1),
}


@pytest.mark.parametrize("shape", GLOBAL)
@pytest.mark.parametrize("gradient", ["plain", "stl", "dreg"])
@pytest.mark.parametrize("vectorize", [True, False])
def test_global_variables_in_importance_weighted_gradients(
    shape: str, gradient: str, vectorize: bool
) -> None:
    """One weight for all data; dreg has the mean of the plain gradient."""

    def model(x: Tensor) -> None:
        z = pyro.sample("z", GLOBAL[shape]())
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal((z.sum(-1) if shape == "many" else z) + w, 2.0), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.tensor(0.3))
        z = GLOBAL[shape]()
        pyro.sample("z", dist.Normal(z.mean + loc, 1.0).to_event(z.event_dim))
        with pyro.plate("data", len(x)):
            pyro.sample("w", dist.Normal(loc, 1.0))

    x = torch.tensor([0.3, -1.0, 2.0])
    objective, plain = IWAE(2, gradient, vectorize_particles=vectorize), IWAE(2)
    if gradient != "dreg":
        assert math.isfinite(objective.loss_and_grads(model, guide, x))
        return
    plain.loss(model, guide, x)
    loc = pyro.param("loc").unconstrained()
    means, errors = [], []
    for each in (objective, plain):
        count = 200
        draws = torch.stack(
            [
                torch.autograd.grad(each.differentiable_loss(model, guide, x), loc)[0]
                for _ in range(count)
            ]
        )
        means.append(draws.mean())
        errors.append(draws.std() / count**0.5)
    assert abs(means[0] - means[1]) < 4.5 * (errors[0] ** 2 + errors[1] ** 2) ** 0.5


def test_orders_of_sites_that_have_no_closed_form() -> None:
    """The KL of y given x, with x drawn after y, is not the KL of the programs."""

    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0))

    def guide() -> None:
        y = pyro.sample("y", dist.Normal(1.0, 1.0))
        pyro.sample("x", dist.Normal(y, 1.0))

    with pytest.raises(InputError, match="needs the same order"):
        AnalyticELBO().loss(model, guide)
    assert math.isfinite(ELBO().loss(model, guide))


def test_shapes_that_disagree() -> None:
    """Broadcast against each other, they would give the density of another model."""

    def program(*shape: int, events: int) -> Program:
        return lambda: pyro.sample("z", dist.Normal(torch.zeros(shape), 1.0).to_event(events))

    for model, guide, said in (
        (program(1, 2, events=2), program(2, 1, events=2), "shapes disagree at site 'z'"),
        (program(2, events=1), program(2, 1, events=2), "event_dims disagree at site 'z'"),
    ):
        for objective in (ELBO(), IWAE(2)):
            with pytest.raises(InputError, match=said):
                objective.loss(model, guide)


def test_pyros_keywords() -> None:
    """Every objective takes the keywords of Pyro's ELBO, and no others."""
    keywords: dict[str, Any] = {
        "num_particles": 2,
        "max_plate_nesting": 1,
        "vectorize_particles": True,
        "strict_enumeration_warning": False,
        "ignore_jit_warnings": True,
        "jit_options": {"check_trace": False},
        "retain_graph": True,
        "tail_adaptive_beta": -0.5,
    }
    made = [getattr(objectives, name) for name in objectives.__all__ if name != "Objective"]
    model, guide = LinearGaussian().vae.model, LinearGaussian().vae.guide
    for make in made:
        objective = make(**keywords)
        for name in keywords.keys() - {"max_plate_nesting"}:
            assert getattr(objective, name) == keywords[name]
        assert math.isfinite(objective.loss(model, guide, torch.randn(3, 4).double()))
        with pytest.raises(TypeError, match="betta"):
            make(betta=1.0)


def test_a_graph_can_be_retained() -> None:
    """As with Pyro's: parameters that are computed from others, with one graph for two steps."""
    raw = torch.tensor(0.3, requires_grad=True)
    loc = raw.exp()

    def model() -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide() -> None:
        pyro.sample("z", dist.Normal(loc, 1.0))

    for objective in (ELBO(retain_graph=True), TargetKL(retain_graph=True)):
        raw.grad = None
        objective.loss_and_grads(model, guide)
        objective.loss_and_grads(model, guide)
        assert raw.grad is not None
    ELBO().loss_and_grads(model, guide)
    with pytest.raises(RuntimeError, match="second time"):
        ELBO().loss_and_grads(model, guide)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_first_steps_of_functions_with_parameters(name: str) -> None:
    """SVI trains what the first call makes, and ELBOModule is differentiable."""
    if name == "RWS":  # its sleep phase needs a model that draws x
        return

    def model(x: Tensor) -> None:
        slope = pyro.param("slope", lambda: torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(slope * z, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", lambda: torch.tensor(0.5), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, scale).to_event(1))

    x, make = torch.randn(8, 2) * 3, OBJECTIVES[name][0]
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), loss=make())
    svi.step(x)
    assert pyro.param("slope").item() != 1 and pyro.param("scale").item() != 0.5
    assert math.isfinite(svi.evaluate_loss(x))
    loss = make()(model, guide)(x)
    loss.backward()
    assert pyro.param("scale").unconstrained().grad is not None
