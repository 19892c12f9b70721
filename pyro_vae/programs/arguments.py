"""What Pyro programs are called with: any arguments, and how examples are taken from them."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor


class Shared:
    """An argument that is not split into examples, although its first dimension has their number.

    Args:
        value: the argument, which the programs get as it is.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


class Arguments:
    """The arguments that model and guide are called with.

    The examples lie along the first dimension of the tensors in the arguments, which may be nested
    in tuples, lists and dictionaries. The first of these tensors tells how many examples there are.
    Tensors whose first dimension is different are passed on as they are, and so is whatever is in
    `Shared`.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.

    Examples:
        >>> import torch
        >>> data = Arguments(torch.zeros(100, 7), lengths=torch.ones(100), scale=torch.ones(3))
        >>> len(data)
        100
        >>> [tensor.shape[0] for tensor in data.take(slice(0, 10)).tensors()]
        [10, 10, 3]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs

    @classmethod
    def of(cls, data: Any) -> "Arguments":
        """Return data as arguments: a tuple is one argument for each of its items.

        All else is a single argument. `Arguments` are returned as they are.
        """
        if isinstance(data, Arguments):
            return data
        return cls(*data) if isinstance(data, tuple) else cls(data)

    @classmethod
    def of_parts(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Arguments":
        """Return positional and keyword arguments together."""
        return cls(*args, **kwargs)

    def unmarked(self) -> "Arguments":
        """Return the arguments as programs get them, without the marks of `Shared`."""
        args, kwargs = _map(_without_mark, (self.args, self.kwargs))
        return Arguments(*args, **kwargs)

    def call(self, program: Callable[..., Any]) -> Any:
        """Call a program."""
        unmarked = self.unmarked()
        return program(*unmarked.args, **unmarked.kwargs)

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors among the arguments, in order, without those in `Shared`."""
        yield from (leaf for leaf in _leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor))

    def __len__(self) -> int:
        """The number of examples; 0 if there is no tensor that has dimensions."""
        return next((len(tensor) for tensor in self.tensors() if tensor.dim()), 0)

    def take(self, rows: slice | Tensor) -> "Arguments":
        """Return the arguments for some of the examples.

        Args:
            rows: a slice, or the indices of the examples.
        """
        count = len(self)

        def of_rows(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == count:
                return leaf[rows]
            return leaf

        args, kwargs = _map(of_rows, (self.args, self.kwargs))
        return Arguments(*args, **kwargs)

    def split(self, size: int) -> "Iterator[Arguments]":
        """Yield the arguments for one batch after another."""
        if size >= len(self):
            yield self
        else:
            yield from (self.take(slice(i, i + size)) for i in range(0, len(self), size))

    def with_tensors(self, tensors: tuple[Tensor, ...]) -> "Arguments":
        """Return the same arguments with other tensors, in the order of `tensors()`."""
        given = iter(tensors)
        args, kwargs = _map(
            lambda leaf: next(given) if isinstance(leaf, Tensor) else leaf, (self.args, self.kwargs)
        )
        return Arguments(*args, **kwargs)

    def structure(self) -> Hashable:
        """Return a key: calls with the same key are assumed to run the same sites.

        It holds the nesting, the number of dimensions of each tensor, and the values of flags and
        strings. Numbers, shapes and the values of tensors are no part of it.
        """
        leaves = _leaves((self.args, self.kwargs))
        shape = str(_map(_name_of_type, (self.args, self.kwargs)))
        return shape, tuple(_structure_of(leaf) for leaf in leaves)

    @property
    def numel_per_example(self) -> int:
        """How many numbers an example has, over all tensors that are split; at least 1."""
        count = len(self)
        split = (t for t in self.tensors() if t.dim() and len(t) == count)
        return max(1, sum(tensor[:1].numel() for tensor in split))

    @property
    def device(self) -> torch.device:
        """The device of the first tensor; the CPU if there is none."""
        return next((tensor.device for tensor in self.tensors()), torch.device("cpu"))


def _name_of_type(leaf: Any) -> str:
    return "Tensor" if isinstance(leaf, Tensor) else type(leaf).__name__


def _map(function: Callable[[Any], Any], nest: Any) -> Any:
    """Return a nest of tuples, lists and dictionaries, with the function applied to each item.

    Other containers are single items.
    """
    if isinstance(nest, dict):
        return {key: _map(function, item) for key, item in nest.items()}
    if type(nest) in (tuple, list):
        return type(nest)(_map(function, item) for item in nest)
    if isinstance(nest, tuple) and hasattr(nest, "_make"):  # a named tuple: PackedSequence is one
        return nest._make(_map(function, item) for item in nest)
    return function(nest)


def _leaves(nest: Any) -> list[Any]:
    """Return the items of a nest of tuples, lists and dictionaries, in order."""
    leaves: list[Any] = []
    _map(leaves.append, nest)
    return leaves


def _structure_of(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.dim()
    return leaf if isinstance(leaf, bool | str | None) else None


def _without_mark(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, Shared) else leaf
