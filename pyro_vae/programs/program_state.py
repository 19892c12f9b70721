"""Hashes of programs and of all that they depend on.

They serve two purposes. `noise_key` makes the random numbers of a piece of work its own: it is read
from the name of the work and from the modules. `state_hash` decides whether the stored results of
an interrupted call belong to this call. It has to tell apart everything that can change a result,
and it has to be the same in another process, so no address of an object may enter it. What cannot
be read in this way is refused.
"""

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import pyro
import torch
from pyro.nn import PyroSample
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from torch.distributions.constraint_registry import ConstraintRegistry
from torch.distributions.constraints import Constraint
from torch.distributions.utils import lazy_property

from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Shared

_CONSTANTS = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    type(...),
    Path,
    torch.dtype,
    torch.device,
)

# Packages whose classes are known by their names.
_KNOWN_PACKAGES = ("builtins", "torch", "pyro", "abc", "typing")
# Attributes of all modules: their tensors are read by state_dict, and the others change no result.
_OF_MODULES = {
    *(vars(nn.Module()).keys() - {"training"}),
    *("_pyro_name", "_pyro_context", "_pyro_params", "_is_full_backward_hook"),
}


def noise_key(work_name: str, depends_on: Iterable[Any]) -> int:
    """Return a number that, with a seed, determines the random numbers of a piece of work.

    Published numbers depend on this function: what it returns must not change.

    Args:
        work_name: the name of the work.
        depends_on: objects, of which only the modules count.
    """
    digest = hashlib.sha256()
    digest.update(repr(work_name).encode())
    for item in depends_on:
        if isinstance(item, nn.Module):
            digest.update(f"{type(item).__name__} {item.training}".encode())
            for tensor in item.state_dict().values():
                _add_tensor(digest, tensor)
    return int(digest.hexdigest(), 16)


def state_hash(items: Iterable[Any]) -> str:
    """Return a hash of some objects and of all that they depend on.

    A function is known by its code, its default arguments, the variables that it encloses and the
    global variables that it names; functions of other packages are known by their names. A module
    is known by its class, its mode, its tensors, those of its attributes that can be read, and the
    code of its methods, as far as that can be read. Distributions are known by their parameters.
    Partial functions, programs in Pyro's effect handlers, and nests of arguments are known by their
    parts. The hash includes Pyro's parameter store.

    Raises:
        InputError: if the state of an object cannot be read. This is the case for a bound method,
            an instance of an unknown class, and a function that encloses one.
    """
    state = _State()
    for item in items:
        state.add(item)
    state.add(dict(sorted(pyro.get_param_store().get_state()["params"].items())))
    return state.digest.hexdigest()


class _State:
    """Adds objects to a hash, part by part."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.functions: set[FunctionType] = set()
        self.classes: set[type] = set()
        self.open: set[int] = set()  # modules and transforms that are being added

    def add(self, item: Any) -> None:
        """Add an object and its parts. An object within itself, such as an inverse, is named."""
        if isinstance(item, nn.Module | Transform):
            if id(item) in self.open:
                return
            self.open.add(id(item))
        self._add(item)
        if isinstance(item, nn.Module | Transform):
            self.open.discard(id(item))

    def _add(self, item: Any) -> None:
        self.digest.update(f"{type(item).__qualname__}(".encode())
        if isinstance(item, Tensor):
            self.digest.update(f"{item.dtype}".encode())
            _add_tensor(self.digest, item)
        elif isinstance(item, nn.Module):
            self._add_module(item)
        elif isinstance(item, _CONSTANTS):
            self.digest.update(repr(item).encode())
        elif isinstance(item, list | tuple):
            for part in item:
                self.add(part)
        elif isinstance(item, dict):
            for part in item.items():
                self.add(part)
        elif isinstance(item, set | frozenset):
            self.add(sorted(map(repr, item)))
        elif isinstance(item, partial):
            self.add((item.func, item.args, item.keywords))
        elif isinstance(item, ModuleType | type | BuiltinFunctionType):
            self._add_name(item)
        elif isinstance(item, FunctionType):
            self._add_function(item)
        elif isinstance(item, Messenger):
            self.add(vars(item))
        elif isinstance(item, ConstraintRegistry):  # biject_to, which PyTorch fills
            self._add_name(type(item))
        elif isinstance(item, Constraint):
            self._add_name(type(item))
            self.add(sorted(vars(item).items(), key=str))
        elif isinstance(item, Shared):
            self.add(item.value)
        elif isinstance(item, PyroSample):
            self.add(item.prior)
        elif isinstance(item, np.ndarray | np.generic):
            self.digest.update(f"{item.dtype} {item.shape}".encode())
            self.add(item.tolist())
        elif isinstance(item, Distribution):
            self._add_distribution(item)
        elif isinstance(item, Transform):
            self._add_transform(item)
        elif is_dataclass(item):
            self.add([getattr(item, field.name) for field in fields(item)])
        else:
            raise _unknown(item)
        self.digest.update(b")")

    def _add_name(self, item: Any) -> None:
        # A bound method of a built-in class has a state; a function of a built-in module has none.
        if not isinstance(getattr(item, "__self__", None), ModuleType | None):
            raise _unknown(item)
        name = getattr(item, "__qualname__", item.__name__)
        self.digest.update(f"{getattr(item, '__module__', '')}.{name}".encode())

    def _add_module(self, module: nn.Module) -> None:
        for name, part in module.named_modules():
            self.digest.update(f"{name} {type(part).__qualname__} {part.training}".encode())
            for attribute, value in [*vars(part).items(), *part.named_buffers(recurse=False)]:
                if attribute not in _OF_MODULES:
                    self._add_if_readable(attribute, value)
            self._add_class(type(part))
        self.add(dict(module.state_dict()))

    def _add_class(self, cls: type) -> None:
        """Add the methods and the attributes of a class and its bases, outside of torch and Pyro.

        What cannot be read, such as a global variable that a method names, is left out; the
        instructions of all methods are read.
        """
        for base in cls.__mro__:
            if base in self.classes or base.__module__.split(".")[0] in _KNOWN_PACKAGES:
                continue
            self.classes.add(base)
            for name, value in vars(base).items():
                functions = [
                    getattr(value, attribute, None)
                    for attribute in ("__func__", "__wrapped__", "fget", "fset", "func")
                ]
                methods = [f for f in (value, *functions) if isinstance(f, FunctionType)]
                for method in methods:
                    self._add_instructions(method.__code__)
                if methods or not name.startswith("__"):
                    for item in methods or [value]:
                        self._add_if_readable(name, item)

    def _add_instructions(self, code: CodeType) -> None:
        self.digest.update(code.co_code)
        self.digest.update(repr(code.co_names).encode())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._add_instructions(constant)
            else:
                self.add(constant)

    def _add_distribution(self, fn: Distribution) -> None:
        cls = type(fn)
        lazy = {
            name
            for base in cls.__mro__
            for name, value in vars(base).items()
            if isinstance(value, lazy_property)
        }
        names = {name for name in vars(fn) if name not in lazy} | {*fn.arg_constraints}
        self._add_name(cls)
        for name in sorted(names - {"_validate_args"}):
            self.add((name, getattr(fn, name)))

    def _add_transform(self, transform: Transform) -> None:
        self._add_name(type(transform))
        for name, value in sorted(vars(transform).items()):
            if not name.startswith("_cache") and name != "_inv":
                self.add((name, value))
        if type(transform).__name__ == "_InverseTransform":  # it is known by the other direction
            self.add(transform.inv)

    def _add_if_readable(self, name: str, value: Any) -> None:
        state = _State()
        state.functions, state.classes = self.functions, self.classes
        state.open = self.open
        with contextlib.suppress(InputError):
            state.add(value)
            self.digest.update(f"{name} {state.digest.hexdigest()}".encode())

    def _add_function(self, function: FunctionType) -> None:
        self._add_name(function)
        if function not in self.functions:
            self.functions.add(function)
            self.add((function.__defaults__, function.__kwdefaults__))
            for cell in function.__closure__ or ():
                try:
                    enclosed = cell.cell_contents
                except ValueError as error:  # a variable without a value yet
                    raise _unknown(function) from error
                self.add(enclosed)
            self._add_code(function.__code__, function)

    def _add_code(self, code: CodeType, function: FunctionType) -> None:
        """Add the code of a function and of those inside it, and the global variables they name."""
        self._add_instructions(code)
        for name in _names(code):
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType) and _package(value) != _package(function):
                self._add_name(value)
            else:
                self.add(value)


def _add_tensor(digest: Any, tensor: Tensor) -> None:
    digest.update(str(tensor.shape).encode())
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type
        tensor = tensor.reshape(-1).view(torch.int16)
    digest.update(tensor.numpy().tobytes())


def _names(code: CodeType) -> list[str]:
    """Return the names that some code and the code inside it use."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += _names(constant)
    return names


def _package(function: FunctionType) -> str:
    return (function.__module__ or "").split(".")[0]


def _unknown(item: Any) -> InputError:
    return InputError(
        "results are stored for a later call only if all that they depend on can be read: "
        "programs have to be modules, or functions whose variables are tensors, numbers, modules "
        f"or functions, and {item} cannot be read",
        "keep",
    )
