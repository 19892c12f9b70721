"""The distribution of an example together with its conditions, which are known."""

from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints


class WithConditions(TorchDistribution):
    """[x flattened, y] for x ~ p(x | y) and a fixed y, on the counting measure for y.

    log p([x, y]) is log p(x | y). With another y it would be minus infinity: such a value is
    outside of the support, and is refused if values are checked.

    Args:
        whole: p(x | y), of any event shape.
        conditions: y, of the batch shape of `whole`, or one that expands to it, and event shape
            [Dy].
        validate_args: whether to check values, as in torch.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - as in the base class

    def __init__(
        self, whole: TorchDistribution, conditions: Tensor, validate_args: bool | None = None
    ) -> None:
        self.whole = whole
        self.conditions = conditions.expand(*whole.batch_shape, -1)
        self._size = whole.event_shape.numel()
        event = Size([self._size + conditions.shape[-1]])
        super().__init__(whole.batch_shape, event, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> Self:
        """Return the distribution, expanded to a batch shape."""
        whole = self.whole.expand(Size(batch_shape))
        return type(self)(whole, self.conditions, self._validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The support of x, with these conditions."""
        return _With(self)

    @property
    def mean(self) -> Tensor:
        """The mean of x, and the conditions."""
        return self._packed(self.whole.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x | y) in nats, of the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        return self.whole.log_prob(self.example(value))

    def entry_log_probs(self, value: Tensor) -> Tensor:
        """Return log p of each entry of x in nats, and 0 for y, shape [..., D + Dy].

        `whole` has to be an `ObservedEntries`.
        """
        found = self.whole.entry_log_probs(self.example(value))
        flat = found.flatten(-len(self.whole.event_shape))
        return torch.cat([flat, flat.new_zeros(*flat.shape[:-1], self.conditions.shape[-1])], -1)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch declares it
        """Draw x, and return it with the conditions."""
        return self._packed(self.whole.sample(sample_shape))

    def example(self, value: Tensor) -> Tensor:
        """Return x of [x flattened, y]."""
        return value[..., : self._size].reshape(*value.shape[:-1], *self.whole.event_shape)

    def _packed(self, x: Tensor) -> Tensor:
        flat = x.flatten(-len(self.whole.event_shape))
        return torch.cat([flat, self.conditions.expand(*flat.shape[:-1], -1).to(flat)], -1)


class _With(constraints.Constraint):
    """The support of a distribution of x, with fixed conditions."""

    event_dim = 1

    def __init__(self, distribution: WithConditions) -> None:
        self._distribution = distribution

    def check(self, value: Tensor) -> Tensor:
        """Return whether x is in the support, and y is the conditions."""
        conditions = self._distribution.conditions
        same = (value[..., -conditions.shape[-1] :] == conditions).all(-1)
        support: Any = self._distribution.whole.support
        return same & support.check(self._distribution.example(value))
