"""The device that a user names, and what a processor can do."""

import functools
import math
import re
import time

import torch

from pyro_vae.errors import InputError


def find_device(name: str) -> torch.device:
    """Return a device by its name; `auto` is a GPU if there is one.

    Raises:
        InputError: if a GPU is named that is not there, or the name is another.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "mps" or name.startswith("mps:"):
        raise InputError("mps has no float64, which the bounds need: choose cpu or auto", "device")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if not match:
        raise InputError(
            f"there is no device {name}: choose auto, cpu, cuda, or cuda:1 for the second GPU",
            "device",
        )
    if name != "cpu" and not torch.cuda.is_available():
        raise InputError("there is no GPU that torch can use: choose cpu or auto", "device")
    if match[1] and int(match[1]) >= (count := torch.cuda.device_count()):
        raise InputError(f"there is no {name}: torch can use {count} GPUs, from cuda:0", "device")
    return torch.device(name)


@functools.cache
def speed_of_bfloat16() -> float:
    """Return how many times as fast this processor multiplies matrices in bfloat16 as in float32.

    It is measured once in a process. To know the instructions of a processor is not enough: two
    that have those for bfloat16 differ.
    """
    times = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(4):  # in turn, and the best of each: the machine may be busy
        for dtype in times:
            x, weight = torch.ones(200, 784, dtype=dtype), torch.ones(784, 300, dtype=dtype)
            start = time.perf_counter()
            y = x @ weight
            x.mT @ y, y @ weight.mT  # as the gradients
            times[dtype] = min(times[dtype], time.perf_counter() - start)
    return times[torch.float32] / times[torch.bfloat16]
