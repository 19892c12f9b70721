"""The device that a user names, and what a processor can do."""

import re
from pathlib import Path

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


def multiplies_bfloat16() -> bool:
    """Return whether the processor says that it has instructions for products of bfloat16.

    Linux is asked. Elsewhere the answer is no.
    """
    file = Path("/proc/cpuinfo")
    words = set(file.read_text().split()) if file.exists() else set()
    return not words.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))  # the last is of ARM
