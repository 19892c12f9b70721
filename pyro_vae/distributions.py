"""Distributions that Pyro and PyTorch lack, or have in a form that cannot be trusted."""

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.constraints import sphere
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.kl import register_kl
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid


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


class PowerSpherical(TorchDistribution):
    """The density proportional to (1 + loc . z)^concentration on the unit sphere of R^d.

    De Cao & Aziz 2020: like the von Mises-Fisher, but with a normaliser and samples in closed form.
    With b = (d - 1) / 2 and a = b + concentration, (1 + loc . z) / 2 has a Beta(a, b) distribution:

        log p(z) = concentration log((1 + loc . z) / 2)
                   - (d - 1) log 2 - b log pi - log Gamma(a) + log Gamma(a + b)

    The constants are computed in double precision: at a concentration of 10,000 single precision
    would leave errors of 0.01 nats.

    Args:
        loc: the direction, unit vectors, shape [*batch, d], d >= 2.
        concentration: positive, shape [*batch]; zero would be the uniform distribution.
    """

    arg_constraints = {"loc": sphere, "concentration": constraints.positive}  # noqa: RUF012
    support = sphere
    has_rsample = True

    def __init__(
        self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None
    ) -> None:
        if loc.dim() < 1 or loc.shape[-1] < 2:
            raise ValueError(f"loc must have shape [..., d] with d >= 2, not {list(loc.shape)}")
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc = loc.expand(batch_shape + loc.shape[-1:])
        self.concentration = concentration.expand(batch_shape)
        super().__init__(batch_shape, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> "PowerSpherical":
        """Return the distribution, expanded to a batch shape."""
        new = self._get_checked_instance(PowerSpherical, _instance)
        batch_shape = Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        super(PowerSpherical, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The direction, shrunk by concentration / (concentration + d - 1)."""
        shrink = self.concentration / (self.concentration + self.event_shape[0] - 1)
        return shrink.unsqueeze(-1) * self.loc

    def _beta(self) -> tuple[Tensor, Tensor]:
        """The parameters a and b of the Beta distribution, shape [*batch], double precision."""
        b = torch.full_like(self.concentration, (self.event_shape[0] - 1) / 2, dtype=torch.double)
        return self.concentration.double() + b, b

    def _log_constant(self) -> Tensor:
        a, b = self._beta()
        log_pi, log_2 = math.log(math.pi), math.log(2)
        return torch.lgamma(a + b) - torch.lgamma(a) - b * (log_pi + 2 * log_2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return nats with respect to the area of the sphere, shape value.shape[:-1]."""
        if self._validate_args:
            self._validate_sample(value)
        # (1 + cos) / 2 = 1 - |z - loc|^2 / 4 = |z + loc|^2 / 4. Taking the difference from the
        # nearer pole, a rounding error in the length of z or loc counts only in second order.
        near = (self.loc * value).sum(-1) > 0
        pole = torch.where(near.unsqueeze(-1), self.loc, -self.loc)
        square = (value - pole).square().sum(-1) / 4
        tiny = torch.finfo(square.dtype).tiny  # the antipode itself has log 0
        log_kernel = torch.where(near, torch.log1p(-square), square.clamp(min=tiny).log())
        return self.concentration * log_kernel + self._log_constant().to(value.dtype)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Draw the height along loc and a uniform tangent, and reflect the axis e1 to loc."""
        shape = self._extended_shape(sample_shape)
        alpha = torch.stack(self._beta(), -1).expand((*shape[:-1], 2))
        # Both parts of a Dirichlet keep their relative precision; 1 - beta would not.
        up, down = torch.distributions.Dirichlet(alpha, validate_args=False).rsample().unbind(-1)
        tiny = torch.finfo(torch.double).tiny
        height = (up - down).to(self.loc.dtype).unsqueeze(-1)
        radius = 2 * (up.clamp(min=tiny).sqrt() * down.clamp(min=tiny).sqrt())
        normal = torch.randn((*shape[:-1], shape[-1] - 1), dtype=height.dtype, device=alpha.device)
        normal = torch.where(normal == 0, 1e-9, normal)  # so that its length is never zero
        tangent = normal / normal.norm(dim=-1, keepdim=True)
        # The reflection that takes e1 to -loc if loc is in the half-space of e1, else to loc: its
        # vector loc +- e1 then has a length of at least sqrt(2), whatever loc is.
        first, rest = self.loc[..., :1], self.loc[..., 1:]
        sign = torch.where(first < 0, -1.0, 1.0).to(first.dtype)
        # Not first.abs(), whose derivative at zero is not that of this reflection.
        dot = (rest * tangent).sum(-1, keepdim=True) / (1 + sign * first)
        tangent = torch.cat([-dot * (first + sign), tangent - dot * rest], -1)
        z = height * self.loc + radius.to(self.loc.dtype).unsqueeze(-1) * tangent
        return z / z.norm(dim=-1, keepdim=True)  # rounding errors, also those of loc

    def entropy(self) -> Tensor:
        """Return nats, shape [*batch]."""
        return self._entropy().to(self.loc.dtype)

    def _entropy(self) -> Tensor:
        a, b = self._beta()
        mean_log_kernel = torch.digamma(a) - torch.digamma(a + b)
        return -self._log_constant() - self.concentration.double() * mean_log_kernel


class UniformSphere(TorchDistribution):
    """The uniform distribution on the unit sphere of R^dim: minus the log of its area everywhere.

    Args:
        dim: the dimension d of the space around the sphere, at least 2.
        like: any tensor, whose dtype and device the samples shall have.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - as torch has it
    support = sphere
    has_rsample = True  # there is nothing to differentiate by

    def __init__(
        self, dim: int, like: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        if dim < 2:
            raise ValueError(f"dim must be at least 2, not {dim}")
        self._like = torch.empty(0) if like is None else like.detach()
        super().__init__(Size(), Size([dim]), validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> "UniformSphere":
        """Return the distribution, expanded to a batch shape."""
        new = self._get_checked_instance(UniformSphere, _instance)
        new._like = self._like
        super(UniformSphere, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def log_area(self) -> float:
        """log(2 pi^(d/2) / Gamma(d/2))."""
        half = self.event_shape[0] / 2
        return math.log(2) + half * math.log(math.pi) - math.lgamma(half)

    @property
    def mean(self) -> Tensor:
        """Zero."""
        return self._like.new_zeros(self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return minus the log of the area, shape value.shape[:-1]."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        return value.new_full(shape, -self.log_area)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Draw normals and divide them by their length."""
        shape = self._extended_shape(sample_shape)
        z = torch.randn(shape, dtype=self._like.dtype, device=self._like.device)
        return z / z.norm(dim=-1, keepdim=True)

    def entropy(self) -> Tensor:
        """Return the log of the area, shape [*batch]."""
        return self._like.new_full(self.batch_shape, self.log_area)


@register_kl(PowerSpherical, UniformSphere)
def _kl_power_spherical_uniform(p: PowerSpherical, q: UniformSphere) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError(f"spheres in different dimensions: {p.event_shape} and {q.event_shape}")
    kl = (q.log_area - p._entropy()).to(p.loc.dtype)
    return kl.expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))


class DiscretizedLogistic(TorchDistribution):
    """A logistic variable rounded to 0, 1, ..., levels - 1, the two ends taking the tails.

    Kingma et al. 2016; Salimans et al. 2017. With u = (k + 1/2 - loc) / scale, l = u - 1 / scale
    and F the logistic function, the difference of two nearly equal numbers has a product form,

        log(F(u) - F(l)) = log F(u) + log F(-l) + log(1 - exp(-1 / scale)),

    in which every term is exact to rounding however narrow the logistic or far the level. The ends
    are its first two terms alone: log F(u) for 0, and log F(-l) for levels - 1.

    Args:
        loc: the mean of the logistic, in levels.
        scale: its scale, in levels; the standard deviation is scale pi / sqrt(3).
        levels: how many there are, at least 2.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012

    def __init__(
        self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None
    ) -> None:
        if levels < 2:
            raise ValueError(f"levels must be at least 2, not {levels}")
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> "DiscretizedLogistic":
        """Return the distribution, expanded to a batch shape."""
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        new.loc, new.scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        new.levels = self.levels
        super(DiscretizedLogistic, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The integers 0..levels - 1."""
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """The sum over k = 1..levels - 1 of the probability of k or more.

        One level at a time, as there are many pixels.
        """
        total = torch.zeros_like(self.loc)
        for k in range(1, self.levels):
            total = total + torch.sigmoid((self.loc - (k - 0.5)) / self.scale)
        return total

    def log_prob(self, value: Tensor) -> Tensor:
        """Return nats, of the broadcast shape of value and loc."""
        if self._validate_args:
            self._validate_sample(value)
        not_above = logsigmoid((value + 0.5 - self.loc) / self.scale)
        not_below = logsigmoid((self.loc - (value - 0.5)) / self.scale)
        width = torch.log(-torch.expm1(-1 / self.scale))
        first, last = value == 0, value == self.levels - 1
        inside = not_above + not_below + width
        return torch.where(first, not_above, torch.where(last, not_below, inside))

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Round a logistic draw to the nearest level."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            logistic = self.loc + self.scale * (uniform.log() - torch.log1p(-uniform))
            return logistic.round().clamp(0, self.levels - 1)


class NormalMixture(TorchDistribution):
    """A mixture of K diagonal normals whose density needs no tensor of shape [..., K, d].

        log p(z) = log sum_k exp(c_k + z . (m / s^2)_k - z^2 . (1 / (2 s^2))_k)

    is a product of matrices. Its terms cancel, so it is done in double precision, which leaves an
    error of 1e-16 |z|^2 / s^2.

    Args:
        logits: of the weights, up to a constant, shape [*batch, K].
        loc: shape [K, d].
        scale: positive, shape [K, d].
    """

    arg_constraints = {  # noqa: RUF012 - as torch has it
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None
    ) -> None:
        if logits.dim() < 1 or loc.dim() != 2 or len(loc) != logits.shape[-1]:
            raise ValueError(
                "logits and loc must have shapes [.., K] and [K, d], "
                f"not {list(logits.shape)} and {list(loc.shape)}"
            )
        self.logits, self.loc, self.scale = logits, loc, scale.expand(loc.shape)
        super().__init__(logits.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> "NormalMixture":
        """Return the distribution, expanded to a batch shape; the components remain as they are."""
        new = self._get_checked_instance(NormalMixture, _instance)
        new.logits = self.logits.expand(Size(batch_shape) + self.logits.shape[-1:])
        new.loc, new.scale = self.loc, self.scale
        super(NormalMixture, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The weighted mean of the components' means, shape [*batch, d]."""
        return self.logits.softmax(-1) @ self.loc

    @property
    def variance(self) -> Tensor:
        """The mean of the components' variances plus the variance of their means, [*batch, d]."""
        weights = self.logits.softmax(-1)
        # Of the means less their own average, so that nothing large cancels.
        loc = self.loc - self.loc.mean(0)
        return weights @ (self.scale.square() + loc.square()) - (weights @ loc).square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return nats in the dtype of value, shape value.shape[:-1]."""
        if self._validate_args:
            self._validate_sample(value)
        loc, scale = self.loc.double(), self.scale.double()
        precision = scale.square().reciprocal()
        half_norm = scale.log() + 0.5 * (loc.square() * precision + math.log(2 * math.pi))
        z = value.double().reshape(-1, value.shape[-1])
        exponent = torch.addmm(-half_norm.sum(-1), z, (loc * precision).T)
        exponent = torch.addmm(exponent, z.square(), precision.T, alpha=-0.5)
        exponent = exponent.reshape(*value.shape[:-1], -1)
        log_weights = self.logits.double().log_softmax(-1)
        return (exponent + log_weights).logsumexp(-1).to(value.dtype)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Draw components, and a normal from each."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            k = torch.distributions.Categorical(logits=self.logits).sample(sample_shape)
            return torch.normal(self.loc[k], self.scale[k]).reshape(shape)


def mixture(logits: Tensor, components: dist.Distribution) -> dist.Distribution:
    """Return the mixture over the last batch dimension of the components.

    Args:
        logits: of the weights, up to a constant, shape [*batch, K].
        components: batch shape [K], event shape [d]; where they are diagonal normals, the faster
            `NormalMixture` is returned.
    """
    if (
        isinstance(components, torch.distributions.Independent)
        and type(components.base_dist) is dist.Normal
        and components.reinterpreted_batch_ndims == 1
        and len(components.batch_shape) == 1
    ):
        return NormalMixture(logits, components.base_dist.loc, components.base_dist.scale)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)


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
