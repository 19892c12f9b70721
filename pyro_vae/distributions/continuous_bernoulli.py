"""The continuous Bernoulli distribution."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all


class ContinuousBernoulli(TorchDistribution):
    """The density proportional to exp(logits x) on [0, 1] (Loaiza-Ganem & Cunningham 2019).

    `torch.distributions.ContinuousBernoulli` limits the logits to 16 inside its normalising
    constant, in single precision; beyond, its density no longer integrates to one (to 0.40 at -40),
    and dark pixels are far beyond. With a = logits / 2,

        log p(x) = logits (x - 1/2) - log(sinh(a) / a)

    Args:
        logits: any real numbers, the log-odds of the Bernoulli that it is named after.
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012 - as torch has it
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> "ContinuousBernoulli":
        """Return the distribution, expanded to a batch shape."""
        new = self._get_checked_instance(ContinuousBernoulli, _instance)
        new.logits = self.logits.expand(batch_shape)
        super(ContinuousBernoulli, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """1/2 + (coth(a) - 1/a) / 2."""
        a, small, large = _halve(self.logits)
        series = small / 3 - small**3 / 45 + 2 * small**5 / 945
        return 0.5 + 0.5 * torch.where(a.abs() < 0.2, series, 1 / large.tanh() - 1 / large)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return nats, of the broadcast shape of value and logits."""
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        a, small, large = _halve(self.logits)
        series = small**2 / 6 - small**4 / 180 + small**6 / 2835
        size = large.abs()
        log_sinhc = size + torch.log(-torch.expm1(-2 * size) / (2 * size))
        return logits * (value - 0.5) - torch.where(a.abs() < 0.2, series, log_sinhc)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Invert the distribution function, for minus the size of the logits, and reflect."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        slope = -self.logits.abs().clamp(min=1e-6)
        dark = torch.log1p(uniform * torch.expm1(slope)) / slope
        return torch.where(self.logits < 0, dark, 1 - dark).clamp(0, 1)


def _halve(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Half the logits, and the same made safe for a series near zero, and for a formula off it."""
    a = logits / 2
    near = a.abs() < 0.2
    return a, torch.where(near, a, 0.0), torch.where(near, 1.0, a)
