"""Processes that torchrun starts: they join a group, and the first of them speaks and writes.

torchrun tells each process its place by environment variables. Without them, nothing is done.
"""

import contextlib
import datetime
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pyro_vae.errors import InputError, ProcessLost

# How long a process waits for another one that neither answers nor ends. One that ends is noticed
# at once. In an evaluation, processes wait for each other only at the end: one may be hours faster.
LONGEST_WAIT = datetime.timedelta(days=2)

SHARED = ("train", "evaluate", "score", "encode", "reconstruct", "impute")  # verbs
MADE = "pyro_vae made the folder"  # a name in the store of a job
_store: Any = None  # what all processes of a job can read and write, once they are joined


def rank() -> int:
    """Return the place of this process among those that torchrun has started; 0 without it."""
    return int(os.environ.get("RANK", "0")) if _size() > 1 else 0


def _size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def check(verb: str) -> None:
    """Refuse several processes for a verb whose work is not shared.

    Raises:
        InputError: if torchrun has started several.
    """
    if _size() > 1 and verb not in SHARED:
        raise InputError(
            f"{verb} is the work of one process, and torchrun has started {_size()}: leave "
            "torchrun out"
        )


def speaks(error: BaseException) -> bool:
    """Return whether this process shows an error; it lets the first process speak first.

    Errors before the processes join are those of all, and the first one shows them. Later, the
    others wait: the first one shows its own error, or that of the process that it has lost, and
    ends, and then torchrun ends the others. That another one is lost is shown by the first two, of
    which one is still there.
    """
    if isinstance(error, ProcessLost):
        return rank() < 2
    is_joined = _store is not None
    if rank() > 0 and is_joined:
        time.sleep(3)
    return is_joined or rank() == 0


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the group of processes that torchrun has started; without torchrun do nothing.

    Raises:
        InputError: if there are fewer GPUs than processes on this machine.
    """
    if _size() < 2:
        yield
        return

    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        here, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if here >= there:
            raise InputError(
                f"there are more processes than GPUs on this machine, which has {there}: give "
                f"torchrun --nproc_per_node {there}"
            )
        torch.cuda.set_device(here)
        backend = "cpu:gloo,cuda:nccl"
    # torchrun has one store for all attempts, and PyTorch would read the addresses of the processes
    # of the last attempt in it (pytorch/pytorch#135712): each attempt has names of its own.
    store, place, count = next(dist.rendezvous("env://", timeout=LONGEST_WAIT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own_names = dist.PrefixStore(f"pyro_vae attempt {attempt}", store)
    dist.init_process_group(
        backend, store=own_names, rank=place, world_size=count, timeout=LONGEST_WAIT
    )
    global _store
    _store = store
    try:
        yield
    except BaseException as error:
        shown = _reason(error, f"pyro_vae attempt {attempt} ended")
        if backend == "gloo":  # nccl would wait for the others, and torchrun ends them
            dist.destroy_process_group()
        if shown is error:
            raise
        raise shown from error
    dist.destroy_process_group()
    _store = None


def _reason(error: BaseException, name: str) -> BaseException:
    """Leave an error to the other processes; return theirs if this one has only lost them.

    Args:
        error: the error of this process.
        name: that of the error in the store.
    """
    with contextlib.suppress(RuntimeError):  # the store may be lost, too
        if not isinstance(error, ProcessLost):
            if isinstance(error, (InputError, OSError)):
                _store.set(name, str(error))
        elif _store.check([name]):
            return InputError(_store.get(name).decode())
    return error


def remember_made(folder: Path) -> None:
    """Remember that this job of torchrun has made the folder of a run."""
    if _store is not None and rank() == 0:
        _store.set(MADE, str(folder))


def made_before() -> Path | None:
    """Return the folder that this job has made before torchrun started its processes again.

    Other runs are not resumed by a restart.
    """
    made = _store is not None and _store.check([MADE])
    return Path(_store.get(MADE).decode()) if made else None


def going_on(arguments: Sequence[str], folder: Path) -> list[str]:
    """Return the arguments of a training that goes on in the folder that it has made.

    Args:
        arguments: the arguments with which it was started.
        folder: that folder.
    """
    kept = [each for each in arguments if each.startswith(("--trust_code", "--quiet"))]
    return ["--resume", str(folder), *kept]
