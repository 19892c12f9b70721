"""Independent distributions of the columns of a vector."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints


class SideBySide(TorchDistribution):
    """Independent distributions of groups of columns: log p(x) is the sum over the groups.

    Args:
        parts: for each group a distribution with event shape [the number of its columns], all of
            the same batch shape.
        places: for each group the places of its columns in the vector. Each column is in one group.
        validate_args: whether to check values, as in torch.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - as in the base class

    def __init__(
        self,
        parts: Sequence[TorchDistribution],
        places: Sequence[Sequence[int]],
        validate_args: bool | None = None,
    ) -> None:
        self.parts = tuple(parts)
        self.places = tuple(tuple(each) for each in places)
        joined = [place for each in self.places for place in each]
        # Where each column of the vector is among the columns of all groups, one after another.
        self._order = sorted(range(len(joined)), key=joined.__getitem__)
        batch = torch.broadcast_shapes(*(part.batch_shape for part in self.parts))
        super().__init__(batch, Size([len(joined)]), validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> Self:
        """Return the distribution, expanded to a batch shape."""
        parts = [part.expand(Size(batch_shape)) for part in self.parts]
        return type(self)(parts, self.places, self._validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """Vectors whose columns are in the supports of their groups."""
        return _EachIn(self)

    @property
    def mean(self) -> Tensor:
        """The means of all columns."""
        return self.join([part.mean.expand(*self.batch_shape, -1) for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats, of the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        total = torch.zeros((), dtype=value.dtype, device=value.device)
        for part, columns in zip(self.parts, self.split(value), strict=True):
            total = total + part.log_prob(columns)
        return total

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch declares it
        """Draw each group."""
        shape = Size(sample_shape) + self.batch_shape
        drawn = [part.sample(sample_shape) for part in self.parts]
        return self.join([each.expand(*shape, -1) for each in drawn])

    def split(self, value: Tensor) -> list[Tensor]:
        """Return the columns of each group."""
        return [value[..., places] for places in map(list, self.places)]

    def join(self, groups: Sequence[Tensor]) -> Tensor:
        """Return all columns in their order, from those of each group."""
        return torch.cat(list(groups), -1)[..., self._order]


class _EachIn(constraints.Constraint):
    """Vectors whose columns are in the supports of a distribution's groups."""

    event_dim = 1

    def __init__(self, distribution: SideBySide) -> None:
        self._distribution = distribution

    def check(self, value: Tensor) -> Tensor:
        """Return whether each vector is in the support."""
        found = torch.ones((), dtype=torch.bool, device=value.device)
        groups = self._distribution.split(value)
        for part, columns in zip(self._distribution.parts, groups, strict=True):
            found = found & part.support.check(columns)
        return found
