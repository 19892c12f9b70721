"""Engines take any program: functions, autoguides, all parameters, and any arguments."""

import copy
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints
from torch.utils._pytree import tree_leaves

from pyro_vae import VAE, InputError, likelihoods, posteriors, priors
from pyro_vae.objectives import ELBO
from pyro_vae.training import Checkpoint, CompiledEngine, EagerEngine, GuideFirst, Validate, fit
from pyro_vae.training.callbacks import diagnose

ENGINES = pytest.mark.parametrize("engine", [EagerEngine, CompiledEngine])
Engines = type[EagerEngine]
pytestmark = pytest.mark.usefixtures("traced")


@pytest.fixture
def x() -> Tensor:
    return torch.randn(12, 3, dtype=torch.double)


def pair(base: type[nn.Module], *, register: bool = False) -> tuple[Any, Any]:
    """A model and a guide that both have a layer `self.net`."""

    class Model(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> None:
            if register:
                pyro.module("net", self.net)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)

    class Guide(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> None:
            if register:
                pyro.module("net", self.net)
            with pyro.plate("data", len(x)):
                loc, log_scale = self.net(x).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    torch.manual_seed(2)
    return Model().double(), Guide().double()


def trained_by_hand(model: nn.Module, guide: nn.Module, x: Tensor, steps: int) -> list[float]:
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        with pyro.get_param_store().scope():
            loss = Trace_ELBO().differentiable_loss(model, guide, x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@ENGINES
@pytest.mark.parametrize(
    ("base", "register"), [(nn.Module, False), (nn.Module, True), (PyroModule, False)]
)
def test_all_parameters_of_modules_are_trained(
    engine: Engines, base: type[nn.Module], register: bool, x: Tensor
) -> None:
    """Unregistered, registered by one name twice, and PyroModules: all as by hand."""
    by_hand, ours = pair(nn.Module), pair(base, register=register)
    for net in (*by_hand, *ours):
        net.net.weight.grad = torch.full_like(net.net.weight, 1e3)  # of other work
    torch.manual_seed(0)
    expected = trained_by_hand(*by_hand, x, 10)
    torch.manual_seed(0)
    trained = engine(*ours, ELBO(), lr=1e-2)
    assert [trained.step(x) for _ in range(10)] == pytest.approx(expected, rel=1e-9)
    for one, other in zip(by_hand, ours, strict=True):
        for name, parameter in one.named_parameters():
            torch.testing.assert_close(parameter, dict(other.named_parameters())[name])


def model(x: Tensor, y: Tensor | None = None) -> None:
    scale = pyro.param(
        "scale", torch.tensor(2.0, dtype=torch.double), constraint=constraints.positive
    )
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)


def guide(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.param("slope", torch.tensor(0.3, dtype=torch.double))
    scale = pyro.param("q", lambda: torch.full((3,), 0.5).double(), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, scale).to_event(1))


@ENGINES
def test_functions_are_trained_as_by_svi(engine: Engines, x: Tensor) -> None:
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    torch.manual_seed(0)
    expected = [svi.step(x) for _ in range(10)]
    values = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    pyro.clear_param_store()
    ours = engine(model, guide, ELBO(), lr=1e-2)
    torch.manual_seed(0)
    assert [ours.step(x) for _ in range(10)] == pytest.approx(expected, rel=1e-6)
    # What is trained is what the programs use outside of the engine.
    assert set(pyro.get_param_store()) == set(values)
    for name, value in values.items():
        torch.testing.assert_close(pyro.param(name).detach(), value)


@ENGINES
def test_the_first_step_draws_what_it_would_after_a_check(engine: Engines, x: Tensor) -> None:
    losses = []
    for checked in (False, True):
        pyro.clear_param_store()
        ours = engine(model, guide, ELBO(), lr=1e-2)
        if checked:
            ours.check(x)
        torch.manual_seed(0)
        losses.append([ours.step(x) for _ in range(3)])
    assert losses[0] == losses[1]


@ENGINES
def test_replaced_values_are_trained_next(engine: Engines, x: Tensor) -> None:
    ours = engine(model, guide, ELBO(), lr=1e-2)
    ours.step(x)
    pyro.clear_param_store()
    guide(x)  # makes new parameters
    before = pyro.param("slope").item()
    ours.step(x)
    ours.step(x)
    assert pyro.param("slope").item() != before
    assert len(ours.trained) == 3


@ENGINES
def test_the_state_of_functions_round_trips(engine: Engines, x: Tensor) -> None:
    first = engine(model, guide, ELBO(), lr=1e-2)
    for _ in range(3):
        first.step(x)
    state = copy.deepcopy(first.state_dict())
    torch.manual_seed(1)
    expected = [first.step(x) for _ in range(3)]
    pyro.clear_param_store()
    second = engine(model, guide, ELBO(), lr=1e-2)
    with pytest.raises(InputError, match="have not run yet"):
        second.load_state_dict(state)
    second.check(x)
    second.load_state_dict(state)
    torch.manual_seed(1)
    assert [second.step(x) for _ in range(3)] == pytest.approx(expected, rel=1e-9)


@ENGINES
def test_autoguides_are_taken_before_their_first_call(engine: Engines) -> None:
    """A conjugate model: the trained guide is the exact posterior."""

    def conjugate(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([-1.0, 0.5, 3.0])
    auto = AutoNormal(conjugate)
    ours = engine(conjugate, auto, ELBO(num_particles=8), lr=3e-2)
    for step in range(600):
        ours.optimizer.param_groups[0]["lr"] = 3e-2 * (1 - step / 600)
        ours.step(x)
    torch.testing.assert_close(auto.locs.z.detach(), x / 2, atol=0.1, rtol=0)
    torch.testing.assert_close(auto.scales.z.detach(), torch.full((3,), 0.5**0.5), atol=0.1, rtol=0)
    assert len(ours.trained) == 2 and not list(pyro.get_param_store())
    fresh = AutoNormal(conjugate)
    other = engine(conjugate, fresh, ELBO(num_particles=8))
    other.check(x)
    other.load_state_dict(ours.state_dict())
    assert torch.equal(fresh.locs.z, auto.locs.z)


def test_parameters_out_of_sight_are_refused(x: Tensor) -> None:
    net = nn.Linear(3, 3).double()

    def hidden(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    for engine in (EagerEngine, CompiledEngine):
        with pytest.raises(InputError, match=r"shape \[3(, 3)?\].*Register its module"):
            engine(model, hidden, ELBO()).step(x)
    EagerEngine(model, lambda x: (pyro.module("net", net), hidden(x)), ELBO()).step(x)


def test_the_first_look_changes_no_buffer() -> None:
    program = Normalised()
    ours = EagerEngine(program, pair(nn.Module)[1].float(), ELBO())
    x = (torch.rand(6, 3) < 0.5).float()
    ours.check(x)
    assert int(program.norm.num_batches_tracked) == 0
    ours.step(x)
    expected = Normalised()
    first = EagerEngine(expected, pair(nn.Module)[1].float(), ELBO())
    first.step(x)  # without a check before
    counts = [int(each.norm.num_batches_tracked) for each in (program, expected)]
    assert counts[0] == counts[1] > 0


def test_pyro_params_of_one_name_are_refused() -> None:
    def make() -> PyroModule:
        module = PyroModule()
        module.scale = PyroParam(torch.tensor(1.0), constraints.positive)
        return module

    with pytest.raises(InputError, match="have the name 'scale'"):
        EagerEngine(make(), make(), ELBO())


@ENGINES
@pytest.mark.parametrize(
    "arguments",
    [
        lambda x: (x, x[:, 0]),
        lambda x: {"x": x, "rows": [x[:, 0]]},
        lambda x: (x, 2.0),
        lambda x: (x, None),
    ],
)
def test_any_arguments(engine: Engines, arguments: Callable[[Tensor], Any], x: Tensor) -> None:
    seen = []

    def takes(program: Callable[[Tensor], None]) -> Callable[..., None]:
        def called(*args: Any) -> None:
            first = args[0]
            seen.append(len(args))
            program(first["x"] if isinstance(first, dict) else first)

        return called

    expected = EagerEngine(model, guide, ELBO(), lr=1e-2)
    torch.manual_seed(0)
    losses = [expected.step(x) for _ in range(3)]
    pyro.clear_param_store()
    ours = engine(takes(model), takes(guide), AnyArguments(), lr=1e-2)
    torch.manual_seed(0)
    assert [ours.step(arguments(x)) for _ in range(3)] == pytest.approx(losses, rel=1e-9)
    if isinstance(ours, CompiledEngine):
        count = len(seen)
        ours.step(arguments(x))
        assert len(seen) == count  # the graph ran, not the programs
    ours.step(arguments(x[:5]))
    ours.evaluate_loss(arguments(x))
    assert set(seen) == {len(arguments(x)) if isinstance(arguments(x), tuple) else 1}


class AnyArguments(ELBO):
    """The ELBO of one pair of programs, with any arguments."""

    programs: tuple[Any, Any] | None = None

    def _spread(self, model: Any, guide: Any, args: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        self.args = args
        if self.programs is None:  # the same objects in each step
            self.programs = (lambda _: model(*self.args)), (lambda _: guide(*self.args))
        first = args[0]
        return *self.programs, first["x"] if isinstance(first, dict) else first

    def differentiable_loss(self, model: Any, guide: Any, *args: Any) -> Tensor:
        return super().differentiable_loss(*self._spread(model, guide, args))

    def loss(self, model: Any, guide: Any, *args: Any) -> float:
        return super().loss(*self._spread(model, guide, args))

    def loss_and_grads(self, model: Any, guide: Any, *args: Any) -> float:
        loss = self.differentiable_loss(model, guide, *args)
        loss.backward()
        return loss.item()


def test_another_constant_is_not_taken_for_the_first(x: Tensor) -> None:
    def scaled(x: Tensor, factor: float) -> None:
        model(x * factor)

    losses = []
    for engine in (EagerEngine, CompiledEngine):
        pyro.clear_param_store()
        ours = engine(scaled, lambda x, factor: guide(x), AnyArguments(), lr=1e-2)
        torch.manual_seed(0)
        losses.append([ours.step((x, factor)) for factor in (1.0, 2.0, 1.0, 3.0)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)


def test_a_training_of_functions_is_resumed(tmp_path: Any, x: Tensor) -> None:
    def run(epochs: int, folder: Any) -> list[dict[str, Any]]:
        pyro.clear_param_store()
        return fit(
            EagerEngine(model, guide, ELBO(), lr=1e-2),
            x,
            epochs=epochs,
            batch_size=6,
            callbacks=[Validate(x), Checkpoint(folder)],
            progress=False,
        )

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    expected = run(4, tmp_path / "whole")
    values = {name: value.item() for name, value in pyro.get_param_store().items() if name != "q"}
    run(2, tmp_path / "parts")
    assert run(4, tmp_path / "parts") == expected
    assert values == {name: pyro.param(name).item() for name in values}


def test_guides_without_parameters_do_not_go_first(x: Tensor) -> None:
    engine = EagerEngine(model, guide, ELBO())
    with pytest.raises(InputError, match="cannot be trained first"):
        fit(engine, x, epochs=1, batch_size=6, callbacks=[GuideFirst(x, 1)], progress=False)


class Shifted(priors.Prior):
    """A prior whose mean is no parameter of its module."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()

    def forward(self) -> dist.Distribution:
        return dist.Normal(pyro.param("mu", torch.zeros(2)), 1.0).to_event(1)


def test_diagnoses_use_the_trained_values() -> None:
    vae = VAE(Shifted(2), likelihoods.Bernoulli(2, [3]), posteriors.Normal([3], 2))
    engine = EagerEngine(vae.model, vae.guide, ELBO())
    x = (torch.rand(6, 3) < 0.5).float()
    engine.check(x)
    with torch.no_grad():
        engine.trained[-1].fill_(10.0)
    assert diagnose(engine, x)["kl"] > 50
    assert list(pyro.get_param_store()) == ["mu"]


class Coins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.net(z)).to_event(1), obs=x)


class Normalised(Coins):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> None:
        self.norm(x)
        super().forward(x)


@ENGINES
@pytest.mark.parametrize("bad", [3.0, float("nan"), 0.5])
def test_later_values_outside_the_support_are_refused(engine: Engines, bad: float) -> None:
    ours = engine(Coins(), pair(nn.Module)[1].float(), ELBO(), lr=1e-2)
    good = (torch.rand(6, 3) < 0.5).float()
    for _ in range(3):
        ours.step(good)
        ours.evaluate_loss(good)
    wrong = good.clone()
    wrong[2, 1] = bad
    before = copy.deepcopy(ours.state_dict())
    said = r"site 'x' observes values outside the support.*Boolean\(\)"
    with pytest.raises(InputError, match=said):
        ours.step(wrong)
    with pytest.raises(InputError, match=said):
        ours.evaluate_loss(wrong)
    with pytest.raises(InputError, match=said):
        ours.step(wrong[:4])  # of another size
    for one, other in zip(tree_leaves(before), tree_leaves(ours.state_dict()), strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other
    assert torch.isfinite(torch.tensor(ours.step(good)))
