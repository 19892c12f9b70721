"""Coordinates of the sites of Pyro programs, in which chains can move.

| support | coordinates u | moves |
|---|---|---|
| a line, an interval, a simplex, .. | real numbers, by PyTorch's registered bijections | HMC |
| a circle | the angle, between -pi and pi | HMC, around the circle |
| a unit sphere of R^d | a point of R^d, z = u / |u| | HMC |
| finitely many values | a weight for each value: `discrete_values` | proposals from gradients |

**Spheres.** The radius |u| is an auxiliary variable with a density r of its own: the one that |u|
has if u ~ N(0, I). In R^d, where du = |u|^(d-1) d|u| dz, the density is

    f(u) = f(z) r(|u|) / |u|^(d-1)
    log(r(|u|) / |u|^(d-1)) = -|u|^2 / 2 - log(2^(d/2-1) Gamma(d/2))

f(z) is a density by area of the sphere. The uniform density on the sphere becomes N(0, I).

**Circles.** Families of angles, such as von Mises, say that their support is the real line. They
are known by their densities, which have the period 2 pi: no density on the real line has a period.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions.constraints import sphere
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import Transform

from pyro_vae.bounds import discrete_values
from pyro_vae.errors import InputError
from pyro_vae.programs.sites import base

CIRCLE_DRAWS = 32  # the number of draws that tell a circle from a line


class Coordinates(ABC):
    """The coordinates of one site.

    The distribution of a site can have another support in each run of the program, such as an
    interval that depends on another site. So it is an argument, `fn`, of every method.

    Attributes:
        name: the name of the site.
    """

    name: str

    @abstractmethod
    def of(self, fn: Any, value: Tensor) -> Tensor:
        """Return coordinates of a value; for a sphere, with a new draw of the radius."""

    @abstractmethod
    def value(self, fn: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value at coordinates u, and the log-density of the change from z to u.

        The second tensor is in nats. It has the shape of the value, with or without some of the
        last dimensions, or the shape [] if it is zero.
        """

    def log_prob(self, fn: Any, value: Tensor, u: Tensor) -> Tensor | None:
        """Return the log-probability of a value, if it needs u; None to take that of `fn`."""
        return None


@dataclass(frozen=True)
class Line(Coordinates):
    """Real numbers, mapped to the support by a bijection."""

    name: str

    def of(self, fn: Any, value: Tensor) -> Tensor:
        """Return the inverse of the bijection."""
        return bijection(self.name, fn).inv(value)

    def value(self, fn: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return z(u) and log |dz/du|."""
        transform = bijection(self.name, fn)
        value = transform(u)
        return value, transform.log_abs_det_jacobian(u, value)


@dataclass(frozen=True)
class Circle(Coordinates):
    """The angle itself."""

    name: str

    def of(self, fn: Any, value: Tensor) -> Tensor:
        """Return the angle."""
        return value

    def value(self, fn: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the angle, whose density does not change."""
        return u, u.new_zeros(())


@dataclass(frozen=True)
class Sphere(Coordinates):
    """A point of the space around the sphere."""

    name: str

    def of(self, fn: Any, value: Tensor) -> Tensor:
        """Return z times a radius, which is drawn from r."""
        return value * torch.randn_like(value).norm(dim=-1, keepdim=True)

    def value(self, fn: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return u / |u| and log(r(|u|) / |u|^(d-1))."""
        half = u.shape[-1] / 2
        constant = (half - 1) * math.log(2) + math.lgamma(half)
        return u / u.norm(dim=-1, keepdim=True), -u.square().sum(-1) / 2 - constant


@dataclass(frozen=True)
class Values(Coordinates):
    """Weights of the values of a discrete site.

    Attributes:
        name: the name of the site.
        values: the values of each variable, shape [V, *event].
    """

    name: str
    values: Tensor

    def of(self, fn: Any, value: Tensor) -> Tensor:
        """Return the weights, shape [*variables, V]."""
        return discrete_values.to_weights(self.name, fn, value, self.values)

    def value(self, fn: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value that has the weight one; its probability does not change."""
        return discrete_values.from_weights(fn, u, self.values), u.new_zeros(())

    def log_prob(self, fn: Any, value: Tensor, u: Tensor) -> Tensor:
        """Return the log-probability, with gradients by the weights."""
        return discrete_values.log_prob(self.name, fn, value, u, len(self.values))


def coordinates(name: str, fn: Any, value: Tensor) -> Coordinates:
    """Return the coordinates of a site.

    Args:
        name: the name of the site.
        fn: the distribution of the site in a guide.
        value: a draw from it.

    Raises:
        InputError: if there are no coordinates.
    """
    values = discrete_values.finite_values(name, fn)
    if values is not None:
        return Values(name, values)
    if _entry(_support(fn)) is sphere:
        return Sphere(name)
    if is_circle(name, fn, value):
        return Circle(name)
    bijection(name, fn)
    return Line(name)


def check_model(
    guided: Coordinates | None, guide_fn: Any, name: str, fn: Any, value: Tensor
) -> None:
    """Refuse a latent site whose density in the model is of another kind than in the guide.

    Args:
        guided: the coordinates of the site in the guide; None if the guide computes it from others.
        guide_fn: the distribution of the site in the guide; None if it is summed out.
        name: the name of the site.
        fn: the distribution of the site in the model.
        value: a draw from the guide.

    Raises:
        InputError: if the densities refer to different measures, or to different values.
    """
    own: Coordinates | None = None
    if guided is None:
        own = Circle(name) if is_circle(name, fn, value) else None
    else:
        own = coordinates(name, fn, value)
    if isinstance(guided, Circle) and isinstance(own, Line):
        agree = _is_full_circle(_support(fn))
    elif isinstance(guided, Values) and isinstance(own, Values):
        same = guided.values.shape == own.values.shape
        agree = same and bool((guided.values == own.values).all())
    elif isinstance(guided, Line) and isinstance(own, Circle):
        agree = _is_full_circle(_support(guide_fn))
    elif isinstance(guided, Line) and isinstance(own, Line):
        agree = _covers(_support(guide_fn), _support(fn))
    elif guided is None and guide_fn is not None and fn.support.is_discrete:
        raise InputError(
            f"the guide gives site '{name}' a single value, and chains need all values of the "
            "model: let the guide draw it",
            "guide",
        )
    else:
        agree = type(guided) is type(own)
    if not agree:
        raise InputError(
            f"site '{name}' has a different support in the guide than in the model: in the guide "
            f"it {_described(guided)}, and in the model it {_described(own)}"
        )


def _covers(guided: Any, own: Any) -> bool:
    """Return whether the guide's support has all of the model's, as far as their classes tell.

    Chains begin where the guide has density, so the mass of the model elsewhere would be missing.
    """
    guided, own = _entry(guided), _entry(own)
    if guided is constraints.real or type(guided) is not type(own):
        return guided is constraints.real
    ends = zip(vars(guided).values(), vars(own).values(), strict=True)
    return all(bool((torch.as_tensor(a) == torch.as_tensor(b)).all()) for a, b in ends)


def is_circle(name: str, fn: Any, value: Tensor) -> bool:
    """Return whether a site is an angle, whose density has the period 2 pi.

    Args:
        name: the name of the site.
        fn: the distribution of the site.
        value: any value of the site.

    Raises:
        InputError: if the density has this period, and angles are not between -pi and pi.
    """
    if (
        discrete_values.finite_values(name, fn) is not None
        or _entry(_support(fn)) is not constraints.real
    ):
        return False
    fn = base(fn)  # a mask hides the density
    with torch.no_grad():
        if not _has_period(fn, value):
            return False
        draws = torch.stack([fn.sample() for _ in range(CIRCLE_DRAWS)])
        spread = draws.amax(0) - draws.amin(0)
        if (spread > 2 * math.pi).any() or not all(_has_period(fn, draw) for draw in draws):
            return False
    if (draws.abs() > math.pi + 1e-4).any():
        raise InputError(
            f"site '{name}' has a density with the period 2 pi, so it is an angle, and annealing "
            "needs angles between -pi and pi"
        )
    return True


def _has_period(fn: Any, value: Tensor) -> bool:
    """Return whether the log-density is the same, up to rounding, after a shift by 2 pi.

    In single precision the error is 0.06 for von Mises with a concentration of 10^6. A density on
    the line whose draws all lie within 2 pi changes by much more.
    """
    here, there = fn.log_prob(value), fn.log_prob(value + 2 * math.pi)
    return bool(((here - there).abs() <= 0.03 * (1 + here.abs())).all())


def _support(fn: Any) -> Any:
    """Return the support of a distribution; that of the components if it is a mixture."""
    return _without_mixtures(fn.support)


def _without_mixtures(support: Any) -> Any:
    if isinstance(support, constraints.MixtureSameFamilyConstraint):
        of_components = _without_mixtures(support.base_constraint)
        # Components with ends of their own, such as those of Uniform, have no common bijection.
        own_ends = any(isinstance(end, Tensor) for end in vars(_entry(of_components)).values())
        return support if own_ends else of_components
    if isinstance(support, constraints.independent):
        inner = _without_mixtures(support.base_constraint)
        return constraints.independent(inner, support.reinterpreted_batch_ndims)
    return support


def _entry(support: Any) -> Any:
    """Return the support of one entry."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _is_full_circle(support: Any) -> bool:
    """Return whether a support is the interval from -pi to pi."""
    support = _entry(support)
    low, high = (getattr(support, f"{side}_bound", math.nan) for side in ("lower", "upper"))
    ends = torch.as_tensor(high) - math.pi, torch.as_tensor(low) + math.pi
    return all(bool((end.abs() < 1e-4).all()) for end in ends)


def _described(kind: Coordinates | None) -> str:
    if isinstance(kind, Values):
        return f"has {len(kind.values)} possible values"
    if kind is None:
        return "is computed from other sites"
    return {Line: "is on a line", Circle: "is on a circle", Sphere: "is on a sphere"}[type(kind)]


def bijection(name: str, fn: Any) -> Transform:
    """Return the bijection from unconstrained coordinates to the support of a site."""
    support = _support(fn)
    try:
        return biject_to(support)
    except NotImplementedError as error:
        raise InputError(
            f"site '{name}' is in {support}, for which there are no unconstrained coordinates"
        ) from error
