"""Seeds of independent random streams, and a context that restores the global random state."""

import contextlib
from typing import Any

import numpy as np
import torch


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
