"""What a source returns: the parts of a data set, as they come."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Some examples.

    Attributes:
        examples: shape [N, *event], `uint8` or `float32`.
        labels: one for each example, shape [N], if the data set has labels.
    """

    examples: Tensor
    labels: Tensor | None = None

    def __getitem__(self, index: Tensor) -> "Part":
        """Return the examples at these indices, with their labels."""
        return Part(self.examples[index], None if self.labels is None else self.labels[index])


@dataclass(frozen=True)
class Source:
    """The parts that a data set comes with.

    Attributes:
        train: the training examples.
        validation: the validation examples, or None: they are then split off from `train`.
        test: the test examples, or None: they are then split off from `train`, too.
    """

    train: Part
    validation: Part | None = None
    test: Part | None = None


# The arguments are the name or path that the user gave, and the folder for downloaded sets. A
# reader raises InputError if there is no such data set or it cannot be used.
Reader = Callable[[str, Path], Source]


def first_line(error: Exception) -> str:
    """Return the first line of an error, at most 120 characters of it."""
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
