"""Work on examples batch by batch: if it is interrupted, a later call continues it."""

import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae import checkpoint
from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.compiling import CannotCompile, Compiled
from pyro_vae.programs.program_state import noise_key, state_hash
from pyro_vae.programs.random_streams import preserve_rng_state, stream_seed

Results = dict[str, Tensor]

# From this number of decoded pixels on, compiling saves more time than it takes.
WORTH_COMPILING = 2e9


def fastest(
    function: Callable[..., Any],
    *example: Tensor,
    arguments: Arguments,
    pixels: float,
    wanted: bool | None,
) -> Callable[..., Any]:
    """Return the function, compiled if this is requested or saves time, and else unchanged.

    Args:
        function: a function of tensors, and of what the programs are called with.
        example: tensors. With tensors of other shapes the function is called without being
            compiled.
        arguments: what the programs are called with.
        pixels: the number of pixels that all calls together will decode.
        wanted: whether to compile; None decides by the number of pixels.

    Raises:
        InputError: if compiling is requested, and the function cannot be compiled.
    """
    on_gpu = arguments.device.type == "cuda"
    if wanted is False or (wanted is None and (pixels < WORTH_COMPILING or on_gpu)):
        return function
    count = len(example)

    def of_tensors(*tensors: Tensor) -> Any:
        return function(*tensors[:count], arguments.with_tensors(tensors[count:]))

    compiled = Compiled(of_tensors)
    shapes = [tensor.shape for tensor in (*example, *arguments.tensors())]
    try:
        with preserve_rng_state(arguments):
            compiled(*example, *arguments.tensors())
    except CannotCompile as error:
        if wanted:
            raise InputError(f"the programs cannot be compiled: {error}", "compile") from error
        warnings.warn(f"the programs are not compiled, and slower for it: {error}", stacklevel=3)
        return function

    def call(*given: Any) -> Any:
        *tensors, last = given
        tensors = [*tensors, *last.tensors()]
        same = [tensor.shape for tensor in tensors] == shapes
        return compiled(*tensors) if same else function(*given)

    return call


def in_batches(
    work: Callable[[Arguments, Callable[[int], Any]], Results],
    arguments: Arguments,
    *,
    work_name: str,
    batch_size: int,
    seed: int,
    units: int,
    unit: str,
    progress: bool,
    keep: Path | None,
    depends_on: Iterable[Any],
    description: str | None = None,
) -> Results:
    """Do some work on each batch of examples, and concatenate the results.

    Every batch has its own random stream. Its seed is made from `seed`, the number of the batch,
    `work_name`, and the modules in `depends_on`. So a call that continues interrupted work returns
    what the uninterrupted call would have returned, and any two pieces of work have independent
    errors. The global random state is restored.

    Args:
        work: a function that takes the arguments for a batch and a second function, calls the
            second function with the number of units that are done, and returns tensors whose first
            dimension is that of the examples.
        arguments: what the programs are called with, for all examples.
        work_name: the name of the work. It is part of the seed, so another name gives other noise.
        batch_size: the number of examples in a batch; the last batch may be smaller.
        seed: the seed of all noise.
        units: the number of units of progress for each example.
        unit: the name of a unit of progress.
        progress: whether to show a progress bar.
        keep: a file for the results so far. A later call with the same arguments continues from
            it. The file is left there: the caller removes it.
        depends_on: everything else that the results depend on: programs, modules, settings.
        description: the text beside the progress bar; by default `work_name`.

    Returns:
        The results, on the CPU.

    Raises:
        InputError: if `keep` is given, and `depends_on` has a program whose state cannot be read.
    """
    depends_on = list(depends_on)
    noise = noise_key(work_name, depends_on)
    state = (
        ""
        if keep is None
        else state_hash(
            [arguments.args, arguments.kwargs, work_name, batch_size, seed, *depends_on]
        )
    )
    parts = _read(keep, state) if keep is not None else []
    count = len(arguments)
    bar = tqdm(
        total=units * max(1, count),
        initial=units * sum(len(next(iter(part.values()))) for part in parts),
        mininterval=0.1 if sys.stderr.isatty() else 10,
        unit=unit,
        unit_scale=True,
        desc=description or work_name,
        leave=None,  # below another bar it is removed at the end
        disable=not progress,
    )
    validate = pyro.poutine.util.is_validation_enabled()
    saved = time.monotonic()
    with preserve_rng_state(arguments), bar:
        for number, batch in enumerate(arguments.split(batch_size)):
            if number < len(parts):
                continue
            torch.manual_seed(stream_seed(seed, number, noise))
            with pyro.validation_enabled(validate and number == 0):  # only the first is validated
                part = work(batch, bar.update)
            parts.append({name: value.cpu() for name, value in part.items()})
            last = number == max(0, count - 1) // max(1, batch_size)
            if keep is not None and (last or time.monotonic() - saved > 2):
                keep.parent.mkdir(exist_ok=True)
                checkpoint.save(keep, {"about": state, "parts": parts})
                saved = time.monotonic()
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _read(keep: Path, state: str) -> list[Results]:
    """Return the results of an interrupted call with the same state; none if there are none."""
    if not keep.exists():
        return []
    try:
        content = checkpoint.load(keep)
        return list(content["parts"]) if content["about"] == state else []
    except (InputError, KeyError, TypeError):
        return []  # the file is damaged, or is not one of ours
