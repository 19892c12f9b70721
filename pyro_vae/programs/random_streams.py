"""Seeds of independent random streams, and a context that restores the global random state."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def stream_seed(*words: int) -> int:
    """Return a seed for a random stream; different words give independent streams.

    Args:
        words: non-negative integers that name the stream, the run's seed and the epoch for example.
    """
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def preserve_rng_state(x: Any) -> contextlib.AbstractContextManager[None]:
    """Restore the global random state on exit: that of the CPU, and of the GPU that holds x.

    Args:
        x: a tensor, or anything else that has a device.
    """
    device = getattr(x, "device", None)
    on_gpu = isinstance(device, torch.device) and device.type == "cuda"
    return torch.random.fork_rng([device] if on_gpu else [])


def rng_state(x: Any) -> list[Tensor]:
    """Return the global random state: that of the CPU, and of the GPU that holds x."""
    device = getattr(x, "device", None)
    if isinstance(device, torch.device) and device.type == "cuda":
        return [torch.get_rng_state(), torch.cuda.get_rng_state(device)]
    return [torch.get_rng_state()]


def set_rng_state(x: Any, state: Sequence[Tensor]) -> None:
    """Set the global random state to what `rng_state` returned, for x on the same device."""
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1], x.device)
