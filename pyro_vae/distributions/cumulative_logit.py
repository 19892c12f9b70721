"""The cumulative logit distribution of ordered levels."""

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.expandable import Expandable


class CumulativeLogit(Expandable):
    """Levels 0, 1, ..., K - 1 in their order: a logistic variable, cut at K - 1 points.

    The proportional-odds model (McCullagh 1980). With F the logistic function, the cutpoints
    c_1 < ... < c_{K-1}, c_0 = -inf and c_K = inf,

        P(k) = F(c_{k+1} - loc) - F(c_k - loc)

    The difference of two nearly equal numbers equals a product, each of whose factors has only
    rounding errors, however far the level is from loc. With u = c_{k+1} - loc and l = c_k - loc,

        log P(k) = log F(u) + log F(-l) + log(1 - exp(l - u))

    It is computed in double precision, as the distance of two cutpoints may be small.
    `pyro.distributions.OrderedLogistic` subtracts, and limits all probabilities to 1e-7.

    Args:
        loc: the mean of the logistic variable, shape [...].
        cutpoints: c_1, ..., c_{K-1}, shape [..., K - 1], increasing. Variables with fewer levels
            than others have cutpoints of infinity at the end: one for each level less. They may be
            `float64` beside a loc that is `float32`; results have the type of loc.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {"loc": constraints.real}  # noqa: RUF012 - torch's name and type
    batched = {"loc": 0, "cutpoints": 1}  # noqa: RUF012 - a class variable in the base class

    def __init__(self, loc: Tensor, cutpoints: Tensor, validate_args: bool | None = None) -> None:
        batch_shape = torch.broadcast_shapes(loc.shape, cutpoints.shape[:-1])
        self.loc = loc.expand(batch_shape)
        self.cutpoints = cutpoints.expand(batch_shape + cutpoints.shape[-1:])
        super().__init__(batch_shape, validate_args=validate_args)
        if self._validate_args:
            low, high = cutpoints[..., :-1], cutpoints[..., 1:]
            if not ((low < high) | (low == torch.inf)).all():
                raise ValueError(f"cutpoints must increase, and do not: {cutpoints}")

    @property
    def levels(self) -> Tensor:
        """K, the number of levels of each variable, shape [...]."""
        return 1 + self.cutpoints.isfinite().sum(-1)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The integers 0..K - 1."""
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """The mean level: the sum over k = 1..K - 1 of the probability of level k or higher."""
        return (self.loc.unsqueeze(-1) - self.cutpoints).sigmoid().sum(-1).to(self.loc.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats; its shape is that of value and loc, broadcast."""
        if self._validate_args:
            self._validate_sample(value)
        level, loc = torch.broadcast_tensors(value, self.loc.double())
        cutpoints = self.cutpoints.double().expand(loc.shape + self.cutpoints.shape[-1:])
        end = torch.full_like(loc.unsqueeze(-1), torch.inf)
        edges = torch.cat([-end, cutpoints, end], -1)
        index = level.long().unsqueeze(-1)
        lower, upper = edges.gather(-1, index)[..., 0], edges.gather(-1, index + 1)[..., 0]
        impossible = lower == torch.inf
        lower = lower.masked_fill(impossible, 0)
        width = torch.log(-torch.expm1(lower - upper))
        log_prob = logsigmoid(upper - loc) + logsigmoid(loc - lower) + width
        return log_prob.masked_fill(impossible, -torch.inf).to(self.loc.dtype)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw a logistic variable, and count the cutpoints below it; levels are floats."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            logistic = self.loc + uniform.log() - torch.log1p(-uniform)
            return (logistic.unsqueeze(-1) > self.cutpoints).sum(-1).to(self.loc.dtype)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all levels, as Pyro's enumeration needs them.

        Args:
            expand: whether to repeat the levels for the batch.

        Returns:
            Levels as floats, shape [K, ...] with the batch shape, or [K, 1, ..., 1].

        Raises:
            NotImplementedError: if the variables differ in K.
        """
        if not self.cutpoints.isfinite().all():
            raise NotImplementedError("variables with different numbers of levels")
        levels = torch.arange(self.cutpoints.shape[-1] + 1).to(self.loc)
        levels = levels.view(-1, *[1] * len(self.batch_shape))
        return levels.expand(-1, *self.batch_shape) if expand else levels

    has_enumerate_support = True
