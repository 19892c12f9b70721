"""The bounds and their errors against exact answers, for VAEs and for other programs."""

import json
import math
import weakref
from collections.abc import Callable
from itertools import combinations, pairwise

import pyro
import pyro.distributions as dist
import pyro.infer.autoguide
import pytest
import torch
from conftest import LinearGaussian
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae import VAE, InputError, bounds
from pyro_vae.bounds import importance, khat
from pyro_vae.bounds.streaming import Stream

REPETITIONS = 200


def assert_ladder(result: bounds.Bounds, exact: Tensor) -> None:
    """ELBO < IWAE_5 < IWAE_50 < IWAE_500 <= log p(x) in expectation; IWAE_5000 is close to it."""
    rungs = [result.elbo, *(result.iwae[k] for k in (5, 50, 500))]
    for lower, higher in pairwise(rungs):
        # Paired over the same examples; the errors are those of the Monte Carlo means.
        noise = math.hypot(lower.mc_se, higher.mc_se)
        assert higher.mean - lower.mean > 3 * noise
    for estimate in result.iwae.values():
        assert estimate.mean - exact.mean().item() < 3 * estimate.mc_se
    assert abs(result.iwae[5000].mean - exact.mean().item()) < 0.02


def test_linear_gaussian_ladder(linear_gaussian: LinearGaussian) -> None:
    x = linear_gaussian.marginal.sample((300,))
    vae = linear_gaussian.vae
    result = bounds.evaluate(vae.model, vae.guide, x)
    assert_ladder(result, linear_gaussian.marginal.log_prob(x))
    exact = linear_gaussian.elbo(x).mean().item()
    assert abs(result.elbo.mean - exact) < 4 * result.elbo.mc_se
    assert abs(result.iwae[1].mean - exact) < 4 * result.elbo.mc_se


def test_nonlinear_ladder(nonlinear: VAE) -> None:
    x = nonlinear.model(size=200)
    result = bounds.evaluate(nonlinear.model, nonlinear.guide, x)
    assert_ladder(result, bounds.quadrature(nonlinear.model, x))


def shares_covered(
    vae: VAE, draw: Callable[[int], Tensor], log_p: Callable[[Tensor], Tensor], population: float
) -> tuple[float, float]:
    """Return the shares of the repetitions in which two intervals cover the mean log p(x).

    The interval over examples should cover the mean of the population, the Monte Carlo interval the
    mean of the given examples. With 500 draws the bias of IWAE is a tenth of that error. Where the
    Monte Carlo error is unknown, there is no such interval.
    """
    x = draw(REPETITIONS * 40)  # the draws for each example are independent
    together = bounds.evaluate(vae.model, vae.guide, x, 500, ladder=[]).iwae[500]
    over_examples = over_draws = stated = 0
    for index, exact in zip(torch.arange(len(x)).split(40), log_p(x).split(40), strict=True):
        estimate = together[index]
        low, high = estimate.ci95
        over_examples += low <= population <= high
        stated += math.isfinite(estimate.mc_se)
        over_draws += abs(estimate.mean - exact.mean().item()) <= 1.96 * estimate.mc_se
    assert stated > REPETITIONS / 2
    return over_examples / REPETITIONS, over_draws / stated


def test_linear_gaussian_coverage(linear_gaussian: LinearGaussian) -> None:
    marginal = linear_gaussian.marginal
    covered = shares_covered(
        linear_gaussian.vae,
        lambda count: marginal.sample((count,)),
        marginal.log_prob,
        -marginal.entropy().item(),
    )
    assert all(0.90 <= share <= 0.99 for share in covered), covered


def test_nonlinear_coverage(nonlinear: VAE) -> None:
    population = nonlinear.model(size=100)
    exact = bounds.quadrature(nonlinear.model, population)
    chosen = torch.zeros(0)

    def draw(count: int) -> Tensor:
        nonlocal chosen
        chosen = torch.randint(len(population), (count,))
        return population[chosen]

    covered = shares_covered(nonlinear, draw, lambda _: exact[chosen], exact.mean().item())
    assert all(0.90 <= share <= 0.99 for share in covered), covered


def softmax_weighted(log_w: Tensor) -> Tensor:
    return (log_w.softmax(0) * log_w).sum(0)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda log_w: log_w.logsumexp(0),
        lambda log_w: log_w.logsumexp(0) - math.log(0.97 * len(log_w)),
        lambda log_w: log_w.logsumexp(0) - math.log(len(log_w) + 150),
        softmax_weighted,
        bounds.elbo,
    ],
    ids=["no log K", "a larger K", "a smaller K", "softmax-weighted", "ELBO"],
)
def test_wrong_reductions_are_told_from_iwae(
    linear_gaussian: LinearGaussian, mutant: Callable[[Tensor], Tensor]
) -> None:
    """The tolerance of the ladder test is tight enough to fail for mistakes that others made."""
    x = linear_gaussian.marginal.sample((300,))
    exact = linear_gaussian.marginal.log_prob(x).mean()
    vae = linear_gaussian.vae
    log_w = torch.cat(
        [bounds.log_weights(vae.model, vae.guide, x, 1000).detach() for _ in range(5)]
    )
    assert abs(bounds.iwae(log_w).mean() - exact) < 0.02
    assert abs(mutant(log_w).mean() - exact) > 0.02


def test_evaluate_is_the_plain_reduction_of_the_same_weights() -> None:
    """Streaming, chunks and groups return what a few plain lines return."""
    linear_gaussian = LinearGaussian()
    x = linear_gaussian.marginal.sample((7,))
    vae = linear_gaussian.vae
    torch.manual_seed(5)
    log_w = bounds.log_weights(vae.model, vae.guide, x, 103).detach()
    for chunk_size in (7, 40, 300, 10_000):
        drawn = iter(log_w.split(max(1, chunk_size // 7)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(importance, "_log_w", lambda *a, d=drawn: next(d))
            result = bounds.evaluate(
                vae.model, vae.guide, x, 103, ladder=[1, 10, 60, 500], chunk_size=chunk_size
            )
        assert list(result.iwae) == [1, 10, 60, 103]
        groups = torch.stack([bounds.iwae(group) for group in log_w[:100].split(10)])
        torch.testing.assert_close(result.elbo.values, log_w.mean(0))
        torch.testing.assert_close(result.elbo.mc_variance, log_w.var(0) / 103)
        torch.testing.assert_close(result.iwae[1].values, log_w.mean(0))
        torch.testing.assert_close(result.iwae[10].values, groups.mean(0))
        torch.testing.assert_close(result.iwae[10].mc_variance, groups.var(0) / 10)
        torch.testing.assert_close(result.iwae[103].values, bounds.iwae(log_w))
        # The delta method, term by term.
        w_term = log_w.softmax(0) * 103 - 1
        l_term = log_w - log_w.mean(0)
        expected = w_term.square().sum(0) / 103**2
        torch.testing.assert_close(result.iwae[103].variance, expected)
        torch.testing.assert_close(result.iwae[60].values, bounds.iwae(log_w[:60]))
        torch.testing.assert_close(result.iwae[60].variance, expected * 103 / 60)
        expected = (w_term - l_term).square().sum(0) / 103**2
        torch.testing.assert_close(result.gap.variance, expected)
        torch.testing.assert_close(result.ess, 1 / log_w.softmax(0).square().sum(0))
        torch.testing.assert_close(result.gap.values, bounds.iwae(log_w) - log_w.mean(0))


def test_monte_carlo_error_of_the_gap(linear_gaussian: LinearGaussian) -> None:
    """The stated error of the gap is the spread of reruns on the same examples."""
    x = linear_gaussian.marginal.sample((20,)).repeat(10, 1)  # ten reruns at once
    vae = linear_gaussian.vae
    runs = []
    for seed in range(20):
        found = bounds.evaluate(
            vae.model, vae.guide, x, 500, ladder=[], seed=seed, batch_size=len(x)
        )
        runs += [found.gap[rerun] for rerun in torch.arange(len(x)).split(20)]
    assert len(runs) == 200
    spread = torch.tensor([run.mean for run in runs]).std().item()
    stated = sum(run.mc_se for run in runs) / len(runs)
    assert abs(spread / stated - 1) < 4 / math.sqrt(2 * len(runs))  # four of the spread's own error


def test_seed_and_global_generator(linear_gaussian: LinearGaussian) -> None:
    x = linear_gaussian.marginal.sample((5,))
    vae = linear_gaussian.vae
    before = torch.get_rng_state()
    first, again, other = (
        bounds.evaluate(vae.model, vae.guide, x, 10, seed=seed).elbo.values for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_memory_does_not_grow_with_k() -> None:
    """Counted are the elements of all tensors at one time; 3 sqrt(K) weights are stored."""
    known = LinearGaussian(2, 784)
    x = known.marginal.sample((10,))
    vae = known.vae

    class Alive(TorchDispatchMode):
        now = peak = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                self.change(out.numel())
                weakref.finalize(out, self.change, -out.numel())
            return out

        def change(self, elements: int) -> None:
            self.now += elements
            self.peak = max(self.peak, self.now)

    peaks = []
    for k in (2_000, 20_000):
        with Alive() as alive:
            bounds.evaluate(vae.model, vae.guide, x, k, chunk_size=1000)
        peaks.append(alive.peak)
    assert peaks[0] > 1000 and peaks[1] < 1.02 * peaks[0], peaks


def test_json(linear_gaussian: LinearGaussian) -> None:
    vae = linear_gaussian.vae
    x = linear_gaussian.marginal.sample((5,))
    content = json.loads(
        json.dumps(bounds.evaluate(vae.model, vae.guide, x, 50).to_dict(), allow_nan=False)
    )
    assert content["unit"] == "nats"
    assert (content["num_examples"], content["num_samples"]) == (5, 50)
    assert list(content["iwae"]) == ["1", "5", "50"] and list(content["elbo"]) == ["50"]
    entry = content["iwae"]["50"]
    assert entry.keys() == {"mean", "se", "ci95", "mc_se"}
    assert entry["ci95"][0] < entry["mean"] < entry["ci95"][1]
    alone = bounds.evaluate(vae.model, vae.guide, x[:1], 1).to_dict()["elbo"]["1"]
    assert (alone["se"], alone["ci95"], alone["mc_se"]) == (None, [None, None], None)
    json.dumps(alone, allow_nan=False)


def test_draws_of_weight_zero() -> None:
    """If the model gives a draw no probability, the ELBO is minus infinity, and IWAE is finite."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(0.0, 1.0, validate_args=False))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(0.0, 2.0))

    x = torch.tensor([0.2, 0.9])
    result = bounds.evaluate(model, guide, x, 1000, ladder=[50], chunk_size=2)
    normal = torch.distributions.Normal(x.double(), 1.0)
    exact = (normal.cdf(torch.ones(2)) - normal.cdf(torch.zeros(2))).log()
    error = result.iwae[1000].mc_variance.sqrt()
    assert ((result.iwae[1000].values - exact).abs() < 4 * error).all()
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["elbo"]["1000"]["mean"] is None and content["iwae"]["1000"]["mean"] < 0
    never = bounds.evaluate(model, lambda x: guide(x + 9), x, 1, seed=3)  # a draw in (1, 2) or not
    json.dumps(never.to_dict(), allow_nan=False)
    assert never.ess.isfinite().all()


def test_bad_requests(linear_gaussian: LinearGaussian) -> None:
    vae = linear_gaussian.vae
    x = linear_gaussian.marginal.sample((5,))
    with pytest.raises(InputError, match="at least 1"):
        bounds.log_weights(vae.model, vae.guide, x, 0)
    with pytest.raises(InputError, match="at least 1"):
        bounds.evaluate(vae.model, vae.guide, x, 0)
    with pytest.raises(InputError, match="rungs"):
        bounds.evaluate(vae.model, vae.guide, x, 5, ladder=[0])
    with pytest.raises(InputError, match="no examples"):
        bounds.evaluate(vae.model, vae.guide, x[:0])


# Programs that are not VAEs.


def robust_regression(x: Tensor) -> None:
    """Two latent sites, one discrete; pixels in a plate of their own; a subsampled data plate."""
    with pyro.plate("examples", 1000, subsample_size=len(x), dim=-2):
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
        wild = pyro.sample("wild", dist.Bernoulli(0.2))
        with pyro.plate("pixels", x.shape[1], dim=-1):
            pyro.sample("x", dist.Normal(level, 1 + 2 * wild), obs=x)


def robust_guide(x: Tensor) -> None:
    with pyro.plate("examples", 1000, subsample_size=len(x), dim=-2):
        pyro.sample("level", dist.Normal(x.mean(1, keepdim=True), 0.7))
        pyro.sample("wild", dist.Bernoulli(0.4))


def robust_log_p(x: Tensor) -> Tensor:
    parts = []
    for scale, probability in ((1.0, 0.8), (3.0, 0.2)):
        dims = x.shape[1]
        covariance = 4.0 * torch.ones(dims, dims) + scale**2 * torch.eye(dims)
        normal = torch.distributions.MultivariateNormal(torch.zeros(dims), covariance)
        parts.append(normal.log_prob(x) + math.log(probability))
    return torch.stack(parts).logsumexp(0)


@pytest.mark.parametrize("vectorize", [True, False])
def test_any_pyro_program(vectorize: bool) -> None:
    """Exact for two sites, nested plates and a subsampled plate, whose scale must be ignored."""
    x = 2 * torch.randn(6, 1) + torch.randn(6, 3)
    count = 40_000 if vectorize else 2_000
    log_w = bounds.log_weights(
        robust_regression, robust_guide, x, count, plate="examples", vectorize=vectorize
    )
    assert log_w.shape == (count, 6)
    # One standard error of log mean w is about sqrt(1/ESS - 1/K); sampling error only.
    ess = log_w.softmax(0).square().sum(0).reciprocal()
    error = (1 / ess - 1 / count).sqrt()
    assert ((bounds.iwae(log_w) - robust_log_p(x)).abs() < 4.5 * error).all()
    assert error.max() < 0.1


def test_masks_count_and_scales_do_not() -> None:
    """A scale that all sites have is no part of log p(x); one that some have is refused."""
    mask = torch.tensor([True, False, True])

    def model(x: Tensor, scale: float = 1.0) -> None:
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=scale):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.poutine.mask(mask=mask):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor, scale: float = 1.0) -> None:
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=scale):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    x = torch.tensor([0.3, 5.0, -1.0])
    draws = bounds.log_weights(model, guide, x, 4)
    assert (draws[:, 1] == 0).all() and (draws[:, [0, 2]] != 0).all()
    torch.manual_seed(1)
    plain = bounds.log_weights(model, guide, x, 4)
    torch.manual_seed(1)
    scaled = bounds.log_weights(lambda x: model(x, 7.0), lambda x: guide(x, 7.0), x, 4)
    assert torch.equal(plain, scaled)
    with pytest.raises(InputError, match="scale of its own"):
        bounds.log_weights(lambda x: model(x, 7.0), guide, x, 4)


def test_sites_outside_the_plate_are_refused() -> None:
    """Refused for each example; without a plate there is one number for all data."""

    def model(x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("loc", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="'loc' is not in a plate named 'data'"):
        bounds.log_weights(model, guide, torch.zeros(3), 2, plate="data")
    log_w = bounds.log_weights(model, guide, torch.zeros(3), 100_000)
    assert log_w.shape == (100_000, 1)
    error = (1 / log_w.softmax(0).square().sum(0).reciprocal() - 1 / 100_000).sqrt()
    covariance = torch.ones(3, 3) + torch.eye(3)
    exact = torch.distributions.MultivariateNormal(torch.zeros(3), covariance)
    assert abs(bounds.iwae(log_w) - exact.log_prob(torch.zeros(3))) < 4.5 * error < 0.1
    with pytest.raises(ValueError, match="no site 'loc'"):
        bounds.log_weights(model, lambda x: None, torch.zeros(3), 2)


def simple_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.deterministic("twice", 2 * z)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    pyro.deterministic("outside", torch.tensor(1.0))


def test_deterministic_sites_and_autoguides() -> None:
    """An autoguide's auxiliary noise counts: the point at the latent site is computed from it."""
    x = torch.tensor([0.3, -1.0, 2.0])
    guide = pyro.infer.autoguide.AutoNormal(simple_model, init_scale=0.9)
    log_w = bounds.log_weights(simple_model, guide, x, 50_000).detach()
    error = (1 / log_w.softmax(0).square().sum(0).reciprocal() - 1 / 50_000).sqrt()
    exact = torch.distributions.Normal(0.0, 2**0.5).log_prob(x)
    assert ((bounds.iwae(log_w) - exact).abs() < 4.5 * error).all() and error.max() < 0.1


def guide_with(site: str, sampler: Callable[[], dist.Distribution], **options: object) -> Callable:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            if site != "z":
                pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample(site, sampler(), **options)

    return guide


@pytest.mark.parametrize(
    ("guide", "said"),
    [
        (guide_with("extra", lambda: dist.Categorical(torch.ones(10))), "'extra' is not a latent"),
        (guide_with("x", lambda: dist.Normal(0.0, 1.0)), "'x' is not a latent"),
        (
            guide_with("q", lambda: dist.Normal(0.0, 1.0), obs=torch.zeros(3)),
            "'q' is not a latent",
        ),
        (guide_with("z", lambda: dist.Delta(torch.zeros(3))), "'z' is a point"),
    ],
)
def test_guides_that_do_not_match_are_refused(guide: Callable, said: str) -> None:
    """Each of these would give a number above log p(x), or one that is not a bound."""
    with pytest.raises(ValueError, match=said):
        bounds.log_weights(simple_model, guide, torch.zeros(3), 5)


def test_plates_that_do_not_match_are_refused() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="shape"):
        bounds.log_weights(simple_model, guide, torch.zeros(3), 5)

    def subsampling(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=3) as batch:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[batch])

    def its_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=3):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="takes some of the examples at random"):
        bounds.evaluate(subsampling, its_guide, torch.zeros(6), 5)


# The jackknife, and the verdict from the weights' tails.


def test_jackknife_by_its_definition() -> None:
    """Means over all subsets of K - 1 and K - 2 draws, with Nowozin's coefficients."""
    log_w = 3 * torch.randn(9, 4, dtype=torch.float64)
    k = len(log_w)
    means = [
        torch.stack(
            [bounds.iwae(log_w[list(kept)]) for kept in combinations(range(k), k - j)]
        ).mean(0)
        for j in range(3)
    ]
    for order in (1, 2):
        expected = sum(
            (-1) ** j
            * (k - j) ** order
            / (math.factorial(order - j) * math.factorial(j))
            * means[j]
            for j in range(order + 1)
        )
        torch.testing.assert_close(bounds.jackknife(log_w, order), expected)
    with pytest.raises(InputError, match="order 1 or 2"):
        bounds.jackknife(log_w, 3)
    with pytest.raises(InputError, match="more draws"):
        bounds.jackknife(log_w[:2], 2)


def test_jackknife_has_less_bias(linear_gaussian: LinearGaussian) -> None:
    """At equal K it is closer to log p(x) than IWAE_K, and order 2 closer than order 1."""
    x = linear_gaussian.marginal.sample((10,))
    vae, exact = linear_gaussian.vae, linear_gaussian.marginal.log_prob(x)
    log_w = bounds.log_weights(vae.model, vae.guide, x, 8 * 20_000).detach()
    groups = log_w.reshape(8, -1, 10).movedim(1, 2).flatten(1)  # K = 8, 20,000 of each example
    errors = {
        name: reduction(groups).reshape(10, -1) - exact[:, None]
        for name, reduction in (
            ("iwae", bounds.iwae),
            ("first", bounds.jackknife),
            ("second", lambda log_w: bounds.jackknife(log_w, 2)),
        )
    }
    bias = {name: off.mean().item() for name, off in errors.items()}
    error = {name: (off.std() / off.numel() ** 0.5).item() for name, off in errors.items()}
    assert bias["iwae"] < -20 * error["iwae"]
    assert abs(bias["first"]) + 4.5 * error["first"] < 0.5 * abs(bias["iwae"])
    assert abs(bias["second"]) < abs(bias["first"]) + 4.5 * error["second"]


@pytest.mark.parametrize("count", [2, 26, 3000])
def test_jackknife_of_a_stream(linear_gaussian: LinearGaussian, count: int) -> None:
    """Running sums and the largest weights give what all weights give."""
    log_w = 3 * torch.randn(count, 5, dtype=torch.float64)
    stream = Stream([count])
    for part in log_w.split(100):
        stream.add(part)
    torch.testing.assert_close(stream.jackknife(), bounds.jackknife(log_w), atol=1e-5, rtol=0)
    torch.testing.assert_close(stream.results()["khat"], khat.pareto_k(log_w.T))


@pytest.mark.parametrize("count", [2, 26, 3000])
def test_the_jackknife_of_a_single_weight_is_infinite(count: int) -> None:
    """Without the only weight that is not zero, log 0 is averaged: it is no number to rely on."""
    log_w = torch.full((count, 2), -math.inf, dtype=torch.float64)
    log_w[count // 2, 0] = -90.0
    log_w[:, 1] = -90.0
    stream = Stream([count])
    for part in log_w.split(7):
        stream.add(part)
    assert stream.jackknife()[0] == bounds.jackknife(log_w)[0] == math.inf
    torch.testing.assert_close(stream.jackknife()[1].item(), -90.0)
    assert stream.results()["jackknife"][0] == math.inf


def test_verdict(linear_gaussian: LinearGaussian) -> None:
    """The weights are heavy-tailed if q is too narrow, and not if it is too wide."""
    for misfit, said in ((0.4, "is loose, and its MC error is unknown"), (1.3, "can be relied on")):
        known = LinearGaussian(2, 4, misfit)
        x = known.marginal.sample((40,))
        result = bounds.evaluate(known.vae.model, known.vae.guide, x, 500)
        assert said in result.verdict
        assert f"above {result.good_k:.2g}, the limit for 500 draws, on" in result.verdict
        assert result.to_dict()["khat"]["share_above"] == result.heavy
    alone = bounds.evaluate(known.vae.model, known.vae.guide, x, 5)
    assert "too few" in alone.verdict


def test_adapted_guides_are_not_compiled(linear_gaussian: LinearGaussian) -> None:
    vae, x = linear_gaussian.vae, torch.zeros(2, 4, dtype=torch.float64)
    with pytest.raises(InputError, match="guides that adapt makes cannot be compiled"):
        bounds.evaluate(vae.model, vae.guide, x, 5, adapt=lambda _: vae.guide, compile=True)
