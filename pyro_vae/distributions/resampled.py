"""Accept/reject sampling, truncated, as a distribution."""

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints


class Resampled(TorchDistribution):
    """A base distribution whose draws are accepted with probability a(z), or else drawn again.

    Bauer & Mnih 2019, "Resampled priors for variational autoencoders" (LARS). The proposal that
    follows T - 1 rejections is accepted whatever it is; with Z the mean of a under the base,

        log p(z) = log base(z) + log((1 - r) a(z) / Z + r),     r = (1 - Z)^(T - 1)

    It is a normalised density only as far as `log_z` is right: that is the caller's part. Sampling
    doesn't use it.

    Args:
        base: batch shape [], event shape [d].
        log_accept: maps z, shape [..., d], to log a(z) <= 0, shape [...].
        log_z: log Z, a scalar; an estimate above zero counts as zero.
        truncation: T, at least 1; at 1 this is the base.
    """

    arg_constraints = {"log_z": constraints.real}  # noqa: RUF012 - as torch has it

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

    def expand(self, batch_shape: Size, _instance: Any = None) -> "Resampled":
        """Return the distribution, expanded to a batch shape."""
        new = self._get_checked_instance(Resampled, _instance)
        new.base, new.log_accept = self.base, self.log_accept
        new.log_z, new.truncation = self.log_z, self.truncation
        super(Resampled, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """That of the base."""
        return self.base.support

    def log_prob(self, value: Tensor) -> Tensor:
        """Return nats, shape value.shape[:-1]."""
        if self._validate_args:
            self._validate_sample(value)
        log_p = self.base.log_prob(value)
        if self.truncation > 1:
            # One number in double precision, and kept off the ends, where a logarithm is infinite.
            log_z = self.log_z.double().clamp(-700, -torch.finfo(torch.double).eps)
            log_rest = (self.truncation - 1) * _log1mexp(log_z)
            log_gain = _log1mexp(log_rest) - log_z
            log_a = self.log_accept(value)
            log_ratio = torch.logaddexp(log_a + log_gain.to(log_p), log_rest.to(log_p))
            log_p = log_p + log_ratio
        return log_p.expand(torch.broadcast_shapes(self.batch_shape, log_p.shape))

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Propose until all are accepted, at most T times, drawing only those that are wanting."""
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
    """log(1 - exp(x)) for x < 0, by whichever formula keeps its digits."""
    near = x > -math.log(2)
    close, away = torch.where(near, x, -1.0), torch.where(near, -1.0, x)
    return torch.where(near, torch.log(-torch.expm1(close)), torch.log1p(-torch.exp(away)))
