"""Examples that are drawn from a model: any number of them, some at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Kind, column_names
from pyro_vae.runs.applying.decoding import draw_examples
from pyro_vae.runs.applying.new_rows import stored_conditions
from pyro_vae.runs.applying.own_form import in_own_form
from pyro_vae.runs.applying.seeded_batches import BATCH, check_seed, in_batches
from pyro_vae.runs.data_form import DataForm
from pyro_vae.vae import VAE


def drawn_in_parts(
    vae: VAE,
    form: DataForm,
    device: torch.device,
    given: Tensor,
    temperature: float,
    seed: int,
    size: int,
    first: int,
) -> Iterator[Any]:
    """Yield the examples, in the data's own form, some at a time; see `Trained.samples`.

    Args:
        vae: the model.
        form: the form of the run's data.
        device: where the model is.
        given: what `conditions` returned.
        temperature: the factor of the deviations of p(z) from its mean.
        seed: the seed of the draws.
        size: the number of examples of a part.
        first: the number of the first part.
    """
    for start in range(first * size, len(given), size):
        like = _templates(form.kind, given[start : start + size]).to(device)
        found = in_batches(
            lambda part: draw_examples(vae, part, temperature), like, seed, start // BATCH
        )
        yield in_own_form(form, torch.cat(found))


def conditions(form: DataForm, n: int, y: Any, temperature: float, seed: int, size: int) -> Tensor:
    """Return the conditions of n examples as they are stored, [n, Dy]; without any [n, 0].

    Raises:
        InputError: if the conditions do not fit, or an option is out of range.
    """
    if not isinstance(n, int | np.integer) or not 0 < n < 2**63:
        raise InputError(f"n has to be a whole number from 1 to 2**63 - 1, but is {n}", "n")
    if size < n and (size < BATCH or size % BATCH):
        raise InputError(f"size has to be a multiple of {BATCH}, but is {size}", "size")
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature has to be positive, but is {temperature}", "temperature")
    check_seed(seed, "seed")
    if getattr(form.of_x, "total_is_known", False):
        raise InputError(
            "this model is p(x | total of x), and has no totals to draw: use a likelihood with "
            "free totals"
        )
    if isinstance(form.kind, Conditional):
        if y is None:
            names = ", ".join(column_names(form.kind.given))
            raise InputError(f"this model is given {names}: give y, for each or for all", "y")
        return stored_conditions(form, y, n)
    if y is not None:
        raise InputError("this model has no conditions: leave y out", "y")
    return torch.empty(n, 0)


def _templates(kind: Kind, given: Tensor) -> Tensor:
    """Return examples with the conditions, shape [N, *event]; without conditions [N, 0]."""
    if not isinstance(kind, Conditional):
        return given
    y = kind.given.observe(given)
    return torch.cat([kind.filler[: kind.size].to(y).expand(len(y), -1), y], -1)
