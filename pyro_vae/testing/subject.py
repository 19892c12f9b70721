"""The part under test: sentences with its name, and checks that leave no trace."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyro
import torch
from torch import nn

from pyro_vae.programs.random_streams import preserve_rng_state


class Subject:
    """The part under test; it raises the `AssertionError` of a failed check.

    Args:
        make: the class or callable that makes the part.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        while isinstance(make, partial):
            make = make.func
        self.name = getattr(make, "__name__", type(make).__name__)

    def require(self, condition: Any, sentence: str) -> None:
        """Raise an error with the part's name and a sentence, unless a condition holds."""
        if not condition:
            raise AssertionError(f"{self.name}: {sentence}")

    @contextlib.contextmanager
    def during(self, action: str) -> Iterator[None]:
        """Turn any other error into an `AssertionError` that says during which action it came."""
        try:
            yield
        except AssertionError:
            raise
        except Exception as error:
            text = " ".join(str(error).partition("tensor(")[0].split())[:300]
            raise AssertionError(
                f"{self.name}: {action} raised {type(error).__name__}: {text}"
            ) from error


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Run with a seed, an empty Pyro parameter store and Pyro's checks; restore all on exit."""
    with (
        preserve_rng_state(None),
        pyro.get_param_store().scope(),
        pyro.validation_enabled(True),
        torch.enable_grad(),
    ):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def double_by_default() -> Iterator[None]:
    """Make new tensors `float64`: Pyro inverts autoregressive flows in torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def nudge(module: nn.Module) -> None:
    """Move every entry of every trained parameter by 0.1 to 0.2, up or down.

    At their initial values many parts are symmetric, and a parameter that is ignored may not show.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                size = 0.1 + 0.1 * torch.rand_like(parameter)
                parameter.add_(torch.where(torch.rand_like(parameter) < 0.5, -size, size))
