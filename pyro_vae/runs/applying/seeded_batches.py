"""Rows that are handled some at a time, each batch with a seed of its own."""

import contextlib
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs import ranks
from pyro_vae.programs.random_streams import preserve_rng_state, stream_seed

BATCH = 500  # rows that are encoded, decoded or drawn at once


def in_batches(
    work: Callable[[Tensor], Any], x: Tensor, seed: int, first_batch: int = 0
) -> list[Any]:
    """Return what a function returns for some rows at a time.

    In `ranks.together()` the batches are dealt out, and all ranks have the results, on the CPU.

    Args:
        work: the function. It returns a tensor, or a tuple of tensors and numbers.
        x: the rows, shape [N, ..].
        seed: the seed, from which those of the batches are made.
        first_batch: the number of the first batch.
    """
    check_seed(seed, "seed")
    rank, size = (ranks.number(), ranks.size()) if ranks.shares_work() else (0, 1)
    results = {}
    with torch.no_grad(), preserve_rng_state(x), own_store():
        for number, part in enumerate(x.split(BATCH), first_batch):
            if number % size == rank:
                torch.manual_seed(stream_seed(seed, number))
                results[number] = work(part)
    if size > 1:
        own = {number: _on_cpu(result) for number, result in results.items()}
        results = {number: each for part in ranks.gathered(own) for number, each in part.items()}
    return [results[number] for number in sorted(results)]


def _on_cpu(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_on_cpu(each) for each in result)
    return result.cpu() if isinstance(result, Tensor) else result


def own_store() -> contextlib.AbstractContextManager[Any]:
    """Let programs register their parameters where the user's store of Pyro does not see it."""
    store: contextlib.AbstractContextManager[Any] = pyro.get_param_store().scope()
    return store


def check_seed(seed: int, name: str) -> None:
    """Refuse numbers that cannot be seeds.

    Raises:
        InputError: with the name of the argument.
    """
    if not 0 <= seed < 2**64:
        raise InputError(f"{name} has to be between 0 and 2**64 - 1, but is {seed}", name)
