"""Integrals over codes and pixels, by which densities and samples are checked.

Over the real line the points are z = sinh(sinh t), with t evenly spaced on [-3.8, 3.8] (the double
exponential rule of Takahasi & Mori 1974). They reach to 2e9, and lie close to each other around
zero. So a density that falls as |z|^-(1 + a) keeps all but 1e-4 of its mass if a is 0.5 or more:
normal, Laplace, Student t with half a degree of freedom, and Cauchy (a = 1) are all covered.
Tails that are heavier still lose mass beyond the last point. Densities narrower than about 0.1
fall between the points: a part should be checked at a scale of about one.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.testing.latent_layers import draw
from pyro_vae.testing.subject import Subject

SAMPLES = 40_000


class Rule(NamedTuple):
    """Points, and log-weights with which sums over the points are integrals.

    Attributes:
        points: shape [N, dims], `float64`.
        log_weights: shape [N].
        random: whether the points are drawn, so that the integral has a standard error.
        coarser: a function that returns a rule with half as many points in each dimension.
    """

    points: Tensor
    log_weights: Tensor
    random: bool = False
    coarser: Callable[[], "Rule"] | None = None


def line(points: int = 421) -> Rule:
    """Return the rule for the real line; see the module."""
    t = torch.linspace(-3.8, 3.8, points, dtype=torch.float64)
    log_slope = t.sinh().cosh().log() + t.cosh().log()
    return Rule(t.sinh().sinh()[:, None], log_slope + (t[1] - t[0]).log())


def unit_interval(points: int = 20_001) -> Rule:
    """Return a rule for the unit interval, even in the logit: poles at 0 and 1 are allowed."""
    u = torch.linspace(-30, 30, points, dtype=torch.float64)
    log_slope = torch.nn.functional.logsigmoid(u) + torch.nn.functional.logsigmoid(-u)
    return Rule(u.sigmoid()[:, None], log_slope + (u[1] - u[0]).log())


def grid(dims: int = 2, points: int = 421) -> Rule:
    """Return the rule for R^dims: `line` in each dimension."""
    along = line(points)
    z = torch.cartesian_prod(*[along.points[:, 0]] * dims).reshape(-1, dims)
    weights = torch.cartesian_prod(*[along.log_weights] * dims).reshape(-1, dims)
    return Rule(z, weights.sum(1), coarser=lambda: grid(dims, points // 2 + 1))


def circle(points: int = 4000) -> Rule:
    """Return the rule for the unit circle."""
    angle = torch.arange(points, dtype=torch.float64) * (2 * math.pi / points)
    weights = torch.full((points,), math.log(2 * math.pi / points), dtype=torch.float64)
    return Rule(torch.stack([angle.cos(), angle.sin()], -1), weights)


def corners(dims: int, categories: int = 0) -> Rule:
    """Return all vectors of zeros and ones, or all of one-hot codes side by side."""
    if 2**dims > 2**16:
        raise InputError(f"{dims} binary codes are too many to enumerate: take 16 or fewer")
    z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * dims)
    z = z.reshape(-1, dims)
    if categories:
        z = z[(z.view(len(z), -1, categories).sum(-1) == 1).all(-1)]
    return Rule(z, torch.zeros(len(z), dtype=torch.float64))


def random_points(support: str | None, dims: int, count: int = SAMPLES) -> Rule:
    """Draw points of R^dims from independent Cauchy variables, or evenly from the sphere."""
    if support == "sphere":
        z = torch.nn.functional.normalize(torch.randn(count, dims, dtype=torch.float64), dim=-1)
        log_area = math.log(2) + dims / 2 * math.log(math.pi) - math.lgamma(dims / 2)
        log_q = torch.full((count,), -log_area, dtype=torch.float64)
    else:
        cauchy = torch.distributions.Cauchy(torch.zeros(dims, dtype=torch.float64), 0.8)
        z = cauchy.sample((count,))
        log_q = cauchy.log_prob(z).sum(-1)
    return Rule(z, -log_q - math.log(count), random=True)


def codes(support: str | None, dims: int, categories: int = 0) -> Rule:
    """Return the rule for codes: a grid, a circle or an enumeration, and else random points."""
    if support in ("binary", "categorical"):
        return corners(dims, categories if support == "categorical" else 0)
    if support == "sphere" and dims == 2:
        return circle()
    if support != "sphere" and dims <= 2:
        return grid(dims)
    return random_points(support, dims)


def check_density(
    subject: Subject, distribution: Any, rule: Rule, tolerance: float, what: str
) -> None:
    """Check that a density integrates to one, and that samples have its moments.

    Args:
        subject: the part under test.
        distribution: batch shape [], event shape [dims], in double precision.
        rule: points in the support, and their weights.
        tolerance: the error that is allowed in addition to 4.5 standard errors.
        what: the name of the density in the sentence.
    """
    if tolerance == math.inf:
        return
    z, random, mass = rule.points, rule.random, _mass(distribution, rule)
    subject.require(not mass.isnan().any(), f"{what} is not a number at some points")
    total = mass.sum().item()
    error = mass.std().item() * len(mass) ** 0.5 if random else 0.0
    if not abs(total - 1) < tolerance + 4.5 * error:
        sentence = f"{what} integrates to {total:.5g}, and not to 1"
        if rule.coarser:
            coarse = _mass(distribution, rule.coarser()).sum().item()
            sentence += f" (on half as fine a grid, to {coarse:.5g}; if the two differ, the "
            sentence += "density is too narrow for the grid)"
        subject.require(False, sentence)
    drawn = draw(distribution, SAMPLES).double()
    # Bounded functions, so that there is a standard error whatever the tails.
    functions = {
        "tanh(z)": torch.tanh,
        "cos(1.7 z)": lambda v: torch.cos(1.7 * v),
        "tanh(prod(z))": lambda v: v.prod(1).tanh()[:, None],
    }
    for label, function in functions.items():
        values = function(z)
        expected = (mass[:, None] * values).sum(0) / (total if random else 1)
        squares = mass[:, None] * (values - expected) ** 2
        variance = squares.sum(0).clamp(min=0) / SAMPLES
        if random:
            variance = variance + (mass[:, None] * (values - expected)).square().sum(0)
        found = function(drawn).mean(0)
        subject.require(
            ((found - expected).abs() < 4.5 * variance.sqrt() + tolerance).all(),
            f"samples do not follow {what}: the mean of {label} is {_rounded(found)} over samples, "
            f"and {_rounded(expected)} by integration",
        )


def _mass(distribution: Any, rule: Rule) -> Tensor:
    """Return the share of a density that each point of a rule stands for."""
    with torch.no_grad():
        parts = rule.points.split(100_000)
        log_p = torch.cat([distribution.log_prob(part) for part in parts])
    return (log_p.double() + rule.log_weights).exp()


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
