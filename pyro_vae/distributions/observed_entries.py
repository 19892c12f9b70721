"""The observed entries of a vector or a picture whose entries are independent."""

from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Independent, constraints

from pyro_vae.distributions.side_by_side import SideBySide


class ObservedEntries(TorchDistribution):
    """Independent entries, of which only those that are not NaN enter log p(x).

    Args:
        whole: a distribution of independent entries: `Independent`, with as many dimensions as an
            event has, or `SideBySide` with such parts.
        filler: a possible value of each entry, shape [] or the event shape. It stands where a value
            is missing, and enters no probability.
        validate_args: whether to check values, as in torch.

    Raises:
        ValueError: if the entries of `whole` may depend on each other.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - as in the base class

    def __init__(
        self, whole: TorchDistribution, filler: Tensor, validate_args: bool | None = None
    ) -> None:
        _check_independent(whole)
        self.whole, self.filler = whole, filler
        super().__init__(whole.batch_shape, whole.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> Self:
        """Return the distribution, expanded to a batch shape."""
        return type(self)(self.whole.expand(Size(batch_shape)), self.filler, self._validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """The support of `whole`, with NaN for any entries."""
        return _WithHoles(self.whole.support, self.filler)

    @property
    def mean(self) -> Tensor:
        """The means of all entries."""
        return self.whole.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(observed entries) in nats, of the batch shape; 0 if nothing is observed."""
        return self.entry_log_probs(value).flatten(len(self._shape(value))).sum(-1)

    def entry_log_probs(self, value: Tensor) -> Tensor:
        """Return log p of each entry in nats, 0 where it is NaN, shape [..., *event_shape]."""
        if self._validate_args:
            self._validate_sample(value)
        there = ~value.isnan()
        filled = torch.where(there, value, self.filler.to(value))
        return torch.where(there, _entry_log_probs(self.whole, filled), 0.0)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch declares it
        """Draw all entries."""
        return self.whole.sample(sample_shape)

    def _shape(self, value: Tensor) -> Size:
        """Return the shape of log p(value)."""
        outer = value.shape[: value.dim() - len(self.event_shape)]
        return torch.broadcast_shapes(outer, self.batch_shape)


def _check_independent(whole: Any) -> None:
    if isinstance(whole, SideBySide):
        for part in whole.parts:
            _check_independent(part)
    elif not (isinstance(whole, Independent) and not whole.base_dist.event_shape):
        raise ValueError(f"the entries of a {type(whole).__name__} may depend on each other")


def _entry_log_probs(whole: Any, value: Tensor) -> Tensor:
    if isinstance(whole, SideBySide):
        pairs = zip(whole.parts, whole.split(value), strict=True)
        found = [_entry_log_probs(part, columns) for part, columns in pairs]
        shape = torch.broadcast_shapes(*(each.shape[:-1] for each in found))
        return whole.join([each.expand(*shape, -1) for each in found])
    return whole.base_dist.log_prob(value)


class _WithHoles(constraints.Constraint):
    """A support, with NaN for any entries."""

    def __init__(self, whole: Any, filler: Tensor) -> None:
        self._whole, self._filler = whole, filler
        self.event_dim, self.is_discrete = whole.event_dim, whole.is_discrete

    def check(self, value: Tensor) -> Tensor:
        """Return whether the observed entries are possible."""
        return self._whole.check(torch.where(value.isnan(), self._filler.to(value), value))
