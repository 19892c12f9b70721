"""Parameters of programs: each module has its own, and Pyro's store keeps the others."""

from typing import Any

import pyro
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae import InputError
from pyro_vae.programs.parameters import Function, OwnParameters, as_module, leaves


class Net(nn.Module):
    """Registers a layer under a name that others may have, too."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.constant_(self.layer.weight, value)

    def forward(self) -> Tensor:
        pyro.module("net", self.layer)
        return pyro.param("net$$$weight")


class Constrained(PyroModule):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.scale = PyroParam(torch.tensor(value), constraints.positive)

    def forward(self) -> Tensor:
        return self.scale


def shared() -> Tensor:
    return pyro.param("shared", torch.tensor(3.0), constraint=constraints.positive)


def test_modules_with_one_name_have_their_own_parameters() -> None:
    programs = Net(1.0), Net(2.0)
    own = OwnParameters(*programs)
    for _ in range(2):
        with own.scope():
            assert [program().item() for program in programs] == [1.0, 2.0]
            assert own.others() == {}
    assert not list(pyro.get_param_store())


def test_stale_entries_of_the_store_are_not_used() -> None:
    """An earlier module of the same name, run outside, has left its values."""
    Constrained(5.0)()
    Net(5.0)()
    before = dict(pyro.get_param_store().named_parameters())
    programs = Net(1.0), Constrained(2.0)
    with OwnParameters(*programs).scope():
        assert [program().item() for program in programs] == pytest.approx([1.0, 2.0])
    assert dict(pyro.get_param_store().named_parameters()) == before


def test_values_made_by_pyro_param_stay_in_the_store() -> None:
    module = Function(shared)
    own = OwnParameters(module)
    with own.scope():
        module()
        (value,) = own.others().values()
    assert list(pyro.get_param_store()) == ["shared"]
    assert dict(pyro.get_param_store().named_parameters())["shared"] is value
    with torch.no_grad():
        value.fill_(0.0)  # without its constraint
    assert shared().item() == 1.0
    assert not own.changed
    pyro.clear_param_store()
    own.notice_replaced()
    assert own.changed
    with own.scope():
        assert module().item() == pytest.approx(3.0)
        assert own.others()["shared"] is not value


def test_what_is_not_used_is_not_found() -> None:
    pyro.param("another", torch.ones(1))
    own = OwnParameters(as_module(shared))
    with own.scope():
        own.programs[0]()
        assert list(own.others()) == ["shared"]


def test_names_that_pyro_would_confuse_are_refused() -> None:
    for other in (Constrained(2.0), PyroModule()):
        if not isinstance(other, Constrained):
            other.scale = nn.Parameter(torch.tensor(1.0))
        with pytest.raises(InputError, match=r"have the name 'scale'.*rename one of them"):
            OwnParameters(Constrained(1.0), other)
    inner = PyroModule()
    inner.part = Constrained(2.0)
    OwnParameters(Constrained(1.0), inner)  # its name is part.scale


def test_functions_that_use_one_name_twice_are_refused() -> None:
    nets = nn.Linear(1, 1), nn.Linear(1, 1)
    own = OwnParameters(*(as_module(lambda net=net: pyro.module("net", net)) for net in nets))
    with pytest.raises(InputError, match=r"two parameters the name 'net\$\$\$weight'"), own.scope():
        for program in own.programs:
            program()


def test_a_name_of_another_module_in_the_store_is_refused() -> None:
    pyro.param("shared", nn.Parameter(torch.tensor(1.0)))
    own = OwnParameters(as_module(shared))
    with pytest.raises(InputError, match=r"pyro\.clear_param_store"), own.scope():
        own.programs[0]()


def test_parameters_of_closures_are_found() -> None:
    net = nn.Linear(1, 1)
    own = OwnParameters(as_module(lambda: pyro.module("net", net)))
    for _ in range(2):
        with own.scope():
            own.programs[0]()
            assert list(map(id, own.others().values())) == list(map(id, net.parameters()))
    assert not list(pyro.get_param_store())


def test_functions_as_modules() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(1, 1)

        def model(self, size: int = 1) -> int:
            return size

    both = Both()
    assert as_module(both) is both
    for program in (both.model, pyro.poutine.block(both)):
        assert set(as_module(program).parameters()) == set(both.parameters())
        as_module(program).eval()
        assert not both.net.training
        both.train()
    assert as_module(both.model)(size=3) == 3
    assert not list(as_module(shared).parameters())


def test_leaves_of_a_result() -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, value: Tensor) -> Tensor:
            return 2 * value

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:
            return 2 * gradient

    used, fixed, detached = torch.ones(2), torch.ones(2), torch.ones(2)
    used.requires_grad_()
    detached.requires_grad_()
    found = leaves((Doubled.apply(used.exp()) * fixed + used + detached.detach()).sum())
    assert len(found) == 1 and found[0] is used
    assert leaves(torch.ones(1)) == []
