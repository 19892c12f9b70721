"""What a stored result depends on: told apart in full, equal in another process, or refused."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import ROOT
from pyro import poutine
from torch import Tensor, nn

from pyro_vae import InputError, bounds
from pyro_vae.bounds.densities import prior_of
from pyro_vae.bounds.program_state import noise_key, state_hash

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


def closure(loc: float) -> Callable[[Tensor], None]:
    def program(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    return program


def with_attribute(**attributes: Any) -> Program:
    program = Program()
    vars(program).update(attributes)
    return program


def with_buffer(value: float) -> Program:
    """A program with a buffer that is in no state_dict."""
    program = Program()
    program.register_buffer("spare", torch.tensor(value), persistent=False)
    return program


PROGRAMS: dict[str, Callable[[], Any]] = {
    "module": Program,
    "function": lambda: model,
    "partial": lambda: partial(Program(), 1, key="a"),
    "prior": lambda: prior_of(Program()),
    "prior of a function": lambda: prior_of(model),
    "mask": lambda: poutine.mask(Program(), mask=torch.tensor([True, False])),
    "condition": lambda: poutine.condition(model, data={"z": torch.ones(2)}),
    "plate": lambda: pyro.plate("particles", 3, dim=-2)(Program()),
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
    ]
    for first, second in pairs:
        assert state_hash([first]) != state_hash([second])
    before = state_hash([Program()])
    pyro.param("used by a module", torch.ones(2))
    assert state_hash([Program()]) != before


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
        closure(1.0),
        Instance(),
        Program().forward,
        prior_of(closure(1.0)),
        partial(closure(1.0), 2),
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

    monkeypatch.setattr("pyro_vae.bounds.importance.log_weights", drawing)
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
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/bounds'}",
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
