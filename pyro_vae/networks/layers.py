"""Checks of what networks are made of."""

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from pyro_vae.errors import InputError


def activation_named(name: str) -> nn.Module:
    """Return an activation of `torch.nn` by its name."""
    try:
        activation = getattr(nn, name)()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for shape in ((2, 4), (2, 4, 3, 3)):
                if activation(torch.zeros(shape)).shape != shape:
                    raise TypeError("it changes the shape")
    except (
        AttributeError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        UserWarning,
        ValueError,
    ) as error:
        raise InputError(
            f"'{name}' is no activation in torch.nn: choose Tanh, ReLU, SiLU, GELU, ..."
        ) from error
    return activation


def positive(what: str, sizes: Sequence[int]) -> Sequence[int]:
    """Return sizes that are all positive."""
    if min(sizes, default=1) < 1:
        raise InputError(f"{what} have to be positive, and {min(sizes)} is not")
    return sizes
