"""The continuous Bernoulli distribution."""

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_vae.distributions.expandable import Expandable


class ContinuousBernoulli(Expandable):
    """The density proportional to exp(logits x) on [0, 1] (Loaiza-Ganem & Cunningham 2019).

    In single precision, `torch.distributions.ContinuousBernoulli` limits the logits to 16 in its
    normalising constant. Beyond 16 its density does not integrate to one (0.40 at -40), and the
    logits of dark pixels are far beyond. This class has no limit. With a = logits / 2,

        log p(x) = logits (x - 1/2) - log(sinh(a) / a)

    Args:
        logits: real numbers without bounds; if x were binary, they would be its log-odds.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012 - torch's name and type
    support = constraints.unit_interval
    has_rsample = True
    batched = {"logits": 0}  # noqa: RUF012 - a class variable in the base class

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """1/2 + (coth(a) - 1/a) / 2."""
        a, small, large = _halve(self.logits)
        series = small / 3 - small**3 / 45 + 2 * small**5 / 945
        return 0.5 + 0.5 * torch.where(a.abs() < 0.2, series, 1 / large.tanh() - 1 / large)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats; its shape is that of value and logits, broadcast."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        a, small, large = _halve(self.logits)
        series = small**2 / 6 - small**4 / 180 + small**6 / 2835
        size = large.abs()
        log_sinhc = size + torch.log(-torch.expm1(-2 * size) / (2 * size))
        return logits * (value - 0.5) - torch.where(a.abs() < 0.2, series, log_sinhc)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Invert the distribution function for -|logits|; where logits >= 0, return 1 - x."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        slope = -self.logits.abs().clamp(min=1e-6)
        dark = torch.log1p(uniform * torch.expm1(slope)) / slope
        return torch.where(self.logits < 0, dark, 1 - dark).clamp(0, 1)


def _halve(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return three versions of a = logits / 2.

    The first is unchanged. The second is for series around zero, and has zeros where |a| >= 0.2.
    The third is for other formulas, and has ones where |a| < 0.2. So neither the formula that
    `torch.where` drops nor its gradient overflows.
    """
    a = logits / 2
    near = a.abs() < 0.2
    return a, torch.where(near, a, 0.0), torch.where(near, 1.0, a)
