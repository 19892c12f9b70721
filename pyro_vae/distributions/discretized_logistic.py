"""The logistic distribution, rounded to levels."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid


class DiscretizedLogistic(TorchDistribution):
    """A logistic variable rounded to 0, 1, ..., levels - 1, the two ends taking the tails.

    Kingma et al. 2016; Salimans et al. 2017. With u = (k + 1/2 - loc) / scale, l = u - 1 / scale
    and F the logistic function, the difference of two nearly equal numbers has a product form,

        log(F(u) - F(l)) = log F(u) + log F(-l) + log(1 - exp(-1 / scale)),

    in which every term is exact to rounding however narrow the logistic or far the level. The ends
    are its first two terms alone: log F(u) for 0, and log F(-l) for levels - 1.

    Args:
        loc: the mean of the logistic, in levels.
        scale: its scale, in levels; the standard deviation is scale pi / sqrt(3).
        levels: how many there are, at least 2.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012

    def __init__(
        self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None
    ) -> None:
        if levels < 2:
            raise ValueError(f"levels must be at least 2, not {levels}")
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> "DiscretizedLogistic":
        """Return the distribution, expanded to a batch shape."""
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        new.loc, new.scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        new.levels = self.levels
        super(DiscretizedLogistic, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The integers 0..levels - 1."""
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """The sum over k = 1..levels - 1 of the probability of k or more.

        One level at a time, as there are many pixels.
        """
        total = torch.zeros_like(self.loc)
        for k in range(1, self.levels):
            total = total + torch.sigmoid((self.loc - (k - 0.5)) / self.scale)
        return total

    def log_prob(self, value: Tensor) -> Tensor:
        """Return nats, of the broadcast shape of value and loc."""
        if self._validate_args:
            self._validate_sample(value)
        not_above = logsigmoid((value + 0.5 - self.loc) / self.scale)
        not_below = logsigmoid((self.loc - (value - 0.5)) / self.scale)
        width = torch.log(-torch.expm1(-1 / self.scale))
        first, last = value == 0, value == self.levels - 1
        inside = not_above + not_below + width
        return torch.where(first, not_above, torch.where(last, not_below, inside))

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Round a logistic draw to the nearest level."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            logistic = self.loc + self.scale * (uniform.log() - torch.log1p(-uniform))
            return logistic.round().clamp(0, self.levels - 1)
