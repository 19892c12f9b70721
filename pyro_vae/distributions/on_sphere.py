"""Distributions on the unit sphere."""

import math

import torch
from pyro.distributions.constraints import sphere
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.kl import register_kl

from pyro_vae.distributions.expandable import Expandable


class PowerSpherical(Expandable):
    """The density proportional to (1 + loc . z)^concentration on the unit sphere of R^d.

    De Cao & Aziz 2020. It is similar to the von Mises-Fisher distribution, but its normalising
    constant has a closed form, and sampling needs no rejection. With b = (d - 1) / 2 and
    a = b + concentration, (1 + loc . z) / 2 has a Beta(a, b) distribution:

        log p(z) = concentration log((1 + loc . z) / 2)
                   - (d - 1) log 2 - b log pi - log Gamma(a) + log Gamma(a + b)

    The constants are computed in double precision: in single precision their error would be 0.01
    nats at a concentration of 10,000.

    Args:
        loc: the mean directions, unit vectors, shape [*batch, d], d >= 2.
        concentration: positive numbers, shape [*batch]; towards zero the distribution becomes
            uniform.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {"loc": sphere, "concentration": constraints.positive}  # noqa: RUF012
    support = sphere
    has_rsample = True
    batched = {"loc": 1, "concentration": 0}  # noqa: RUF012 - a class variable in the base class

    def __init__(
        self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None
    ) -> None:
        if loc.dim() < 1 or loc.shape[-1] < 2:
            raise ValueError(f"loc must have shape [..., d] with d >= 2, not {list(loc.shape)}")
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc = loc.expand(batch_shape + loc.shape[-1:])
        self.concentration = concentration.expand(batch_shape)
        super().__init__(batch_shape, loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The direction times concentration / (concentration + d - 1)."""
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
        """Return the log-density by area of the sphere in nats, shape value.shape[:-1]."""
        if self._validate_args:
            self._validate_sample(value)
        # (1 + cos) / 2 = 1 - |z - loc|^2 / 4 = |z + loc|^2 / 4. With the difference from the nearer
        # of the poles loc and -loc, rounding errors in the lengths of z and loc have an effect of
        # second order only.
        near = (self.loc * value).sum(-1) > 0
        pole = torch.where(near.unsqueeze(-1), self.loc, -self.loc)
        square = (value - pole).square().sum(-1) / 4
        tiny = torch.finfo(square.dtype).tiny  # at z = -loc the square is zero
        log_kernel = torch.where(near, torch.log1p(-square), square.clamp(min=tiny).log())
        return self.concentration * log_kernel + self._log_constant().to(value.dtype)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw z around the axis e1, from its height and a uniform tangent; reflect e1 to loc."""
        shape = self._extended_shape(sample_shape)
        alpha = torch.stack(self._beta(), -1).expand((*shape[:-1], 2))
        # (1 + height) / 2 and (1 - height) / 2 are the two parts of one Dirichlet draw. Each part
        # has a small relative error. The difference 1 - beta, for a Beta draw, would not have one.
        up, down = torch.distributions.Dirichlet(alpha, validate_args=False).rsample().unbind(-1)
        tiny = torch.finfo(torch.double).tiny
        height = (up - down).to(self.loc.dtype).unsqueeze(-1)
        radius = 2 * (up.clamp(min=tiny).sqrt() * down.clamp(min=tiny).sqrt())
        normal = torch.randn((*shape[:-1], shape[-1] - 1), dtype=height.dtype, device=alpha.device)
        normal = torch.where(normal == 0, 1e-9, normal)  # the length must not be zero
        tangent = normal / normal.norm(dim=-1, keepdim=True)
        # The reflection maps e1 to -loc if loc is in the half-space of e1, and to loc otherwise.
        # Its vector, loc + e1 or loc - e1, then has a length of at least sqrt(2) for every loc.
        first, rest = self.loc[..., :1], self.loc[..., 1:]
        sign = torch.where(first < 0, -1.0, 1.0).to(first.dtype)
        # sign * first instead of first.abs(): at zero the derivative of abs() is a different one.
        dot = (rest * tangent).sum(-1, keepdim=True) / (1 + sign * first)
        tangent = torch.cat([-dot * (first + sign), tangent - dot * rest], -1)
        z = height * self.loc + radius.to(self.loc.dtype).unsqueeze(-1) * tangent
        return z / z.norm(dim=-1, keepdim=True)  # removes rounding errors, those of loc too

    def entropy(self) -> Tensor:
        """Return the entropy in nats, shape [*batch]."""
        return self._entropy().to(self.loc.dtype)

    def _entropy(self) -> Tensor:
        a, b = self._beta()
        mean_log_kernel = torch.digamma(a) - torch.digamma(a + b)
        return -self._log_constant() - self.concentration.double() * mean_log_kernel


class UniformSphere(Expandable):
    """The uniform distribution on the unit sphere of R^dim.

    Its log-density is minus the logarithm of the sphere's area.

    Args:
        dim: the dimension d of the space around the sphere, at least 2.
        like: a tensor with the dtype and device that samples will have; by default torch's.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch's name and type
    support = sphere
    has_rsample = True  # there are no parameters to differentiate by
    shared = ("_like",)

    def __init__(
        self, dim: int, like: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        if dim < 2:
            raise ValueError(f"dim must be at least 2, not {dim}")
        self._like = torch.empty(0) if like is None else like.detach()
        super().__init__(Size(), Size([dim]), validate_args=validate_args)

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
        """Return minus the log of the area, in nats, shape value.shape[:-1]."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        return value.new_full(shape, -self.log_area)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw normals and divide them by their length."""
        shape = self._extended_shape(sample_shape)
        z = torch.randn(shape, dtype=self._like.dtype, device=self._like.device)
        return z / z.norm(dim=-1, keepdim=True)

    def entropy(self) -> Tensor:
        """Return the log of the area, in nats, shape [*batch]."""
        return self._like.new_full(self.batch_shape, self.log_area)


@register_kl(PowerSpherical, UniformSphere)
def _kl_power_spherical_uniform(p: PowerSpherical, q: UniformSphere) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError(
            f"the spheres have different dimensions: {p.event_shape} and {q.event_shape}"
        )
    kl = (q.log_area - p._entropy()).to(p.loc.dtype)
    return kl.expand(torch.broadcast_shapes(p.batch_shape, q.batch_shape))
