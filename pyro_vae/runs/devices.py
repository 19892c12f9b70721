"""The device that a user names."""

import torch

from pyro_vae.errors import InputError


def find_device(name: str) -> torch.device:
    """Return a device by its name; `auto` is a GPU if there is one.

    Raises:
        InputError: if a GPU is named, and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("there is no GPU that torch can use: choose cpu or auto", "device")
    return torch.device(name)
