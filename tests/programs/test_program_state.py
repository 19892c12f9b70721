"""What a stored result depends on: told apart in full, equal in another process, or refused."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import ROOT
from pyro import poutine
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn

from pyro_vae import InputError, bounds
from pyro_vae.bounds.densities import prior_of
from pyro_vae.programs.arguments import Shared
from pyro_vae.programs.program_state import noise_key, state_hash

LOC = torch.tensor(0.5)


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(LOC, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def calls_model(x: Tensor) -> None:
    model(x)


def has_parameter(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))


class Program(nn.Module):
    def __init__(self, loc: float = 0.0) -> None:
        super().__init__()
        self.loc = loc
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, self.scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class Instance:
    def __call__(self, x: Tensor) -> None:
        model(x)


def closure(loc: Any) -> Callable[[Tensor], None]:
    def program(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    return program


class WithPyroSample(PyroModule):
    """A Bayesian regression, whose prior is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = PyroSample(lambda self: dist.Normal(0.0, 2.0))
        self.scale = PyroParam(torch.ones(()), dist.constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.weight * x, self.scale), obs=x)


class Named(NamedTuple):
    first: Tensor
    second: str


def bayesian(scale: float, family: type = dist.Normal) -> PyroModule:
    """A linear layer with a prior of its weights."""
    module = PyroModule[nn.Linear](1, 1)
    module.weight = nn.Parameter(torch.zeros(1, 1))
    module.bias = PyroSample(family(torch.zeros(1), scale).to_event(1))
    return module


def with_forward(text: str) -> nn.Module:
    """A module of a class of the same name, with other code."""
    scope: dict[str, Any] = {"nn": nn, "torch": torch, "__name__": "programs_of_a_user"}
    code = f"class Coded(nn.Module):\n    rate = 2.0\n    def forward(self, x):\n        {text}"
    exec(code, scope)
    return scope["Coded"]()


def with_attribute(**attributes: Any) -> Program:
    program = Program()
    vars(program).update(attributes)
    return program


def with_buffer(value: float) -> Program:
    """A program with a buffer that is in no state_dict."""
    program = Program()
    program.register_buffer("spare", torch.tensor(value), persistent=False)
    return program


def prior_with(fn: Any) -> partial[Any]:
    return partial(model, fn)


# Pairs of distributions that differ in one number.
PRIORS = [
    (dist.Bernoulli(torch.tensor(0.2)), dist.Bernoulli(torch.tensor(0.3))),
    (dist.Geometric(torch.tensor(0.2)), dist.Geometric(torch.tensor(0.3))),
    (dist.Binomial(3, torch.tensor(0.2)), dist.Binomial(4, torch.tensor(0.2))),
    (dist.LogNormal(0.0, 1.0), dist.LogNormal(0.0, 2.0)),
    (
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(0, 2)),
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(0, 3)),
    ),
    (
        dist.TransformedDistribution(dist.LogNormal(0.0, 1.0), dist.transforms.ExpTransform().inv),
        dist.TransformedDistribution(
            dist.LogNormal(0.0, 1.0), dist.transforms.SigmoidTransform().inv
        ),
    ),
    (
        dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
        dist.MultivariateNormal(torch.zeros(2), 2 * torch.eye(2)),
    ),
]


PROGRAMS: dict[str, Callable[[], Any]] = {
    "module": Program,
    "function": lambda: model,
    "partial": lambda: partial(Program(), 1, key="a"),
    "prior": lambda: prior_of(Program()),
    "prior of a function": lambda: prior_of(model),
    "mask": lambda: poutine.mask(Program(), mask=torch.tensor([True, False])),
    "condition": lambda: poutine.condition(model, data={"z": torch.ones(2)}),
    "plate": lambda: pyro.plate("particles", 3, dim=-2)(Program()),
    "closure": lambda: closure(1.5),
    "uncondition": lambda: poutine.uncondition(Program()),
    "PyroModule": lambda: bayesian(1.0),
    "random attributes": WithPyroSample,
    "arguments": lambda: [(torch.ones(3), None), {"a": [1, 2.5, Shared(torch.zeros(2))]}],
    "named tuple": lambda: Named(torch.ones(2), "b"),
    "array": lambda: np.arange(3),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_program_made_twice_has_the_same_state(name: str) -> None:
    assert state_hash([PROGRAMS[name]()]) == state_hash([PROGRAMS[name]()])


def test_different_programs_have_different_states() -> None:
    states = [state_hash([make()]) for make in PROGRAMS.values()]
    assert len(set(states)) == len(states)
    pairs = [
        (Program(0.0), Program(1.0)),
        (Program(), Program().eval()),
        (prior_of(Program(0.0)), prior_of(Program(1.0))),
        (poutine.scale(model, scale=2.0), poutine.scale(model, scale=3.0)),
        (poutine.block(model, hide=["z"]), poutine.block(model, hide=["x"])),
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x: x.exp(), lambda x: x.log()),
        (lambda x, y=1: x, lambda x, y=2: x),
        (with_attribute(widths=(1, 2)), with_attribute(widths=(1, 3))),
        (with_attribute(act=torch.tanh), with_attribute(act=torch.relu)),
        (with_buffer(0.0), with_buffer(1.0)),
        (with_attribute(_hidden=1.0), with_attribute(_hidden=2.0)),
        (closure(1.0), closure(2.0)),
        (bayesian(1.0), bayesian(2.0)),
        (bayesian(1.0), bayesian(1.0, dist.Cauchy)),
        (with_forward("return x + 1"), with_forward("return x + 2")),
        (with_forward("return x.exp()"), with_forward("return x.log()")),
        (with_forward("return x + self.rate"), with_forward("return x - self.rate")),
        (nn.Sequential(with_forward("return x")), nn.Sequential(with_forward("return 2 * x"))),
        (Shared(torch.zeros(2)), torch.zeros(2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2).bfloat16(), torch.ones(2).bfloat16()),
        ((torch.zeros(2), None), (None, torch.zeros(2))),
        ([torch.zeros(2), [1.0]], [torch.zeros(2), [2.0]]),
        ({"a": torch.zeros(2)}, {"b": torch.zeros(2)}),
        (np.zeros(2), np.ones(2)),
        *[(prior_with(one), prior_with(other)) for one, other in PRIORS],
    ]
    for first, second in pairs:
        assert state_hash([first]) != state_hash([second])
    before = state_hash([Program()])
    pyro.param("used by a module", torch.ones(2))
    assert state_hash([Program()]) != before


def test_a_sampled_distribution_keeps_its_state() -> None:
    """Attributes that are computed when they are asked for change nothing."""
    for fn, _ in PRIORS:
        before = state_hash([prior_with(fn)])
        fn.log_prob(fn.sample())
        assert state_hash([prior_with(fn)]) == before


def test_what_a_method_names_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A global variable of a method, and the functions that it calls."""

    class Calls(nn.Module):
        def forward(self, x: Tensor) -> None:
            super().train()
            calls_model(x)

    before = state_hash([Calls()])
    assert state_hash([Calls()]) == before
    monkeypatch.setattr(sys.modules[__name__], "LOC", torch.tensor(0.6))
    assert state_hash([Calls()]) != before


def test_unreadable_parts_of_modules_are_left_out() -> None:
    """As before: a module is taken, whatever its methods name."""
    instance = Instance()

    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.other = instance

        def forward(self, x: Tensor) -> None:
            instance(x)

    assert state_hash([Uses()]) == state_hash([Uses()])


def test_results_of_autoguides_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, keep = torch.randn(5), tmp_path / "kept.pt"
    guide = pyro.infer.autoguide.AutoNormal(model)
    guide(x)
    first = bounds.evaluate(model, guide, bounds.Arguments(x=x), 20, keep=keep)

    def drawing(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("draws are made again")

    monkeypatch.setattr("pyro_vae.bounds.importance._log_w", drawing)
    again = bounds.evaluate(model, guide, bounds.Arguments(x=x), 20, keep=keep)
    assert torch.equal(first.elbo.values, again.elbo.values)
    with pytest.raises(AssertionError, match="made again"):
        bounds.evaluate(model, guide, bounds.Arguments(x=x + 1), 20, keep=keep)


def test_global_variables_and_parameters_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a function names, those of the functions that it calls, and Pyro's store."""
    before = [state_hash([program]) for program in (model, calls_model)]
    monkeypatch.setattr(sys.modules[__name__], "LOC", torch.tensor(0.6))
    after = [state_hash([program]) for program in (model, calls_model)]
    assert not set(before) & set(after)
    has_parameter(torch.zeros(2))
    before = [state_hash([has_parameter])]
    with torch.no_grad():
        pyro.param("loc").add_(1)
    assert state_hash([has_parameter]) not in before


@pytest.mark.parametrize(
    "program",
    [
        closure(Instance()),
        Instance(),
        Program().forward,
        prior_of(closure(Instance())),
        partial(closure(Instance()), 2),
        poutine.trace(model),
        [1].append,
    ],
    ids=["closure", "instance", "method", "prior", "partial", "trace", "built-in method"],
)
def test_a_state_that_cannot_be_read_is_refused(program: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="have to be modules") as refused:
        state_hash([program])
    assert refused.value.parameter == "keep"


def test_a_program_in_an_effect_handler_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guide is the model's prior, made anew for each call: no draw is made a second time."""
    x, keep = torch.randn(5), tmp_path / "kept.pt"
    first = bounds.evaluate(Program(), prior_of(Program()), x, 20, keep=keep)

    def drawing(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("draws are made again")

    monkeypatch.setattr("pyro_vae.bounds.importance._log_w", drawing)
    again = bounds.evaluate(Program(), prior_of(Program()), x, 20, keep=keep)
    assert torch.equal(first.elbo.values, again.elbo.values)
    with pytest.raises(AssertionError, match="made again"):
        bounds.evaluate(Program(1.0), prior_of(Program(1.0)), x, 20, keep=keep)


def test_the_state_is_the_same_in_another_process() -> None:
    """Whatever the addresses of objects are, and the order of sets."""
    code = (
        "import test_program_state as t\n"
        "print([t.state_hash([t.PROGRAMS[n](), {'a', 'b'}]) for n in sorted(t.PROGRAMS)])"
    )
    said = set()
    for seed in "12":
        environment = {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/programs'}",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said.add(done.stdout)
    assert len(said) == 1


def test_noise_does_not_change() -> None:
    """Published numbers were drawn with these keys."""
    torch.manual_seed(0)
    module = nn.Linear(1, 1)
    with torch.no_grad():
        module.weight.fill_(1.0)
        module.bias.fill_(2.0)
    keys = [noise_key("bounds", []), noise_key("annealing", [model, module, "data"])]
    assert [key % 10**9 for key in keys] == [95603542, 778985987]
    assert noise_key("bounds", [module]) != noise_key("bounds", [module.eval()])
