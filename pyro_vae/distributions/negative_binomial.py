"""The negative binomial distribution of a mean and an inverse dispersion."""

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_vae.distributions.expandable import Expandable
from pyro_vae.distributions.gamma import standard_gamma


class NegativeBinomial(Expandable):
    """Counts of mean m and variance m + m^2 / t, where t is the inverse dispersion.

    A Poisson variable whose rate is a Gamma variable of mean m and shape t (Greenwood & Yule 1920;
    the parameters are those of Lopez et al. 2018, scVI). For large t it is the Poisson
    distribution. With v = log(1 + m / t),

        log p(k) = log(G(t + k) / (G(t) t^k)) + k log m - (t + k) v - log k!

    where G is the Gamma function. It is computed in double precision, because the terms are large
    and nearly cancel: the error is less than 1e-6 nats for t from 1e-4 to 1e8, m from 1e-30 to 1e9
    and counts to 1e7. In single precision that of `torch.distributions.NegativeBinomial` is many
    nats in these ranges. Beyond t = 1e8 the error grows in proportion to t.

    Args:
        log_mean: log m.
        log_theta: log t.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {  # noqa: RUF012 - torch's name and type
        "log_mean": constraints.real,
        "log_theta": constraints.real,
    }
    support = constraints.nonnegative_integer
    batched = {"log_mean": 0, "log_theta": 0}  # noqa: RUF012 - a class variable in the base class

    def __init__(
        self, log_mean: Tensor, log_theta: Tensor, validate_args: bool | None = None
    ) -> None:
        self.log_mean, self.log_theta = broadcast_all(log_mean, log_theta)
        super().__init__(self.log_mean.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean, m."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance, m + m^2 / t."""
        return self.mean + (2 * self.log_mean - self.log_theta).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats; its shape is that of value and log_mean, broadcast."""
        if self._validate_args:
            self._validate_sample(value)
        count, log_mean, log_theta = value.double(), self.log_mean.double(), self.log_theta.double()
        theta = log_theta.exp()
        rising = (theta + count).lgamma() - theta.lgamma() - count * log_theta
        # logaddexp and not softplus, which is the identity from 20 on: an error of 2e-9 for each
        # count.
        ratio = torch.logaddexp(torch.zeros_like(log_mean), log_mean - log_theta)
        log_prob = rising + count * log_mean - (theta + count) * ratio - (count + 1).lgamma()
        return log_prob.to(self.log_mean.dtype)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw a rate from the Gamma distribution, and a count, as a float, for that rate."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            theta = self.log_theta.double().exp().expand(shape)
            ratio = (self.log_mean.double() - self.log_theta.double()).exp()
            return torch.poisson(standard_gamma(theta) * ratio).to(self.log_mean.dtype)
