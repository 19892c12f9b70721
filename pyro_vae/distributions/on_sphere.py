"""Distributions on the unit sphere."""

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.constraints import sphere
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.kl import register_kl


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
