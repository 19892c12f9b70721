"""The Gamma distribution of a mean and a shape."""

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_vae.distributions.expandable import Expandable


class Gamma(Expandable):
    """Positive numbers of mean m and variance m^2 / a, where a is the shape.

    With r = log(x / m) and G the Gamma function,

        log p(x) = a log a - a - log G(a) + a (r - (exp(r) - 1)) - log x

    It is computed in double precision. In single precision `torch.distributions.Gamma` loses 0.1
    nats at a = 10^5 to the cancellation of a log a and log G(a).

    Args:
        log_mean: log m.
        log_concentration: log a.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {  # noqa: RUF012 - torch's name and type
        "log_mean": constraints.real,
        "log_concentration": constraints.real,
    }
    support = constraints.positive
    has_rsample = True
    batched = {"log_mean": 0, "log_concentration": 0}  # noqa: RUF012 - a class variable in the base

    def __init__(
        self, log_mean: Tensor, log_concentration: Tensor, validate_args: bool | None = None
    ) -> None:
        self.log_mean, self.log_concentration = broadcast_all(log_mean, log_concentration)
        super().__init__(self.log_mean.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean, m."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance, m^2 / a."""
        return (2 * self.log_mean - self.log_concentration).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats; its shape is that of value and log_mean, broadcast."""
        if self._validate_args:
            self._validate_sample(value)
        log_a, log_x = self.log_concentration.double(), value.double().log()
        a, r = log_a.exp(), log_x - self.log_mean.double()
        log_prob = a * log_a - a - a.lgamma() + a * (r - r.expm1()) - log_x
        return log_prob.to(self.log_mean.dtype)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw x, at least the smallest normal number of its type, where x would be zero."""
        a = self.log_concentration.double().exp().expand(self._extended_shape(sample_shape))
        ratio = (self.log_mean.double() - self.log_concentration.double()).exp()
        drawn = (standard_gamma(a) * ratio).to(self.log_mean.dtype)
        return drawn.clamp(min=torch.finfo(drawn.dtype).tiny)


def standard_gamma(concentration: Tensor) -> Tensor:
    """Draw Gamma variables of scale one, of the shape of the concentrations."""
    ones = torch.ones_like(concentration)
    drawn: Tensor = torch.distributions.Gamma(concentration, ones, validate_args=False).rsample()
    return drawn
