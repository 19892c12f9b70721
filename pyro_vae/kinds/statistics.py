"""Statistics of the columns of stored examples, and checks of their values."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.kind import Kind, Stored, rows_at_once


def moments(
    stored: Stored,
    kind: Kind,
    transform: Callable[[Tensor], Tensor] = torch.positive,
    *,
    may_be_constant: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of training examples.

    Args:
        stored: examples, shape [N, *shape].
        kind: what they are. The columns of vectors have moments of their own; all elements of
            other examples have them in common.
        transform: a function of the values, whose moments are asked for; by default the identity.
        may_be_constant: whether a column may have the same value in all examples. Its deviation is
            then one.

    Returns:
        Mean and deviation of the values that are not NaN, `float64`, shape [D] for vectors, []
        otherwise.

    Raises:
        InputError: if a column has no value, or the same one in all examples.
    """
    is_table = len(kind.shape) == 1
    count, mean, total = torch.zeros(()), torch.zeros(()), torch.zeros(())
    for part in stored.split(rows_at_once(stored.shape)):
        values = transform(part.double())
        values = values if is_table else values.reshape(-1)
        new = (~values.isnan()).sum(0).double()
        own = values.nansum(0) / new.clamp(min=1)
        # Chan, Golub & LeVeque (1979), equation 2.1: sums of squares about means are combined.
        delta, both = own - mean, count + new
        share = new / both.clamp(min=1)
        total = total + (values - own).square().nansum(0) + delta.square() * count * share
        mean = mean + delta * share
        count = both
    empty = (count == 0).reshape(-1).nonzero()[:, 0].tolist()
    if empty:
        raise InputError(
            f"{column(kind, empty[0])} has no value in the training examples: drop it", "data"
        )
    scale = (total / (count - 1).clamp(min=1)).sqrt()
    constant = ~(scale > 1e-12 * (1e-300 + mean.abs()))
    if may_be_constant:
        scale = scale.where(~constant, 1.0)
    elif constant.any():
        places = constant.reshape(-1).nonzero()[:, 0].tolist()
        where = ", ".join(column(kind, place) for place in places[:8])
        more = f" and {len(places) - 8} more" if len(places) > 8 else ""
        raise InputError(
            f"{where}{more} has the same value in all training examples: drop it, since it says "
            "nothing",
            "data",
        )
    return mean, scale


def check_range(
    stored: Stored, kind: Kind, low: float, high: float, *, whole: bool = False
) -> None:
    """Refuse values that are infinite, NaN, not whole, below `low` or above `high`.

    Raises:
        InputError: with the column and the value.
    """
    for part in stored.split(rows_at_once(stored.shape)):
        right = part.isfinite() & (part >= low) & (part <= high)
        if whole and part.is_floating_point():
            right &= part == part.round()
        if not right.all():
            row, *place = (~right).nonzero()[0].tolist()
            value = part[(row, *place)].item()
            where = f"{column(kind, place[0])} has" if len(kind.shape) == 1 else "the data have"
            numbers = "whole numbers" if whole else "numbers"
            raise InputError(
                f"{where} the value {value:g}, and {kind.name} data are {numbers} from {low:g} to "
                f"{high:g}",
                "data",
            )


def column_names(kind: Kind) -> list[str]:
    """Return the names of the columns of a table, or their numbers from 0 on."""
    return [*(kind.names or (f"column {i}" for i in range(kind.shape[0])))]


def column(kind: Kind, index: int) -> str:
    """Return how a message names a column of vectors; other examples have no columns."""
    if len(kind.shape) != 1:
        return "the data"
    return f"column {index}" if kind.names is None else f"column '{kind.names[index]}'"
