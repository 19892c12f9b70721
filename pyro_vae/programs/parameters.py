"""The parameters that Pyro programs use, and the store in which Pyro keeps them.

Pyro keeps all parameters by name in one global store. There, two modules that register parameters
of one name are mixed up: the second gets the values of the first, or is not trained. In an
`OwnParameters` scope each module has its own parameters, whatever their names are. All others, made
by `pyro.param` from a value, are in Pyro's store as usual, so that a program finds the trained
values wherever it runs.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyro
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger, unwrap
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae.errors import InputError

_REAL = type(constraints.real)


class Function(nn.Module):
    """A program that is no module, as a module.

    The parameters of a bound method, or of a module in Pyro's effect handlers, are those of the
    module. Other functions have no parameters of their own.

    Args:
        program: a callable Pyro program.
    """

    def __init__(self, program: Callable[..., Any]) -> None:
        super().__init__()
        inner = unwrap(program)
        inner = getattr(inner, "__self__", inner)
        self.inner = inner if isinstance(inner, nn.Module) else None
        vars(self)["forward"] = program  # keeps the signature


def as_module(program: Callable[..., Any]) -> nn.Module:
    """Return a program that is a module unchanged, and any other as a `Function`."""
    return program if isinstance(program, nn.Module) else Function(program)


class OwnParameters(Messenger):
    """Runs programs with their own parameters, and finds out which ones they use.

    Args:
        programs: programs that are modules.

    Attributes:
        changed: whether a parameter has been used that `others` has not returned yet, or has been
            replaced in Pyro's store.

    Raises:
        InputError: at the start, or in a scope, if two parameters of one name cannot be told apart.
    """

    def __init__(self, *programs: nn.Module) -> None:
        super().__init__()
        self.programs = programs
        self.changed = True
        self._of_modules: dict[str, Any] = {"params": {}, "constraints": {}}
        self._names: dict[str, None] = {}  # in the order of their first use
        self._registered: dict[str, nn.Parameter] = {}
        self._others: dict[str, Tensor] = {}
        self.check_names()

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Run programs inside this context.

        Pyro's store keeps what it had, and gets the parameters that `pyro.param` makes from values.
        Those of modules are not left in it.
        """
        self.notice_replaced()
        store = pyro.get_param_store()
        before = store.get_state()
        state = _without_modules(before)
        for part in ("params", "constraints"):
            state[part].update(self._of_modules[part])
        with store.scope(state), self:
            yield
        made = _without_modules(state)
        for name in made["params"]:
            if isinstance(before["params"].get(name), nn.Parameter):
                raise InputError(
                    f"Pyro's store has the parameter '{name}' of another module: call "
                    "pyro.clear_param_store() first"
                )
        store.set_state(made)
        self._of_modules = {
            part: {name: state[part][name] for name in state[part].keys() - made[part].keys()}
            for part in state
        }

    def notice_replaced(self) -> None:
        """Set `changed` if Pyro's store has other parameters by now. Call this outside a scope."""
        made = {n: p for n, p in self._others.items() if not isinstance(p, nn.Parameter)}
        if made:
            stored = dict(pyro.get_param_store().named_parameters())
            self.changed |= any(stored.get(name) is not value for name, value in made.items())

    def others(self) -> dict[str, Tensor]:
        """Return the parameters, used so far, that are not parameters of the programs' modules.

        Call this inside a scope. A parameter with a constraint is returned without it, as it is
        trained. They are in the order of their first use.
        """
        if self.changed:
            self.check_names()
            of_modules = self._module_parameters()
            values = {**self._others, **dict(pyro.get_param_store().named_parameters())}
            used = {name: values[name] for name in self._names if name in values}
            self._others = {n: p for n, p in used.items() if p not in of_modules}
            self.changed = False
        return self._others

    def check_names(self) -> None:
        """Refuse two parameters of `PyroModule`s that Pyro would take for one.

        Raises:
            InputError: if a `PyroParam` has the same name as another attribute.
        """
        seen: dict[str, tuple[Tensor, bool]] = {}
        for module in _all_modules(self.programs):
            if not isinstance(module, PyroModule):
                continue
            for attribute, value in module.named_parameters(recurse=False):
                constrained = attribute.removesuffix("_unconstrained")
                is_pyro_param = constrained in module._pyro_params
                short = constrained if is_pyro_param else attribute
                name = f"{module._pyro_name}.{short}" if module._pyro_name else short
                other, other_is_pyro_param = seen.setdefault(name, (value, is_pyro_param))
                if other is not value and (is_pyro_param or other_is_pyro_param):
                    raise InputError(
                        f"two PyroParams of the model and the guide have the name '{name}', and "
                        "Pyro would give both the same value: rename one of them"
                    )

    def _module_parameters(self) -> set[Tensor]:
        return {parameter for program in self.programs for parameter in program.parameters()}

    def _pyro_param(self, message: Any) -> None:
        name, (_, *rest), options = message["name"], message["args"], message["kwargs"]
        initial = rest[0] if rest else options.get("init_tensor")
        if name not in self._names:
            self._names[name] = None
            self.changed = True
        if self._registered.get(name) is initial or not isinstance(initial, nn.Parameter):
            return
        if not isinstance(options.get("constraint", constraints.real), _REAL):
            return
        if not initial.is_contiguous():  # the store would copy it and train the copy
            initial.data = initial.data.contiguous()
        store = pyro.get_param_store()
        if name in store and store[name] is not initial:
            if initial not in self._module_parameters():
                raise InputError(
                    f"the programs give two parameters the name '{name}', and only one of them "
                    "would be trained: give them different names, and make each only once"
                )
            del store[name]  # Pyro then stores the module's own parameter
        self._registered[name] = initial


def _all_modules(programs: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yield each module of the programs once."""
    seen: dict[nn.Module, None] = {}
    for program in programs:
        seen.update(dict.fromkeys(program.modules()))
    yield from seen


def _without_modules(state: Any) -> dict[str, Any]:
    """Return the part of a store's state that `pyro.param` made from values."""
    names = [n for n, value in state["params"].items() if not isinstance(value, nn.Parameter)]
    return {part: {name: state[part][name] for name in names} for part in state}


def leaves(result: Tensor) -> list[Tensor]:
    """Return the tensors, such as parameters, that a result can be differentiated by."""
    found: dict[Tensor, None] = {}
    seen: set[Any] = set()
    waiting: list[Any] = [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            found[node.variable] = None
        waiting += [following for following, _ in node.next_functions]
    return list(found)
