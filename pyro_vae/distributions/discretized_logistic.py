"""The logistic distribution, rounded to levels."""

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.expandable import Expandable


class DiscretizedLogistic(Expandable):
    """A logistic variable rounded to 0, 1, ..., levels - 1; the two end levels include the tails.

    Kingma et al. 2016; Salimans et al. 2017. With u = (k + 1/2 - loc) / scale, l = u - 1 / scale
    and F the logistic function, the probability of level k is F(u) - F(l). This difference of two
    nearly equal numbers equals a product,

        log(F(u) - F(l)) = log F(u) + log F(-l) + log(1 - exp(-1 / scale)),

    in which each term has only rounding errors, however small the scale and however far k is from
    loc. Level 0 has log F(u) alone, and level levels - 1 has log F(-l) alone.

    Args:
        loc: the mean of the logistic variable, in levels.
        scale: its scale, in levels; its standard deviation is scale pi / sqrt(3).
        levels: the number of levels, at least 2.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    batched = {"loc": 0, "scale": 0}  # noqa: RUF012 - a class variable in the base class
    shared = ("levels",)

    def __init__(
        self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None
    ) -> None:
        if levels < 2:
            raise ValueError(f"levels must be at least 2, not {levels}")
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The integers 0..levels - 1."""
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """The sum over k = 1..levels - 1 of the probability of level k or higher.

        A loop over the levels: all of them at once would need `levels` times the memory of loc.
        """
        total = torch.zeros_like(self.loc)
        for k in range(1, self.levels):
            total = total + torch.sigmoid((self.loc - (k - 0.5)) / self.scale)
        return total

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats; its shape is that of value and loc, broadcast."""
        if self._validate_args:
            self._validate_sample(value)
        not_above = logsigmoid((value + 0.5 - self.loc) / self.scale)
        not_below = logsigmoid((self.loc - (value - 0.5)) / self.scale)
        width = torch.log(-torch.expm1(-1 / self.scale))
        first, last = value == 0, value == self.levels - 1
        between = not_above + not_below + width
        return torch.where(first, not_above, torch.where(last, not_below, between))

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw a logistic variable and round it to the nearest level."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            logistic = self.loc + self.scale * (uniform.log() - torch.log1p(-uniform))
            return logistic.round().clamp(0, self.levels - 1)
