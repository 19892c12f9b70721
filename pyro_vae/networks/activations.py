"""Activation functions by name."""

import warnings

import torch
from torch import nn

from pyro_vae.errors import InputError


def activation_named(name: str) -> nn.Module:
    """Return an activation function of `torch.nn` by its class name.

    Raises:
        InputError: if `torch.nn` has no such class, or the class needs arguments, or it does not
            return a tensor of the same shape for vectors and for images.
    """
    try:
        activation = getattr(nn, name)()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for shape in ((2, 4), (2, 4, 3, 3)):
                if activation(torch.zeros(shape)).shape != shape:
                    raise TypeError("it changes the shape")
    except InputError:
        raise
    except (
        AttributeError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        UserWarning,
        ValueError,
    ) as error:
        raise InputError(
            f"'{name}' is not an activation in torch.nn: choose Tanh, ReLU, SiLU, GELU, ...",
            "activation",
        ) from error
    return activation
