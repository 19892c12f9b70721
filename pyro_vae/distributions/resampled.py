"""The distribution of truncated rejection sampling."""

import math
from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_vae.distributions.expandable import Expandable


class Resampled(Expandable):
    """A base distribution whose draws are accepted with probability a(z) and else drawn again.

    Bauer & Mnih 2019, "Resampled priors for variational autoencoders" (LARS). After T - 1
    rejections the next proposal is always accepted. With Z the mean of a under the base,

        log p(z) = log base(z) + log((1 - r) a(z) / Z + r),     r = (1 - Z)^(T - 1)

    The density integrates to one only if `log_z` is correct: the caller has to estimate it.
    `sample` does not use it.

    Args:
        base: a distribution of batch shape [] and event shape [d].
        log_accept: a function that maps z, shape [..., d], to log a(z) <= 0, shape [...].
        log_z: log Z, a scalar; an estimate above zero is treated as zero.
        truncation: T, at least 1; with 1 the distribution is the base.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {"log_z": constraints.real}  # noqa: RUF012 - torch's name and type
    shared = ("base", "log_accept", "log_z", "truncation")

    def __init__(
        self,
        base: dist.Distribution,
        log_accept: Callable[[Tensor], Tensor],
        log_z: Tensor,
        truncation: int,
        validate_args: bool | None = None,
    ) -> None:
        if len(base.batch_shape) or len(base.event_shape) != 1:
            raise ValueError(f"base must have batch shape [] and event shape [d], not {base}")
        if log_z.dim() or truncation < 1:
            raise ValueError("log_z must be a scalar, and truncation at least 1")
        self.base, self.log_accept = base, log_accept
        self.log_z, self.truncation = log_z, truncation
        super().__init__(Size(), base.event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The support of the base."""
        return self.base.support

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats, shape value.shape[:-1]."""
        if self._validate_args:
            self._validate_sample(value)
        log_p = self.base.log_prob(value)
        if self.truncation > 1:
            # A scalar, so double precision is cheap. It is clamped because the logarithms below
            # would be infinite at Z = 0 and at Z = 1.
            log_z = self.log_z.double().clamp(-700, -torch.finfo(torch.double).eps)
            log_rest = (self.truncation - 1) * _log1mexp(log_z)
            log_gain = _log1mexp(log_rest) - log_z
            log_a = self.log_accept(value)
            log_ratio = torch.logaddexp(log_a + log_gain.to(log_p), log_rest.to(log_p))
            log_p = log_p + log_ratio
        return log_p.expand(torch.broadcast_shapes(self.batch_shape, log_p.shape))

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Propose at most T times; each round draws again only what was rejected."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            z = self.base.sample((math.prod(shape[:-1]),))
            pending = torch.arange(len(z), device=z.device)
            for _ in range(self.truncation - 1):
                log_a = self.log_accept(z[pending])
                pending = pending[torch.rand_like(log_a).log() >= log_a]
                if not len(pending):
                    break
                z[pending] = self.base.sample((len(pending),))
            return z.reshape(shape)


def _log1mexp(x: Tensor) -> Tensor:
    """Return log(1 - exp(x)) for x < 0, by the formula that is accurate at x."""
    near = x > -math.log(2)
    close, away = torch.where(near, x, -1.0), torch.where(near, -1.0, x)
    return torch.where(near, torch.log(-torch.expm1(close)), torch.log1p(-torch.exp(away)))
