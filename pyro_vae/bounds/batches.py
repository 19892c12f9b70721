"""Work on examples batch by batch: if it is interrupted, a later call continues it."""

import math
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
from pyro_vae.programs import ranks
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.compiling import CannotCompile, Compiled
from pyro_vae.programs.program_state import noise_key, state_hash
from pyro_vae.programs.random_streams import preserve_rng_state, stream_seed

Results = dict[str, Tensor]

# From this number of decoded pixels on, compiling saves more time than it takes.
WORTH_COMPILING = 2e9

# Of a progress bar, in tqdm's form: counts of whole things have no decimals.
BAR = "{l_bar}{bar}| {n:,.0f}/{total:,.0f} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


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
    count = len(arguments)
    num_batches = max(1, math.ceil(count / max(1, batch_size)))
    rank, size = (ranks.number(), ranks.size()) if ranks.shares_work() else (0, 1)
    own = None if keep is None or size == 1 else _own_file(keep, rank, size)
    parts = _read(keep, state) | _read(own, state)
    done = ranks.gathered([*parts]) if size > 1 else [[*parts]]  # by each rank
    todo = sorted(set(range(num_batches)).difference(*done))[rank::size]
    mine = set(todo)
    bar = tqdm(
        total=units * max(1, count),
        initial=units * sum(len(next(iter(part.values()))) for part in parts.values()),
        mininterval=0.1 if sys.stderr.isatty() else 10,
        unit=unit,
        unit_scale=True,
        bar_format=BAR,
        desc=description or work_name,
        leave=None,  # below another bar it is removed at the end
        disable=not progress or rank > 0,
    )
    validate = pyro.poutine.util.is_validation_enabled()
    saved = time.monotonic()
    with preserve_rng_state(arguments), bar:
        for number, batch in enumerate(arguments.split(batch_size)):
            if number not in mine:
                continue
            torch.manual_seed(stream_seed(seed, number, noise))
            with pyro.validation_enabled(validate and number == 0):  # only the first is validated
                part = work(batch, lambda added: bar.update(added * size))
            parts[number] = {name: value.cpu() for name, value in part.items()}
            if keep is not None and (number == todo[-1] or time.monotonic() - saved > 2):
                _write(own or keep, state, parts)
                saved = time.monotonic()
    if size > 1:
        parts = {number: part for each in ranks.gathered(parts) for number, part in each.items()}
        if keep is not None and rank == 0:
            _write(keep, state, parts)
            for each in range(size):
                _own_file(keep, each, size).unlink(missing_ok=True)
    ordered = [parts[number] for number in range(num_batches)]
    return {name: torch.cat([part[name] for part in ordered]) for name in ordered[0]}


def _own_file(keep: Path, rank: int, ranks_in_all: int) -> Path:
    """Return the file for the results that one of several ranks has so far."""
    return keep.with_name(f"{keep.stem}.{rank}of{ranks_in_all}{keep.suffix}")


def _write(keep: Path, state: str, parts: dict[int, Results]) -> None:
    """Write results by the numbers of their batches."""
    keep.parent.mkdir(exist_ok=True)
    numbers = sorted(parts)
    content = {"about": state, "numbers": numbers, "parts": [parts[each] for each in numbers]}
    checkpoint.save(keep, content)


def _read(keep: Path | None, state: str) -> dict[int, Results]:
    """Return the results of an interrupted call with the same state; none if there are none."""
    if keep is None or not keep.exists():
        return {}
    try:
        content = checkpoint.load(keep)
        if content["about"] != state:
            return {}
        parts = list(content["parts"])
        # Files of older versions have no numbers: their batches are the first ones.
        return dict(zip(content.get("numbers", range(len(parts))), parts, strict=True))
    except (InputError, KeyError, TypeError, ValueError):
        return {}  # the file is damaged, or is not one of ours
