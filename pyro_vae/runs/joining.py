"""Processes that torchrun starts: they join a group, and the first of them speaks and writes.

torchrun tells each process its place by environment variables. Without them, nothing is done.
"""

import contextlib
import datetime
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyro_vae.errors import InputError, ProcessLost

# How long a process waits for another one that neither answers nor ends. One that ends is noticed
# at once. It has to be longer than the longest step of an evaluation: a batch of 50 examples.
LONGEST_WAIT = datetime.timedelta(hours=1)

SHARED = ("train", "evaluate", "score", "encode", "reconstruct", "impute")  # verbs
_is_joined = False


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

    Errors before the processes join are those of all. Later, when the first one ends, torchrun ends
    the others, so that an error of all is shown once, and that of one process alone by this one.
    That another one is lost is shown by the first two, of which one is still there.
    """
    if isinstance(error, ProcessLost):
        return rank() < 2
    if rank() > 0 and _is_joined:
        time.sleep(3)
    return _is_joined or rank() == 0


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
    global _is_joined
    _is_joined = True
    try:
        yield
    except BaseException:
        if backend == "gloo":  # nccl would wait for the others, and torchrun ends them
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
    _is_joined = False


def going_on(arguments: Sequence[str], out: str | None) -> list[str]:
    """Return the arguments of a training that torchrun has started again: it is resumed.

    Args:
        arguments: the arguments of the command line.
        out: the folder of the run that they name, if they name a new one.
    """
    started_again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if not (started_again and out and (Path(out) / "config.yaml").exists()):
        return list(arguments)
    trust = [argument for argument in arguments if argument.startswith("--trust_code")]
    return ["--resume", out, *trust]
