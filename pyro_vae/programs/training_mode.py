"""The modules in programs: their buffers, and whether they are in training mode."""

import contextlib
from collections.abc import Iterator

from pyro.poutine.messenger import unwrap
from torch import nn

from pyro_vae.programs.traces import Program


@contextlib.contextmanager
def state_restored(*programs: Program) -> Iterator[None]:
    """Restore the buffers of modules on exit: a run in training mode may change them."""
    buffers = [buffer for module in _modules(*programs) for buffer in module.buffers(False)]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


@contextlib.contextmanager
def evaluated(kind: str, *programs: Program) -> Iterator[None]:
    """Put the modules whose class has a name with `kind` in it into evaluation mode."""
    changed = [
        module
        for module in _modules(*programs)
        if module.training and kind in type(module).__name__
    ]
    for module in changed:
        module.training = False
    try:
        yield
    finally:
        for module in changed:
            module.training = True


def _modules(*programs: Program) -> list[nn.Module]:
    return [part for owner in _owners(*programs) for part in owner.modules()]


def _owners(*programs: Program) -> list[nn.Module]:
    """Return the modules of programs, which may be bound methods, or in Pyro's handlers."""
    inner = [unwrap(program) for program in programs]
    owners = [getattr(program, "__self__", program) for program in inner]
    return [owner for owner in owners if isinstance(owner, nn.Module)]


def modes(*programs: Program) -> tuple[bool, ...]:
    """Return for each program that is a module whether it is in training mode."""
    return tuple(owner.training for owner in _owners(*programs))
