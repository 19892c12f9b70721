"""Known and unknown classes: their check, their distribution, and their one-hot form."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.compiling import is_traced

UNKNOWN = -1


def checked_classes(y: Tensor | None, count: int, classes: int, device: torch.device) -> Tensor:
    """Return y, or unknown classes if it is None, shape [count].

    Raises:
        InputError: if y is not of whole numbers below `classes`, or of another shape.
    """
    if y is None:
        return torch.full((count,), UNKNOWN, device=device)
    if y.shape != (count,) or y.is_floating_point():
        raise InputError(
            f"y has to be whole numbers, one for each of {count} examples, and it is {y.dtype} of "
            f"shape {list(y.shape)}",
            "y",
        )
    if not is_traced([y]) and not (y < classes).all():
        raise InputError(
            f"y has the class {int(y.max())}, and there are {classes}: count them from 0", "y"
        )
    return y.long()


def class_given_label(logits: Tensor, y: Tensor) -> dist.Distribution:
    """Return a distribution over classes: a point mass where y is known.

    Args:
        logits: those of the distribution where y is unknown, shape [classes] or [batch, classes].
        y: the classes, negative where they are unknown, shape [batch].
    """
    is_label = y[:, None] == torch.arange(logits.shape[-1], device=y.device)
    at_label = torch.zeros_like(logits).masked_fill(~is_label, -torch.inf)
    return dist.Categorical(logits=torch.where(y[:, None] >= 0, at_label, logits))


def one_hot_class(y: Tensor, classes: int, like: Tensor) -> Tensor:
    """Return y as one-hot vectors of the type of another tensor, shape [..., classes]."""
    return (y[..., None] == torch.arange(classes, device=y.device)).to(like.dtype)


def append_class(vectors: Tensor, y: Tensor, classes: int) -> Tensor:
    """Return vectors with a one-hot y behind them, for all values of y.

    Args:
        vectors: shape [..., batch, size].
        y: shape [..., batch] or [..., 1].
        classes: the number of classes.
    """
    lead = torch.broadcast_shapes(vectors.shape[:-1], y.shape)
    one_hot = one_hot_class(y, classes, vectors)
    return torch.cat([vectors.expand(*lead, -1), one_hot.expand(*lead, -1)], -1)
