"""A part of a data set."""

from torch import Tensor

Part = tuple[Tensor, Tensor | None]  # images, and their labels


def first_line(error: Exception) -> str:
    """Return the first line of an error, shortened."""
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
