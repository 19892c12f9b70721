"""The Poisson distribution of a log-rate."""

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_vae.distributions.expandable import Expandable


class Poisson(Expandable):
    """Counts with a mean of exp(log_rate).

        log p(k) = k log_rate - exp(log_rate) - log k!

    For large counts this is a small difference of large terms, so it is computed in double
    precision. In single precision `torch.distributions.Poisson` has errors of several nats at rates
    of 10^7, and its gradient is not finite where exp(log_rate) is zero in single precision.

    Args:
        log_rate: the logarithm of the mean.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {"log_rate": constraints.real}  # noqa: RUF012 - torch's name and type
    support = constraints.nonnegative_integer
    batched = {"log_rate": 0}  # noqa: RUF012 - a class variable in the base class

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """exp(log_rate)."""
        return self.log_rate.exp()

    @property
    def variance(self) -> Tensor:
        """The mean."""
        return self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats; its shape is that of value and log_rate, broadcast."""
        if self._validate_args:
            self._validate_sample(value)
        log_rate, count = self.log_rate.double(), value.double()
        log_prob = count * log_rate - log_rate.exp() - (count + 1).lgamma()
        return log_prob.to(self.log_rate.dtype)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw counts, as floats."""
        with torch.no_grad():
            rate = self.log_rate.double().exp().expand(self._extended_shape(sample_shape))
            return torch.poisson(rate).to(self.log_rate.dtype)
