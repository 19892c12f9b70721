"""Several processes that train or evaluate one model together, by `torch.distributed`.

A process of the group is a rank: `number` is its place, from 0, and `size` is how many there are.
Without a process group there is one rank. Then nothing here communicates, and nothing is changed.

All functions that exchange something have to be called by all ranks, in the same order. If a rank
ends, those that wait for it raise `ProcessLost`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from pyro_vae.errors import ProcessLost


class Share(NamedTuple):
    """The rows of a batch that one rank computes.

    Attributes:
        first: the number of its first row in the batch.
        last: the number of the row after its last one.
        whole: the number of rows of the batch.
        counts: whether they count. If a batch has fewer rows than there are ranks, some ranks
            compute a row of another one, so that all run the same programs, and add nothing.
    """

    first: int
    last: int
    whole: int
    counts: bool = True


_current: Share | None = None  # of the batch that is computed now
_together = False


def size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Return the number of this rank, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Return whether this is rank 0, which alone writes files and speaks."""
    return number() == 0


def share_of(count: int) -> Share | None:
    """Return this rank's share of a batch; None if there is one rank.

    The shares follow each other in the order of the ranks, and differ by at most one row.

    Args:
        count: the number of rows of the batch, 1 or more.
    """
    ranks, rank = size(), number()
    if ranks == 1:
        return None
    first, last = count * rank // ranks, count * (rank + 1) // ranks
    if first == last:
        first = min(first, count - 1)
        return Share(first, first + 1, count, counts=False)
    return Share(first, last, count)


@contextlib.contextmanager
def computing(share: Share | None) -> Iterator[None]:
    """Let `current` return a share of a batch while its programs run."""
    global _current
    before, _current = _current, share
    try:
        yield
    finally:
        _current = before


def current() -> Share | None:
    """Return which share of a batch is being computed; None if it is a whole batch."""
    return _current


def mean_over_batch(mean: Tensor) -> Tensor:
    """Return the mean over a whole batch, given the mean over this rank's share of it."""
    if _current is None:
        return mean
    rows = (_current.last - _current.first) * _current.counts
    total = mean * (rows / _current.whole)
    add_up([total])
    return total


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let all ranks share work on batches of examples, if it can be shared; see `shares_work`.

    All ranks have to do the same work in this context, and all get the same results.
    """
    global _together
    before, _together = _together, size() > 1
    try:
        yield
    finally:
        _together = before


def shares_work() -> bool:
    """Return whether the ranks share work on batches of examples now."""
    return _together


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their sums over all ranks, in one exchange.

    The sums are the same on all ranks, bit for bit.

    Args:
        tensors: tensors on one device, of the same shapes on all ranks.
    """
    if size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    with _peers():
        dist.all_reduce(flat)
    with torch.no_grad():
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def copy_from_first(tensors: Sequence[Tensor]) -> None:
    """Give tensors the values that they have on rank 0."""
    if size() == 1:
        return
    with _peers(), torch.no_grad():
        for tensor in tensors:
            values = tensor.detach().contiguous()
            dist.broadcast(values, 0)
            tensor.copy_(values)


def from_first(value: Any) -> Any:
    """Return the value that rank 0 has: a number, a text, or some of them."""
    if size() == 1:
        return value
    values = [value]
    with _peers():
        dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
    return values[0]


def gathered(value: Any) -> list[Any]:
    """Return the values of all ranks, in their order; tensors have to be on the CPU."""
    if size() == 1:
        return [value]
    values = [None] * size()
    with _peers():
        dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Wait until all ranks are here."""
    gathered(None)


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """Say in one line that another rank has ended, or does not answer."""
    try:
        yield
    except RuntimeError as error:  # of gloo, and of nccl, whose own types are subclasses of it
        raise ProcessLost(
            f"process {number()} of {size()} has lost another one, which ended or did not answer. "
            "Under torchrun the same command goes on from the last checkpoint, by itself if "
            "torchrun has --max-restarts"
        ) from error
