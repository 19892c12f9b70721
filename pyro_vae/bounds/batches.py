"""Work on examples, batch by batch, that can be interrupted and goes on where it stopped."""

import hashlib
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyro_vae import checkpoint
from pyro_vae.errors import InputError
from pyro_vae.programs.compiling import CannotCompile, Compiled
from pyro_vae.programs.random_streams import stream_seed, undisturbed

Results = dict[str, Tensor]


WORTH_COMPILING = 2e9  # pixels decoded, over all draws: where it takes more seconds than compiling


def fastest(
    function: Callable[..., Any], *example: Tensor, pixels: float, wanted: bool | None
) -> Callable[..., Any]:
    """Return a function compiled, if that is wanted, or pays, and can be; as it is otherwise.

    Args:
        function: of tensors.
        example: its arguments; for those of other shapes it is not compiled anew.
        pixels: how many will be decoded in all calls together.
        wanted: whether to compile; None leaves it to the number of pixels.

    Raises:
        InputError: if it was wanted, and cannot be.
    """
    if wanted is False or (wanted is None and (pixels < WORTH_COMPILING or example[0].is_cuda)):
        return function
    compiled = Compiled(function)
    shapes = [argument.shape for argument in example]
    try:
        with undisturbed(example[0]):
            compiled(*example)
    except CannotCompile as error:
        if wanted:
            raise InputError(f"the programs cannot be compiled: {error}") from error
        warnings.warn(f"not compiled, and slower for it: {error}", stacklevel=3)
        return function

    def call(*arguments: Tensor) -> Any:
        same = [argument.shape for argument in arguments] == shapes
        return (compiled if same else function)(*arguments)

    return call


def in_batches(
    work: Callable[[Tensor, Callable[[int], Any]], Results],
    x: Tensor,
    *,
    batch_size: int,
    seed: int,
    units: int,
    unit: str,
    description: str,
    progress: bool,
    keep: Path | None,
    depends_on: Iterable[Any],
) -> Results:
    """Do some work on each batch of examples, and put the results together.

    Every batch draws from a random stream of its own, made from the seed, its number, and what is
    done: what was interrupted and goes on gives what it would have given, and any two pieces of
    work are independent. The global generators stay as they were.

    Args:
        work: called with a batch, and with a function to be told of progress; returns tensors whose
            first dimension is the examples'.
        x: the examples, along the first dimension.
        batch_size: how many examples there are in a batch; the last may be smaller.
        seed: of all noise.
        units: of progress, for each example.
        unit: what they are called.
        description: of the work, for the progress bar.
        progress: whether to show one.
        keep: a file for the results so far, from which an interrupted call goes on; it stays there,
            for the caller to remove.
        depends_on: what else the results depend on: modules, and all that `repr` tells apart.

    Returns:
        The results, on the CPU.

    Raises:
        InputError: if results are to be kept, and depend on functions whose state is not known.
    """
    parts: list[Results] = []
    depends_on = list(depends_on)
    # Other work, and other modules, draw other noise: their errors are independent.
    noise = _fingerprint([description, *(d for d in depends_on if isinstance(d, nn.Module))])
    about = _fingerprint([x, batch_size, seed, noise, *depends_on])
    if keep is not None:
        for program in depends_on:
            if getattr(program, "__closure__", None) or hasattr(program, "__self__"):
                raise InputError(
                    f"to go on with what was kept, programs have to be modules: {program} is not"
                )
        if keep.exists():
            parts = _kept(keep, about)
    bar = tqdm(
        total=units * len(x),
        initial=units * sum(len(next(iter(part.values()))) for part in parts),
        mininterval=0.1 if sys.stderr.isatty() else 10,
        unit=unit,
        unit_scale=True,
        desc=description,
        disable=not progress,
    )
    checks = pyro.poutine.util.is_validation_enabled()
    saved = time.monotonic()
    with undisturbed(x), bar:
        for number, batch in enumerate(x.split(batch_size)):
            if number < len(parts):
                continue
            torch.manual_seed(stream_seed(seed, number, int(noise, 16)))
            with pyro.validation_enabled(checks and number == 0):  # Pyro's checks, once
                part = work(batch, bar.update)
            parts.append({name: value.cpu() for name, value in part.items()})
            last = number == (len(x) - 1) // batch_size
            if keep is not None and (last or time.monotonic() - saved > 2):
                keep.parent.mkdir(exist_ok=True)
                checkpoint.save(keep, {"about": about, "parts": parts})
                saved = time.monotonic()
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _kept(keep: Path, about: str) -> list[Results]:
    """Return the results that an interrupted call left, if it was this one."""
    try:
        state = checkpoint.load(keep)
        return list(state["parts"]) if state["about"] == about else []
    except (InputError, KeyError, TypeError):
        return []  # whatever the file is, it is nothing to go on from


def _fingerprint(everything: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for item in everything:
        if isinstance(item, partial):
            item = _fingerprint([item.func, *item.args, *sorted(item.keywords.items())])
        elif isinstance(item, tuple):
            item = _fingerprint(item)
        if isinstance(item, nn.Module):
            digest.update(f"{type(item).__name__} {item.training}".encode())
            tensors = list(item.state_dict().values())
        elif isinstance(item, Tensor):
            tensors = [item]
        else:
            # A function's address changes; those that have a state are refused above.
            digest.update(getattr(item, "__qualname__", repr(item)).encode())
            tensors = []
        for tensor in tensors:
            digest.update(str(tensor.shape).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
