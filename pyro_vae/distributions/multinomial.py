"""The multinomial distribution, with totals that differ."""

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_vae.distributions.expandable import Expandable


class Multinomial(Expandable):
    """Counts x of D classes with a known sum n: n independent draws of a class.

        log p(x) = log n! + sum over i of (x_i log p_i - log x_i!),    p = softmax(logits)

    if the sum of x is n, and minus infinity if it is not. `torch.distributions.Multinomial` has one
    n for all rows, computes in single precision, and accepts any sum. Here each row has its own n.

    Args:
        total: n, whole numbers >= 0, shape [...].
        logits: finite numbers, shape [..., D]; the log-probabilities of the classes up to a
            constant.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {  # noqa: RUF012 - torch's name and type
        "total": constraints.nonnegative_integer,
        "logits": constraints.real_vector,
    }
    support = constraints.independent(constraints.nonnegative_integer, 1)
    batched = {"total": 0, "logits": 1}  # noqa: RUF012 - a class variable in the base class

    def __init__(self, total: Tensor, logits: Tensor, validate_args: bool | None = None) -> None:
        batch_shape = torch.broadcast_shapes(total.shape, logits.shape[:-1])
        self.total = total.expand(batch_shape)
        self.logits = logits.expand(batch_shape + logits.shape[-1:])
        super().__init__(batch_shape, logits.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The means n p, shape [..., D]."""
        return self.total.unsqueeze(-1) * self.logits.softmax(-1)

    @property
    def variance(self) -> Tensor:
        """The variances n p (1 - p), shape [..., D]."""
        probabilities = self.logits.softmax(-1)
        return self.total.unsqueeze(-1) * probabilities * (1 - probabilities)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats, computed in double precision, shape value.shape[:-1]."""
        if self._validate_args:
            self._validate_sample(value)
        count, total = value.double(), self.total.double()
        each = count * self.logits.double().log_softmax(-1) - (count + 1).lgamma()
        log_prob = (total + 1).lgamma() + each.sum(-1)
        # The sum of a row of floats may be rounded, and n with it, if it is above 2^24.
        possible = (count.sum(-1) - total).abs() <= torch.finfo(self.total.dtype).eps * total
        return log_prob.where(possible, -torch.inf).to(self.logits.dtype)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Halve the classes again and again: the share of the left half is binomial.

        Returns:
            Counts as floats, shape [*sample_shape, ..., D].
        """
        with torch.no_grad():
            classes = self.logits.shape[-1]
            depth = (classes - 1).bit_length()
            padding = self.logits.new_full((2**depth - classes,), -torch.inf).double()
            padding = padding.expand(*self.batch_shape, -1)
            sizes = [torch.cat([self.logits.double(), padding], -1)]  # logarithms, leaves first
            for _ in range(depth):
                left, right = sizes[-1].unflatten(-1, (-1, 2)).unbind(-1)
                sizes.append(torch.logaddexp(left, right))
            count = self.total.double().expand(self._extended_shape(sample_shape)[:-1])
            count = count.unsqueeze(-1)
            for size in reversed(sizes[:-1]):
                left, right = size.unflatten(-1, (-1, 2)).unbind(-1)
                share = (left - right).sigmoid().nan_to_num(0.5).expand(count.shape)
                heads = torch.binomial(count, share)
                count = torch.stack([heads, count - heads], -1).flatten(-2)
            return count[..., :classes].to(self.logits.dtype)
