"""Annealed importance sampling against exact answers: both bounds, and their intervals."""

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.infer.autoguide
import pytest
import torch
from conftest import LinearGaussian
from torch import Tensor

from pyro_vae import VAE, InputError, bounds, likelihoods, posteriors, priors
from pyro_vae.bounds import Annealed, Estimate, Settings, annealing, simulation
from pyro_vae.bounds.annealing_moves import TARGET_ACCEPTANCE, Chains
from pyro_vae.bounds.annealing_results import lower_bound, upper_bound
from pyro_vae.bounds.densities import Densities, prior_of
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at

REPETITIONS = 300


def errors(estimate: Estimate, exact: Tensor) -> tuple[float, float]:
    """Return the mean error of an estimate, and the standard error of that mean."""
    off = estimate.values - exact
    return off.mean().item(), (off.std() / len(off) ** 0.5).item()


def assert_both_sides(result: Annealed, exact: Tensor, within: float = 0.05) -> None:
    """In expectation the lower bound is below and the upper above; both are close."""
    low, low_error = errors(result.lower, exact)
    high, high_error = errors(result.upper, exact)
    assert low < 4.5 * low_error and high > -4.5 * high_error
    assert abs(low) < within + 4.5 * low_error and abs(high) < within + 4.5 * high_error
    # The stated error is near the actual one: it is estimated from 16 skewed weights.
    assert result.lower.mc_se == pytest.approx(low_error, rel=0.5)


@pytest.mark.parametrize(("start", "schedule"), [("posterior", "sigmoid"), ("prior", "linear")])
def test_linear_gaussian(start: Any, schedule: Any) -> None:
    """From q(z|x), and from p(z), 150 examples of two dimensions."""
    known = LinearGaussian(2)
    x = known.marginal.sample((150,))
    settings = Settings(temperatures=30, start=start, schedule=schedule)
    result = bounds.anneal(known.vae.model, known.vae.guide, x, settings)
    assert_both_sides(result, known.marginal.log_prob(x))
    assert result.upper_flaw is None and 0.5 < result.acceptance.mean() < 0.95


@pytest.mark.parametrize(("latent_dim", "temperatures"), [(10, 60), (30, 100)])
def test_more_dimensions(latent_dim: int, temperatures: int) -> None:
    """Within 0.05 nats; in 30 dimensions IWAE_1000 is off by more than a quarter of a nat."""
    known = LinearGaussian(latent_dim, 2 * latent_dim)
    x = known.marginal.sample((100,))
    exact = known.marginal.log_prob(x)
    model, guide = known.vae.model, known.vae.guide
    result = bounds.anneal(model, guide, x, Settings(temperatures=temperatures))
    assert_both_sides(result, exact)
    if latent_dim == 30:
        assert bounds.evaluate(model, guide, x, 1000).iwae[1000].mean < exact.mean().item() - 0.25


def test_nonlinear(nonlinear: VAE) -> None:
    x = nonlinear.model(size=100)
    exact = bounds.quadrature(nonlinear.model, x)
    result = bounds.anneal(nonlinear.model, nonlinear.guide, x, Settings(temperatures=60))
    assert_both_sides(result, exact)
    # By Markov's inequality, at a level at which chance plays no part.
    assert result.certified(1e-6) < exact.mean().item()


def test_weights_are_unbiased() -> None:
    """E[w] = p(x) with few temperatures and chains that hardly move: all bounds rest on this."""
    known = LinearGaussian(1)
    x = known.marginal.sample((1,)).expand(40, -1)
    for settings in (
        Settings(temperatures=3, chains=1000, leapfrog=1),
        Settings(temperatures=8, chains=1000, leapfrog=2, start="prior"),
    ):
        result = bounds.anneal(known.vae.model, known.vae.guide, x, settings)
        ratio = (result.log_w - known.marginal.log_prob(x)).exp().flatten()
        assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / len(ratio) ** 0.5
        assert ratio.std() > 0.1  # the weights are not constant


def test_intervals_cover() -> None:
    """The Monte Carlo intervals of 20 examples cover mean log p(x) in 90 to 99 % of repetitions.

    All repetitions are made at once: examples are independent of each other.
    """
    known = LinearGaussian(2)
    x = known.marginal.sample((20 * REPETITIONS,))
    settings = Settings(temperatures=20, leapfrog=2)
    result = bounds.anneal(known.vae.model, known.vae.guide, x, settings, batch_size=2000)
    off = known.marginal.log_prob(x).reshape(REPETITIONS, 20)
    for bound in (result.lower, result.upper):
        means = (bound.values.reshape(REPETITIONS, 20) - off).mean(1)
        errors = bound.mc_variance.reshape(REPETITIONS, 20).sum(1).sqrt() / 20
        covered = (means.abs() < 1.96 * errors).double().mean()
        assert 0.90 <= covered <= 0.99, covered
    certified = [
        bounds.certified(values, 0.05) <= exact.mean().item()
        for values, exact in zip(result.lower.values.split(20), off, strict=True)
    ]
    assert sum(certified) >= 0.95 * REPETITIONS


def test_upper_bound_of_known_weights() -> None:
    """For log-normal weights both bounds are known: log p -+ about half the relative variance."""
    sigma, chains = 0.4, 8
    normal = torch.randn(chains, 20_000, dtype=torch.float64)
    log_w = sigma * normal - sigma**2 / 2  # p = 1
    relative = math.expm1(sigma**2)
    for estimate, expected in (
        (lower_bound(log_w), -relative / 2 / chains),
        (upper_bound(log_w), relative / 2 / (chains - 1)),
    ):
        off, error = errors(estimate, torch.zeros(()))
        assert off == pytest.approx(expected, abs=4.5 * error + 0.2 * abs(expected))
        assert estimate.mc_se == pytest.approx(error, rel=0.1)
    log_w = log_w[:, :3]
    terms = []
    for k in range(chains):
        others = torch.cat([log_w[:k], log_w[k + 1 :]])
        log_x = bounds.iwae(others)
        terms.append(log_x + (log_w[k] - log_x).exp() - 1)
    torch.testing.assert_close(upper_bound(log_w).values, torch.stack(terms).mean(0))


def test_upper_bounds_without_a_variance_are_flagged() -> None:
    """Plain importance weights have too heavy tails, and few weights tell nothing of theirs."""
    known = LinearGaussian(10, 20, misfit=0.5)  # a q that is too narrow
    x = known.marginal.sample((100,))
    log_w = bounds.log_weights(known.vae.model, known.vae.guide, x, 16).detach().double()
    raw = Annealed(Settings(temperatures=1), log_w, torch.ones(100))
    assert "too heavy" in raw.upper_flaw and raw.upper_k > 0.7
    few = Annealed(Settings(chains=2), log_w[:2, :1], torch.ones(1))
    assert "too few weights" in few.upper_flaw
    same = Annealed(Settings(), torch.zeros(16, 10).double(), torch.ones(10))
    assert same.upper_flaw is None and same.upper.mean == pytest.approx(same.lower.mean)
    nothing = Annealed(Settings(), torch.full((16, 10), -math.inf).double(), torch.zeros(10))
    assert "not finite" in nothing.upper_flaw and "of moves" in nothing.chain_flaw
    json.dumps(nothing.to_dict(), allow_nan=False)
    known = LinearGaussian(10, 20)
    x = known.marginal.sample((100,))
    annealed = bounds.anneal(known.vae.model, known.vae.guide, x, Settings(temperatures=60))
    assert annealed.upper_flaw is None


def test_bidirectional(nonlinear: VAE) -> None:
    """Data from the model itself: the bounds enclose log p(x), which is known here too."""
    drawn: list[Tensor] = []

    def simulate(*args: Any) -> tuple[dict[str, Tensor], Arguments]:
        latents, arguments = simulation.simulate(*args)
        drawn.extend(arguments.tensors())
        return latents, arguments

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annealing, "simulate", simulate)
        result = bounds.bidirectional(
            nonlinear.model, nonlinear.guide, torch.zeros(100, 3, 4), Settings(temperatures=40)
        )
    exact = bounds.quadrature(nonlinear.model, torch.cat(drawn))
    off, error = errors(result.forward.lower, exact)
    assert -0.05 - 4.5 * error < off < 4.5 * error
    off, error = errors(result.upper, exact)
    assert -4.5 * error < off < 0.05 + 4.5 * error
    assert result.gap.mean == pytest.approx(result.upper.mean - result.forward.lower.mean)
    assert math.isnan(result.gap.mc_se) and result.to_dict()["gap"]["mc_se"] is None
    assert result.to_dict()["gap"]["mean"] == result.gap.mean


def test_backward_weights_are_unbiased() -> None:
    """E[1 / w] = 1 / p(x), from exact draws, however badly the chains mix."""
    known = LinearGaussian(1)
    settings = Settings(temperatures=3, chains=2, leapfrog=1)
    chains, _ = chains_of(known.vae, torch.zeros(2, 4).double(), settings)
    template = Arguments(torch.zeros(40_000, 4).double())
    latents, simulated = simulation.simulate(known.vae.model, template)
    u = chains.densities.coordinates_of(latents, 2, simulated)
    moves = chains.pilot(simulated, lambda _: None)
    log_w, _, _ = chains.run(u, simulated, moves, lambda _: None, backward=True)
    (x,) = simulated.tensors()
    ratio = (known.marginal.log_prob(x) - log_w).exp().mean(0)  # p / w, whose mean is one
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / len(ratio) ** 0.5
    assert ratio.std() > 0.1


# Mistakes that tests have to catch.


def chains_of(
    vae: VAE, x: Tensor, settings: Settings, kind: type[Chains] = Chains
) -> tuple[Chains, Arguments]:
    """Return the chains of a VAE, and what its programs are called with."""
    arguments = Arguments(x)
    return kind(look_at(vae.model, vae.guide, arguments), arguments, settings), arguments


def assert_chains_are_their_own(chains: Chains, x: Arguments) -> None:
    """Check that a chain's weight does not depend on where the other chains begin."""
    moves = chains.pilot(x, lambda _: None)
    u = chains.densities.draw(4, x)
    other = u.clone()
    other[1:] += 0.7
    outcomes = []
    for start in (u, other):
        torch.manual_seed(5)
        outcomes.append(chains.run(start, x, moves, lambda _: None)[0])
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    assert not torch.equal(outcomes[0][1], outcomes[1][1])


def test_moves_are_frozen(linear_gaussian: LinearGaussian) -> None:
    x = linear_gaussian.marginal.sample((5,))
    settings = Settings(temperatures=20, chains=4)
    assert_chains_are_their_own(*chains_of(linear_gaussian.vae, x, settings))


class _Adapting(Chains):
    """Adapts step sizes in the run that counts."""

    factor = 1.0

    def move(self, point: Any, x: Arguments, beta: float, step: Tensor, scale: Tensor) -> Any:
        point, accepted = super().move(point, x, beta, step * self.factor, scale)
        self.factor *= math.exp(accepted.mean().item() - TARGET_ACCEPTANCE)
        return point, accepted


def test_adapting_in_the_run_that_counts_is_caught(linear_gaussian: LinearGaussian) -> None:
    x = linear_gaussian.marginal.sample((5,))
    settings = Settings(temperatures=20, chains=4)
    chains = chains_of(linear_gaussian.vae, x, settings, _Adapting)
    with pytest.raises(AssertionError):
        assert_chains_are_their_own(*chains)


def test_moves_leave_their_density_invariant() -> None:
    """Exact draws from f_t, here p(z|x), still have the moments of f_t after the move."""
    known = LinearGaussian(2)
    vae, x = known.vae, known.marginal.sample((1,)).expand(4000, -1)
    chains, arguments = chains_of(vae, x, Settings(leapfrog=3))
    mean = (x[0] - vae.likelihood.decoder.bias) @ vae.likelihood.decoder.body[1].weight
    mean = (mean @ known.posterior_covariance / known.scale**2).detach()
    exact = torch.distributions.MultivariateNormal(mean, known.posterior_covariance)
    point = chains.densities.point(exact.sample((2, 4000)), arguments)
    step, scale = torch.full((4000,), 1.1).double(), torch.full((4000, 2), 0.4).double()
    for _ in range(3):
        point, accepted = chains.move(point, arguments, 1.0, step, scale)
    assert 0.3 < accepted.mean() < 0.95  # so that a wrong ratio would show
    standardised = (point.u - mean).flatten(0, 1) @ torch.linalg.inv(
        torch.linalg.cholesky(known.posterior_covariance)
    ).T
    count = len(standardised)
    assert (standardised.mean(0).abs() < 4.5 / count**0.5).all()
    assert (
        (standardised.T @ standardised / count - torch.eye(2)).abs() < 4.5 * (2 / count) ** 0.5
    ).all()


# Programs that are not VAEs.


def simple() -> tuple[Callable, Callable]:
    """Return a model and a guide with one scalar site, where x ~ N(0, 2)."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.4 * x, 1.0))

    return model, guide


def positive_model(x: Tensor) -> None:
    """Constrained sites in two layers, in a data plate that is not the last dimension.

    x_j ~ N(level, variance), variance ~ InverseGamma(3, 2), level | variance ~ N(0, 2 variance):
    x is Student's t.
    """
    with pyro.plate("examples", len(x), dim=-2):
        variance = pyro.sample("variance", dist.InverseGamma(3.0, 2.0))
        level = pyro.sample("level", dist.Normal(0.0, (2 * variance).sqrt()))
        with pyro.plate("pixels", x.shape[1], dim=-1):
            pyro.sample("x", dist.Normal(level, variance.sqrt()), obs=x)


def positive_guide(x: Tensor) -> None:
    with pyro.plate("examples", len(x), dim=-2):
        pyro.sample("variance", dist.LogNormal(-0.2, 0.7))
        pyro.sample("level", dist.Normal(0.8 * x.mean(1, keepdim=True), 0.8))


@pytest.mark.parametrize("start", ["posterior", "prior"])
def test_constrained_sites_and_nested_plates(start: Any) -> None:
    x = torch.randn(60, 3)
    scale = torch.linalg.cholesky(2 / 3 * (torch.eye(3) + 2 * torch.ones(3, 3)))
    exact = dist.MultivariateStudentT(torch.tensor(6.0), torch.zeros(3), scale).log_prob(x)
    settings = Settings(temperatures=50, start=start)
    result = bounds.anneal(positive_model, positive_guide, x, settings, plate="examples")
    assert_both_sides(result, exact.double())


def test_bidirectional_with_constrained_sites() -> None:
    x = torch.zeros(60, 3)
    settings = Settings(temperatures=60)
    result = bounds.bidirectional(positive_model, positive_guide, x, settings, plate="examples")
    assert -4.5 * result.gap.se < result.gap.mean < 0.1 + 4.5 * result.gap.se


@pytest.mark.filterwarnings("ignore:all examples are taken at once")
def test_autoguides() -> None:
    """Their latent sites are points, computed from auxiliary sites, which HMC moves."""
    model, _ = simple()
    x = torch.tensor([0.3, -1.0, 2.0, 0.5])
    guide = pyro.infer.autoguide.AutoNormal(model, init_scale=0.9)
    result = bounds.anneal(model, guide, x, Settings(temperatures=50, chains=64))
    exact = torch.distributions.Normal(0.0, 2**0.5).log_prob(x).double()
    error = result.lower.mc_variance.sqrt()
    assert ((result.lower.values - exact).abs() < 4.5 * error + 0.01).all()
    with pytest.raises(InputError, match="auxiliary site"):
        bounds.bidirectional(model, guide, x, Settings(temperatures=5))
    bounds.bidirectional(model, guide, x, Settings(temperatures=5, start="prior"))


def test_chains_that_diverge_where_a_site_is_summed_out() -> None:
    """Far away, the site's distribution is NaN: nothing can be drawn from it."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            p = torch.where(z.abs() < 8, z.sigmoid(), math.nan)
            mark = {"enumerate": "parallel"}
            c = pyro.sample("c", dist.Categorical(torch.stack([p, 1 - p], -1)), infer=mark)
            pyro.sample("x", dist.Normal(c.float(), 1.0), obs=x)

    x = torch.tensor([0.3, -1.0, 2.0])
    pair = look_at(model, prior_of(model), Arguments(x))
    densities = Densities(pair, Arguments(x))
    point = densities.point(torch.tensor([0.5, 100.0, -1.0]).expand(2, 3)[..., None], Arguments(x))
    assert point.log_p.isnan().tolist() == [[False, True, False]] * 2
    settings = Settings(temperatures=40, chains=64, start="prior")
    result = bounds.anneal(model, prior_of(model), x, settings)
    exact = torch.stack([dist.Normal(c, 1.0).log_prob(x) for c in (0.0, 1.0)]).logsumexp(0)
    error = result.lower.mc_variance.sqrt()
    assert ((result.lower.values - (exact - math.log(2))).abs() < 4.5 * error + 0.01).all()


@pytest.mark.parametrize(
    ("prior", "posterior"),
    [
        (priors.Hierarchical, posteriors.Hierarchical),
        (priors.Hierarchical, partial(posteriors.Ladder, top_dim=[3, 2])),
        (priors.Hierarchical, partial(posteriors.BottomUp, top_dim=[3, 2])),
        (priors.Vamp, posteriors.FullNormal),
        (priors.Flow, posteriors.LowRankNormal),
        (priors.LARS, posteriors.Normal),
        (priors.StudentT, posteriors.IAF),
        (priors.Mixture, posteriors.SplineFlow),
    ],
)
def test_parts_of_a_vae(prior: Callable, posterior: Callable) -> None:
    """Both bounds agree with each other and with IWAE, for any parts."""
    vae = VAE(prior(3), likelihoods.Bernoulli(3, [4, 4]), posterior([4, 4], 3)).eval()
    x = vae.model(size=30).detach()
    result = bounds.anneal(vae.model, vae.guide, x, Settings(temperatures=40, leapfrog=2))
    iwae = bounds.evaluate(vae.model, vae.guide, x, 2000).iwae[2000]
    # The spread of differences over examples contains all noise.
    width, difference = result.upper - result.lower, result.lower - iwae
    assert width.mean < 0.1 + 4.5 * width.se
    assert abs(difference.mean) < 0.05 + 4.5 * difference.se


def test_gradients_of_both_densities(nonlinear: VAE) -> None:
    x = nonlinear.model(size=5)
    arguments = Arguments(x)
    both = Densities(look_at(nonlinear.model, nonlinear.guide, arguments), arguments)
    u = both.draw(3, arguments)
    point = both.point(u, arguments)
    z = u.clone().requires_grad_()
    log_q = nonlinear.posterior(x).log_prob(z)
    log_p = nonlinear.prior().log_prob(z) + nonlinear.likelihood(z).log_prob(x)
    for value, log, gradient in (
        (log_q, point.log_q, point.grad_q),
        (log_p, point.log_p, point.grad_p),
    ):
        torch.testing.assert_close(log, value.detach())
        (expected,) = torch.autograd.grad(value.sum(), z, retain_graph=True)
        torch.testing.assert_close(gradient, expected)


def test_what_is_refused(nonlinear: VAE) -> None:
    model, guide = nonlinear.model, nonlinear.guide
    x = nonlinear.model(size=3)
    for wrong, said in (
        ({"chains": 1}, "chains have to be at least 2"),
        ({"temperatures": 0}, "temperatures"),
        ({"leapfrog": 0}, "leapfrog"),
        ({"start": "middle"}, "posterior or prior"),
        ({"schedule": "cubic"}, "sigmoid or linear"),
    ):
        with pytest.raises(InputError, match=said):
            Settings(**wrong)
    with pytest.raises(InputError, match="no examples"):
        bounds.anneal(model, guide, x[:0])

    def unobserved(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(InputError, match="with an observed site"):
        simulation.simulate(unobserved, Arguments(x))


def test_seed_and_global_generator(nonlinear: VAE) -> None:
    x, settings = nonlinear.model(size=3), Settings(temperatures=5)
    before = torch.get_rng_state()
    first, again, other = (
        bounds.anneal(nonlinear.model, nonlinear.guide, x, settings, seed=seed).log_w
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again) and not torch.equal(first, other)
