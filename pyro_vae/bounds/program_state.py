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

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_vae.errors import InputError

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

    A module is known by its class, its mode, its tensors, and those of its public attributes that
    can be read. The code of its `forward` is not read. A function is known by its code, its default
    arguments and the global variables that it names, in the same way; functions of other packages
    are known by their names.
    Partial functions and programs in Pyro's effect handlers are known by their parts. The hash
    includes Pyro's parameter store.

    Raises:
        InputError: if the state of an object cannot be read. This is the case for a function with
            a closure, a bound method, and an instance of an unknown class.
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

    def add(self, item: Any) -> None:
        """Add an object and its parts."""
        self.digest.update(f"{type(item).__qualname__}(".encode())
        if isinstance(item, Tensor):
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
                if not attribute.startswith("_"):
                    self._add_if_readable(attribute, value)
        self.add(dict(module.state_dict()))

    def _add_if_readable(self, name: str, value: Any) -> None:
        state = _State()
        state.functions = self.functions
        with contextlib.suppress(InputError):
            state.add(value)
            self.digest.update(f"{name} {state.digest.hexdigest()}".encode())

    def _add_function(self, function: FunctionType) -> None:
        if function.__closure__:
            raise _unknown(function)
        self._add_name(function)
        if function not in self.functions:
            self.functions.add(function)
            self.add((function.__defaults__, function.__kwdefaults__))
            self._add_code(function.__code__, function)

    def _add_code(self, code: CodeType, function: FunctionType) -> None:
        """Add the code of a function, or of one inside it, and the global variables it names."""
        self.digest.update(code.co_code)
        self.add(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._add_code(constant, function)
            else:
                self.add(constant)
        for name in code.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType) and _package(value) != _package(function):
                self._add_name(value)
            else:
                self.add(value)


def _add_tensor(digest: Any, tensor: Tensor) -> None:
    digest.update(str(tensor.shape).encode())
    digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())


def _package(function: FunctionType) -> str:
    return (function.__module__ or "").split(".")[0]


def _unknown(item: Any) -> InputError:
    return InputError(
        f"results are stored for a later call only if all that they depend on can be read: "
        f"programs have to be modules, or functions without a closure, and {item} is neither",
        "keep",
    )
