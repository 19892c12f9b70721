"""Streams of random numbers: seeds of independent streams, and global generators left unchanged."""

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor


def stream_seed(*words: int) -> int:
    """Return the seed of a random stream of its own for each tuple of non-negative integers."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def undisturbed(x: Any) -> contextlib.AbstractContextManager[None]:
    """Restore the global random state on exit: the CPU's, and that of the GPU that x is on."""
    return torch.random.fork_rng([x.device] if isinstance(x, Tensor) and x.is_cuda else [])
