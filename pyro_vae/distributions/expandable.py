"""The base of distributions that declare how they expand to a larger batch shape."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pyro.distributions import TorchDistribution
from torch import Size


class Expandable(TorchDistribution):
    """A distribution whose `expand` follows from a declaration of its attributes.

    PyTorch and Pyro expand a distribution without a call of its constructor, so every attribute
    that the constructor sets has to be set again. A subclass declares them here. If a
    subclass of that subclass has its own constructor, it has to declare all of them again.

    Attributes:
        batched: the names of the tensors that begin with the batch dimensions, and how many event
            dimensions follow these.
        shared: the names of all other attributes: the expanded distribution has the same objects.
    """

    batched: ClassVar[Mapping[str, int]] = {}
    shared: ClassVar[tuple[str, ...]] = ()

    def expand(self, batch_shape: Size, _instance: Any = None) -> Self:
        """Return the distribution, expanded to a batch shape."""
        declaring = next(c for c in type(self).__mro__ if {"batched", "shared"} & vars(c).keys())
        new = self._get_checked_instance(declaring, _instance)
        batch_shape = Size(batch_shape)
        for name, event_dims in self.batched.items():
            tensor = getattr(self, name)
            event_shape = tensor.shape[tensor.dim() - event_dims :]
            setattr(new, name, tensor.expand(batch_shape + event_shape))
        for name in self.shared:
            setattr(new, name, getattr(self, name))
        super(Expandable, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new
