"""Streams of random numbers, and the global generators left as they were."""

import contextlib
from typing import Any

import torch
from torch import Tensor


def undisturbed(x: Any) -> contextlib.AbstractContextManager[None]:
    """Leave the global random generators as they were, after what is done with x in between."""
    return torch.random.fork_rng([x.device] if isinstance(x, Tensor) and x.is_cuda else [])
