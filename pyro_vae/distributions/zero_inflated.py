"""A distribution of counts with additional zeros."""

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.expandable import Expandable


class ZeroInflated(Expandable):
    """A count that is zero with probability g = sigmoid(logits), and else a draw of the base.

        log p(0) = log(g + (1 - g) base(0)),    log p(k) = log(1 - g) + log base(k) for k > 0

    (Lambert 1992). These are computed in double precision. Pyro's `ZeroInflatedDistribution` adds
    and subtracts the logit, which in single precision gives log p the error of its rounding: 6e-6
    nats for each count at a logit of -100, and 0.06 at -10^6.

    Args:
        base: a distribution of single counts, with event shape [].
        logits: the log-odds of an additional zero.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012 - torch's name and type
    batched = {"logits": 0}  # noqa: RUF012 - a class variable in the base class
    shared = ("base",)

    def __init__(
        self, base: TorchDistribution, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        if base.event_shape or not base.support.is_discrete:
            raise ValueError(f"base must be a distribution of single counts, not {base}")
        shape = torch.broadcast_shapes(logits.shape, base.batch_shape)
        self.base, self.logits = base, logits.expand(shape)
        super().__init__(shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The support of the base."""
        return self.base.support

    @property
    def mean(self) -> Tensor:
        """(1 - g) times the mean of the base."""
        return (-self.logits).sigmoid() * self.base.mean

    @property
    def variance(self) -> Tensor:
        """(1 - g) (v + g m^2), with the mean m and the variance v of the base."""
        gate = self.logits.sigmoid()
        return (-self.logits).sigmoid() * (self.base.variance + gate * self.base.mean.square())

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats; its shape is that of value and logits, broadcast."""
        if self._validate_args:
            self._validate_sample(value)
        logits = self.logits.double()
        drawn = logsigmoid(-logits) + self.base.log_prob(value).double()
        zero = torch.logaddexp(logsigmoid(logits), drawn)
        return torch.where(value == 0, zero, drawn).to(self.logits.dtype)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw from the base, and replace draws by zeros with probability g."""
        with torch.no_grad():
            drawn = self.base.expand(self.batch_shape).sample(sample_shape)
            zero = torch.rand_like(drawn) < self.logits.sigmoid()
            return drawn.masked_fill(zero, 0)
