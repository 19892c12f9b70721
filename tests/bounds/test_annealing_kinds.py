"""Annealing of circles, spheres, discrete sites and mixtures of them, against exact answers."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import annealing_programs as programs
import pytest
import torch
from annealing_programs import Known, assert_unbiased, chains_of, deviations
from torch import Tensor

from pyro_vae import VAE, bounds, likelihoods, posteriors, priors
from pyro_vae.bounds import Settings, coordinates, discrete_moves
from pyro_vae.bounds.annealing_moves import Chains
from pyro_vae.bounds.coordinates import Circle, Line, Sphere
from pyro_vae.bounds.densities import Densities, prior_of
from pyro_vae.bounds.simulation import simulate
from pyro_vae.programs.arguments import Arguments

SPHERES = [partial(programs.sphere, dim) for dim in (2, 3, 7)]
ALL = [*programs.CIRCLES, *SPHERES, *programs.DISCRETE, *programs.MIXED]
NAMES = [getattr(make, "__name__", f"sphere{getattr(make, 'args', '')}") for make in ALL]


@pytest.mark.parametrize("make", ALL, ids=NAMES)
@pytest.mark.parametrize(
    ("temperatures", "chains", "start"),
    [(1, 400, "posterior"), (5, 400, "prior"), (8, 400, "posterior"), (30, 100, "prior")],
)
def test_weights_are_unbiased(
    make: Callable[[], Known], temperatures: int, chains: int, start: Any
) -> None:
    assert_unbiased(make(), Settings(temperatures, chains, leapfrog=2, start=start))


@pytest.mark.parametrize("make", ALL, ids=NAMES)
def test_more_temperatures_give_tighter_bounds(make: Callable[[], Known]) -> None:
    """The weights of 40 temperatures vary much less than importance weights: the chains move."""
    known = make()
    spreads = []
    for temperatures in (1, 40):
        settings = Settings(temperatures, chains=100, leapfrog=2)
        spreads.append(deviations(known, settings, repeats=1)[2])
    assert spreads[1] < 0.6 * spreads[0]


def layers(prior: Callable, posterior: Callable, **options: Any) -> tuple[Callable, Callable]:
    """Return a prior and a posterior in two layers, with the given upper ones."""
    return (
        partial(priors.Hierarchical, top=partial(prior, **options)),
        partial(posteriors.Hierarchical, top=partial(posterior, **options), top_dim=4, features=8),
    )


@pytest.mark.parametrize(
    ("prior", "posterior"),
    [
        (priors.UniformSphere, posteriors.PowerSpherical),
        (priors.Bernoulli, posteriors.Bernoulli),
        (partial(priors.Categorical, categories=2), partial(posteriors.Categorical, categories=2)),
        (partial(priors.Vamp, components=3), posteriors.FullNormal),
        (partial(priors.Vamp, components=3), posteriors.PowerSpherical),
        (partial(priors.Vamp, components=3), posteriors.Bernoulli),
        (partial(priors.Vamp, components=3), partial(posteriors.Categorical, categories=2)),
        layers(priors.UniformSphere, posteriors.PowerSpherical),
        layers(priors.Bernoulli, posteriors.Bernoulli),
        layers(priors.Categorical, posteriors.Categorical, categories=2),
    ],
)
def test_parts_of_a_vae(prior: Callable, posterior: Callable) -> None:
    """Both bounds agree with each other and with many importance samples from the prior."""
    vae = VAE(prior(4), likelihoods.Bernoulli(4, [3, 3]), posterior([3, 3], 4)).eval()
    x = vae.model(size=6).detach()
    settings = Settings(20, chains=64, leapfrog=2)
    result = bounds.anneal(vae.model, vae.guide, x, settings)
    log_w = bounds.log_weights(vae.model, prior_of(vae.model), x, 10_000).double()
    error = (log_w.exp().var(0) / 10_000 / log_w.exp().mean(0).square() + 1e-6).sqrt()
    for bound in (result.lower, result.upper):
        off = (bound.values - bounds.iwae(log_w)).abs()
        assert (off < 4.5 * (bound.mc_variance + error.square()).sqrt() + 0.02).all()
    settings = replace(settings, start="prior")
    gap = bounds.bidirectional(vae.model, vae.guide, x, settings).gap
    assert -4.5 * gap.se - 0.02 < gap.mean < 0.2 + 4.5 * gap.se


@pytest.mark.parametrize(
    "make", [programs.circle, partial(programs.sphere, 3), programs.circle_over_categories]
)
@pytest.mark.usefixtures("traced")
def test_traced(make: Callable[[], Known]) -> None:
    """The graphs of the densities give the same weights; test_batches.py compiles such a graph."""
    known = make()
    settings = Settings(4, chains=8, leapfrog=2)
    log_w, traced = (
        bounds.anneal(known.model, known.guide, known.x, settings, compile=compile).log_w
        for compile in (False, True)
    )
    torch.testing.assert_close(log_w, traced)


# Mistakes that the tests above have to catch.


def is_biased(known: Known, settings: Settings) -> bool:
    forward, backward, _, _ = deviations(known, settings, repeats=20)
    return bool((torch.cat([forward, backward]).abs() > 6).any())


def test_a_circle_that_is_taken_for_a_line_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinates, "is_circle", lambda *_: False)
    assert is_biased(programs.circle(), Settings(8, chains=400, leapfrog=2))


def test_a_proposal_without_its_reverse_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(8, chains=400, leapfrog=2)
    assert not is_biased(programs.binary(), settings)
    log_probability = discrete_moves.log_probability
    monkeypatch.setattr(discrete_moves, "log_probability", lambda *args: 0 * log_probability(*args))
    assert is_biased(programs.binary(), settings)


def test_gradients_in_place_of_differences_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A move whose density is that of the gradient alone."""

    def accept(
        self: Chains, point: Any, new: Any, beta: float, log_ratio: Tensor
    ) -> tuple[Any, Tensor]:
        return new, torch.ones_like(log_ratio)

    monkeypatch.setattr(Chains, "_accept", accept)
    assert is_biased(programs.integers(), Settings(8, chains=400, leapfrog=2))


def radius_and_height(known: Known) -> tuple[Tensor, Tensor]:
    """Return |u|^2, and z'x / |x|, after moves from exact draws of z given x."""
    settings = Settings(leapfrog=3)
    template = Arguments(known.x[:1].expand(20_000, -1).clone())
    latents, arguments = simulate(known.model, template)
    chains, _ = chains_of(known, *arguments.tensors(), settings)
    u = chains.densities.coordinates_of(latents, 2, arguments)
    point = chains.densities.point(u, arguments)
    step, scale = torch.full_like(u[0, :, 0], 0.4), torch.ones_like(u[0])
    for _ in range(4):
        point, accepted = chains.move(point, arguments, 1.0, step, scale)
    assert 0.3 < accepted.mean() < 0.97  # so that a wrong ratio would show
    return point.u.square().sum(-1).mean(0), accepted


def assert_radius(known: Known) -> None:
    """The radius still has its own density: |u|^2 is chi-squared with d degrees of freedom."""
    square, _ = radius_and_height(known)
    error = square.std() / len(square) ** 0.5
    assert abs(square.mean() - known.x.shape[1]) < 4.5 * error


@pytest.mark.parametrize("make", SPHERES)
def test_moves_leave_the_radius_invariant(make: Callable[[], Known]) -> None:
    assert_radius(make())


@pytest.mark.parametrize("power", [-1, 1, 2])
def test_a_wrong_density_of_the_radius_is_caught(
    monkeypatch: pytest.MonkeyPatch, power: int
) -> None:
    """The surface of a sphere of radius |u| is forgotten, or counted twice."""
    right = Sphere.value

    def wrong(self: Sphere, fn: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        value, log_density = right(self, fn, u)
        return value, log_density + power * u.norm(dim=-1).log()

    monkeypatch.setattr(Sphere, "value", wrong)
    with pytest.raises(AssertionError):
        assert_radius(programs.sphere(3))


@pytest.mark.parametrize("backward", [False, True])
def test_backward_chains_reverse_the_order_of_moves(backward: bool) -> None:
    known = programs.bit_over_line()
    chains, arguments = chains_of(known, known.x, Settings(4, chains=4))
    order: list[str] = []

    def recorded(name: str, move: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            order.append(name)
            return move(*args)

        return call

    chains._kinds = [
        (recorded(name, move), *rest)
        for name, (move, *rest) in zip(("hmc", "discrete"), chains._kinds, strict=True)
    ]
    moves = chains.pilot(arguments, lambda _: None)
    order.clear()
    u = chains.densities.draw(4, arguments)
    chains.run(u, arguments, moves, lambda _: None, backward=backward)
    assert order == (["discrete", "hmc"] if backward else ["hmc", "discrete"]) * 3


def test_layout() -> None:
    """Coordinates that HMC moves come first, then a weight for each value of each variable."""
    known = programs.circle_over_categories()
    chains, arguments = chains_of(known, known.x, Settings(4, chains=4))
    densities: Densities = chains.densities
    assert (densities.dims, densities.continuous, densities.variables) == (4, 1, [(1, 4, 3)])
    u = densities.draw(50, arguments)
    assert (u[..., 1:].sum(-1) == 1).all() and (u[..., 0].abs() <= math.pi).all()
    moved = densities.add(u, torch.full_like(u[..., :1], 6.0))
    assert (moved[..., 0].abs() <= math.pi).all() and torch.equal(moved[..., 1:], u[..., 1:])
    torch.testing.assert_close(moved[..., 0].cos(), (u[..., 0] + 6.0).cos())
    near_pi = torch.where(torch.rand(1000, 1, 1) < 0.5, -1, 1) * (math.pi - 0.1 * torch.rand(1))
    around = torch.cat([near_pi, torch.zeros(1000, 1, 3)], -1)
    assert densities.scale(around).max() < 0.2  # two sides of one place, not two places
    kinds = [type(site.coordinates) for site in densities._sites.values()]
    assert kinds[0] is Circle and Line not in kinds
