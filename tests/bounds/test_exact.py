"""The functions for exact log p(x), against each other and against known answers."""

import copy
import math
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import LinearGaussian
from pyro import poutine
from test_bounds import robust_regression
from torch import Tensor

from pyro_vae import VAE, InputError, bounds, likelihoods, posteriors, priors


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_quadrature_is_exact(latent_dim: int) -> None:
    known = LinearGaussian(latent_dim)
    x = known.marginal.sample((20,))
    log_p = bounds.quadrature(known.vae.model, x, points=300)
    torch.testing.assert_close(log_p, known.marginal.log_prob(x), atol=1e-6, rtol=0)


def test_quadrature_refuses_what_it_cannot_do(linear_gaussian: LinearGaussian) -> None:
    model, x = linear_gaussian.vae.model, linear_gaussian.marginal.sample((3,))
    with pytest.raises(ValueError, match="edge of the grid"):
        bounds.quadrature(model, x, half_width=0.5)
    with pytest.raises(ValueError, match="too coarse"):
        bounds.quadrature(model, x, points=8)
    with pytest.raises(ValueError, match="for one latent site"):
        bounds.quadrature(robust_regression, torch.zeros(4, 3), site="level")
    with pytest.raises(ValueError, match="one or two dimensions"):
        bounds.quadrature(LinearGaussian(3).vae.model, x)


@pytest.mark.parametrize("latent_dim", [1, 2, 10, 50])
def test_linear_gaussian_models_in_closed_form(latent_dim: int) -> None:
    known = LinearGaussian(latent_dim, latent_dim + 5)
    x = known.marginal.sample((20,))
    log_p = bounds.gaussian(known.vae.model, x)
    torch.testing.assert_close(log_p, known.marginal.log_prob(x), atol=1e-6, rtol=1e-8)


def test_all_sites_of_a_gaussian_model_are_integrated_out() -> None:
    """A random effect in two layers: x_j = a + b + noise, in a nested plate."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            a = pyro.sample("a", dist.Normal(x.new_tensor(1.0), 2.0))
            b = pyro.sample("b", dist.Normal(a, 0.5))
            with pyro.plate("pixels", x.shape[1], dim=-1):
                pyro.sample("x", dist.Normal(a + b, 0.8), obs=x)

    x = torch.randn(7, 3, dtype=torch.float64)
    # b = a + e, so a + b = 2 a + e has mean 2 and variance 16 + 0.25.
    covariance = 16.25 * torch.ones(3, 3).double() + 0.64 * torch.eye(3)
    exact = torch.distributions.MultivariateNormal(2 * torch.ones(3).double(), covariance).log_prob(
        x
    )
    torch.testing.assert_close(bounds.gaussian(model, x), exact, atol=1e-5, rtol=1e-5)


def test_what_is_not_gaussian_is_refused(nonlinear: VAE) -> None:
    with pytest.raises(ValueError, match="not quadratic"):
        bounds.gaussian(copy.deepcopy(nonlinear).double().model, nonlinear.model(size=3).double())
    with pytest.raises(ValueError, match="single precision"):
        bounds.gaussian(LinearGaussian(2).vae.float().model, torch.zeros(3, 4))
    with pytest.raises(InputError, match="is discrete"):
        bounds.gaussian(robust_regression, torch.zeros(4, 3), plate="examples")

    def flat(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.factor("tilt", z**2)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="no maximum"):
        bounds.gaussian(flat, torch.zeros(3).double())


def test_enumeration_by_hand() -> None:
    """Two sites, one of which depends on the other: every term of the sum is written out."""
    p = torch.tensor([0.2, 0.5, 0.3])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(p))
            loud = pyro.sample("loud", dist.Bernoulli(0.1 + 0.4 * kind))
            pyro.sample("x", dist.Normal(kind.to(x.dtype), 1.0 + loud), obs=x)

    x = torch.randn(5, dtype=torch.float64)
    terms = [
        math.log(p[k])
        + math.log(0.1 + 0.4 * k if on else 0.9 - 0.4 * k)
        + torch.distributions.Normal(float(k), 1.0 + on).log_prob(x)
        for k in range(3)
        for on in (0, 1)
    ]
    exact = torch.stack(terms).logsumexp(0)
    torch.testing.assert_close(bounds.enumeration(model, x), exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("code", ["Bernoulli", "Categorical"])
def test_enumeration_of_discrete_codes(code: str) -> None:
    """The probabilities of all images sum to one."""
    vae = VAE(
        getattr(priors, code)(8),
        likelihoods.Bernoulli(8, [2, 3]),
        getattr(posteriors, code)([2, 3], 8),
    ).eval()
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6).reshape(-1, 2, 3)
    total = bounds.enumeration(vae.model, images).logsumexp(0)
    assert abs(total.item()) < 1e-5


def test_what_cannot_be_enumerated_is_refused(nonlinear: VAE) -> None:
    with pytest.raises(ValueError, match="'z' cannot be enumerated: Normal is not finite"):
        bounds.enumeration(nonlinear.model, nonlinear.model(size=3))
    vae = VAE(
        priors.Bernoulli(30), likelihoods.Bernoulli(30, [3]), posteriors.Bernoulli([3], 30)
    ).eval()
    with pytest.raises(ValueError, match="1073741824 values"):
        bounds.enumeration(vae.model, torch.zeros(2, 3))


def test_values_that_depend_on_others_are_complete_or_refused() -> None:
    """The values of z are read off one run, whose count may be smaller than in other runs."""

    def growing(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            count = pyro.sample("count", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Binomial(count + 1.0, 0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.0, 2.0])
    terms = [
        math.log(math.comb(n, z) * 0.5**n / 3) + torch.distributions.Normal(z, 1.0).log_prob(x)
        for n in (1, 2, 3)
        for z in range(n + 1)
    ]
    exact = torch.stack(terms).logsumexp(0).double()
    refused = 0
    for seed in range(10):
        torch.manual_seed(seed)
        try:
            with pyro.validation_enabled(False):
                log_p = bounds.enumeration(growing, x)
        except ValueError as error:
            assert "depend on another" in str(error)
            refused += 1
        else:
            torch.testing.assert_close(log_p, exact, atol=1e-5, rtol=0)
    assert 0 < refused < 10


def test_bounds_of_discrete_codes() -> None:
    """Every lower bound is below the enumerated log p(x), in expectation, and IWAE near it."""
    vae = VAE(
        priors.Bernoulli(8), likelihoods.Bernoulli(8, [3, 4]), posteriors.Bernoulli([3, 4], 8)
    ).eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(3)
    x = vae.model(size=100)
    exact = bounds.enumeration(vae.model, x)
    result = bounds.evaluate(vae.model, vae.guide, x, 2000)
    lower = [result.elbo, *(result.iwae[k] for k in (5, 50, 500))]
    for low, high in pairwise(lower):
        assert high.mean - low.mean > 3 * math.hypot(low.mc_se, high.mc_se)
    top = result.iwae[2000]
    error = result.iwae[500].mc_se  # of groups of the same draws: that of all may be unknown
    assert abs(top.mean - exact.mean().item()) < 4.5 * error + result.looseness
    assert bounds.certified(top.values, 1e-6) < exact.mean().item()


@pytest.mark.parametrize("latent_dim", [10, 50])
def test_bounds_in_more_dimensions(latent_dim: int) -> None:
    """In 10 and 50 dimensions each rung is below the next, and all are below log p(x)."""
    known = LinearGaussian(latent_dim, 2 * latent_dim)
    x = known.marginal.sample((100,))
    each = bounds.gaussian(known.vae.model, x)
    exact = each.mean().item()
    result = bounds.evaluate(known.vae.model, known.vae.guide, x, 5000)
    lower = [result.elbo, *(result.iwae[k] for k in (5, 50, 500, 5000))]
    for low, high in pairwise(lower):
        assert low.mean < high.mean
    error = result.iwae[500].mc_se  # of groups of the same draws: that of all is unknown
    assert lower[-1].mean < exact + 4.5 * error
    assert bounds.certified(lower[-1].values, 1e-6) < exact
    # The jackknife is closer than IWAE at equal K.
    assert abs(result.jackknife.mean - exact) < abs(lower[-1].mean - exact) + 3 * error


# Programs that are not VAEs: arguments, plates, supports, single runs, all data as one.


def by_columns(z: Tensor) -> Tensor:
    """A decoder that counts dimensions from the left: wrong among particles."""
    return z.reshape(len(z), -1).mean(1)


@pytest.mark.parametrize("name", ["data", "batch", "examples"])
@pytest.mark.parametrize("dim", [-1, -2])
def test_exact_of_several_arguments_and_any_plate(name: str, dim: int) -> None:
    """The slope a is given for each example; other arguments are shared, or None."""

    def model(x: Tensor, options: dict[str, Tensor], noise: float, nothing: None = None) -> None:
        assert nothing is None
        shape = (len(x), *(1,) * (-1 - dim))
        with pyro.plate(name, len(x), dim=dim):
            z = pyro.sample("z", dist.Normal(options["mean"], 1.0))
            a = options["a"].reshape(shape)
            pyro.sample("x", dist.Normal(a * z, noise), obs=x.reshape(shape))

    x, a = torch.randn(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64) + 0.5
    options = {"a": a, "mean": torch.full((1,), 0.5, dtype=torch.float64)}
    data = bounds.Arguments(x, options, noise=0.7)
    exact = torch.distributions.Normal(0.5 * a, (a**2 + 0.49).sqrt()).log_prob(x)
    torch.testing.assert_close(bounds.gaussian(model, data), exact, atol=1e-6, rtol=0)
    torch.testing.assert_close(bounds.quadrature(model, data), exact, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        bounds.quadrature(model, (x, options, 0.7)), exact, atol=1e-5, rtol=0
    )
    named = bounds.quadrature(model, data, plate=name, site="z")
    torch.testing.assert_close(named, exact, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:the programs run once for each draw")
@pytest.mark.parametrize("vectorize", [None, False])
def test_quadrature_without_vectorisation(vectorize: bool | None) -> None:
    """The same number from single runs; a program that cannot be vectorised is found out."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            mean = by_columns(z) if vectorize is None else z.mean(-1)
            pyro.sample("x", dist.Normal(mean, 0.6), obs=x)

    x = torch.randn(5, dtype=torch.float64)
    exact = torch.distributions.Normal(0.0, (0.5 + 0.36) ** 0.5).log_prob(x)
    log_p = bounds.quadrature(model, x, vectorize=vectorize, points=41)
    torch.testing.assert_close(log_p, exact, atol=1e-4, rtol=0)
    if vectorize is None:
        with pytest.raises(InputError, match="cannot make several draws at once"):
            bounds.quadrature(model, x, vectorize=True, points=41)


def test_a_value_that_examples_cannot_share_is_copied() -> None:
    """Covariates are joined to z, which one value for all examples would not allow."""

    def model(x: Tensor, c: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            both = torch.cat([z, c.expand(*z.shape[:-1], 1)], -1)
            pyro.sample("x", dist.Normal(both.sum(-1), 0.6), obs=x)

    def wrong_if_shared(x: Tensor, c: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            count = z.shape[-2] / len(x)  # 1, if each example has a value of its own
            pyro.sample("x", dist.Normal(z[..., 0] + count * c[:, 0], 0.6), obs=x)

    x, c = torch.randn(5, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
    exact = torch.distributions.Normal(c[:, 0], 1.36**0.5).log_prob(x)
    for program in (model, wrong_if_shared):
        log_p = bounds.quadrature(program, (x, c))
        torch.testing.assert_close(log_p, exact, atol=1e-5, rtol=0)


def conjugate_weights(x: Tensor, weights: Tensor) -> None:
    """Two weights that all examples share."""
    w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal((weights * w).sum(-1), 0.5), obs=x)


def test_global_latents_give_one_number() -> None:
    x, c = torch.randn(4, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    covariance = c @ c.T + 0.25 * torch.eye(4).double()
    exact = torch.distributions.MultivariateNormal(torch.zeros(4).double(), covariance).log_prob(x)
    for function in (bounds.gaussian, bounds.quadrature):
        log_p = function(conjugate_weights, (x, c))
        assert log_p.shape == (1,)
        torch.testing.assert_close(log_p[0], exact, atol=1e-4, rtol=0)


def test_a_gaussian_model_with_local_and_global_sites() -> None:
    """x_i = m + z_i + noise: m is shared."""

    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(x.new_tensor(1.0), 2.0))
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(m, 0.7))
            pyro.sample("x", dist.Normal(z, 0.4), obs=x[:, None])

    x = torch.randn(5, dtype=torch.float64)
    covariance = 4 * torch.ones(5, 5).double() + (0.49 + 0.16) * torch.eye(5).double()
    exact = torch.distributions.MultivariateNormal(torch.ones(5).double(), covariance).log_prob(x)
    torch.testing.assert_close(bounds.gaussian(model, x), exact[None], atol=1e-6, rtol=0)


def gamma_exact(x: Tensor) -> Tensor:
    """Gamma(2, 3) and Poisson: the negative binomial."""
    return dist.GammaPoisson(x.new_tensor(2.0), x.new_tensor(3.0)).log_prob(x)


def test_quadrature_of_other_supports() -> None:
    """A positive rate, a probability, a simplex, a correlation, an interval for each example."""
    counts = torch.tensor([0.0, 1.0, 4.0, 9.0], dtype=torch.float64)

    def rate(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(x.new_tensor(2.0), 3.0))
            pyro.sample("x", dist.Poisson(z), obs=x)

    torch.testing.assert_close(
        bounds.quadrature(rate, counts), gamma_exact(counts), atol=1e-4, rtol=0
    )

    def probability(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(x.new_tensor(1.0), 1.0))
            pyro.sample("x", dist.Binomial(9, z), obs=x)

    uniform = torch.full((4,), -math.log(10), dtype=torch.float64)  # of 0, .., 9
    torch.testing.assert_close(bounds.quadrature(probability, counts), uniform, atol=1e-4, rtol=0)

    def simplex(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Dirichlet(x.new_tensor([1.0, 2.0, 3.0])))
            pyro.sample("x", dist.Categorical(p), obs=x.long())

    labels = torch.tensor([0, 1, 2, 2], dtype=torch.float64)
    exact = torch.tensor([1, 2, 3, 3]).double().div(6).log()
    torch.testing.assert_close(bounds.quadrature(simplex, labels), exact, atol=1e-4, rtol=0)

    def correlation(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            factor = pyro.sample("factor", dist.LKJCholesky(2, x.new_tensor(1.0)))
            pyro.sample("x", dist.Normal(factor[..., 1, 0], 1.0), obs=x)

    def interval(x: Tensor, low: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(low, low + 2.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(4, dtype=torch.float64)
    low = torch.tensor([-3.0, -1.0, 0.0, 2.0], dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0)
    exact = ((normal.cdf(x - low) - normal.cdf(x - low - 2)) / 2).log()
    torch.testing.assert_close(bounds.quadrature(interval, (x, low)), exact, atol=1e-4, rtol=0)
    exact = ((normal.cdf(x + 1) - normal.cdf(x - 1)) / 2).log()  # LKJ(1) of two is uniform
    torch.testing.assert_close(bounds.quadrature(correlation, x), exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("points", [400, 401])
def test_quadrature_of_angles(points: int) -> None:
    """A grid of the line would count the circle twice, where the density is near pi."""
    x = torch.tensor([2.5, 3.0, -3.0, 0.1], dtype=torch.float64)

    def circular(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(x.new_tensor(2.8), 4.0))
            pyro.sample("x", dist.VonMises(z, 9.0), obs=x)

    def linear(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(x.new_tensor(2.8), 4.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    angle = torch.linspace(-math.pi, math.pi, 200_001).double()[:-1]
    prior = torch.distributions.VonMises(torch.tensor(2.8).double(), torch.tensor(4.0).double())
    for model, likelihood in (
        (circular, torch.distributions.VonMises(angle, torch.tensor(9.0).double())),
        (linear, torch.distributions.Normal(angle, 1.0)),
    ):
        log_joint = prior.log_prob(angle) + likelihood.log_prob(x[:, None])
        exact = log_joint.logsumexp(1) + math.log(2 * math.pi / len(angle))
        log_p = bounds.quadrature(model, x, points=points)
        torch.testing.assert_close(log_p, exact, atol=1e-3, rtol=0)


def test_long_tails_beyond_the_grid_are_refused() -> None:
    """The density of log z falls by exp(-|u|): a narrow grid misses a part of it."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Exponential(x.new_tensor(1.0)))
            pyro.sample("x", dist.Normal(z, 5.0), obs=x)

    x = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(InputError, match="edge of the grid"):
        bounds.quadrature(model, x, half_width=6)
    z = torch.linspace(0, 60, 600_001).double()
    log_joint = -z + torch.distributions.Normal(0.0, 5.0).log_prob(z)
    exact = torch.trapezoid(log_joint.exp(), z).log()
    torch.testing.assert_close(bounds.quadrature(model, x), exact.expand(2), atol=1e-4, rtol=0)


def test_quadrature_of_a_mixture_and_refused_supports() -> None:
    def mixture(x: Tensor) -> None:
        parts = dist.Normal(x.new_tensor([-1.0, 1.0]), 0.5)
        weights = dist.Categorical(x.new_tensor([0.3, 0.7]))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.MixtureSameFamily(weights, parts))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    x = torch.randn(3, dtype=torch.float64)
    means, sd = torch.tensor([-1.0, 1.0]).double(), 0.5**0.5
    terms = torch.distributions.Normal(means, sd).log_prob(x[:, None])
    exact = (terms + torch.tensor([0.3, 0.7]).double().log()).logsumexp(1)
    torch.testing.assert_close(bounds.quadrature(mixture, x), exact, atol=1e-5, rtol=0)

    def discrete(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(x.new_tensor(0.5)))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    with pytest.raises(InputError, match="'z' is discrete"):
        bounds.quadrature(discrete, x)

    def masked(x: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.mask(mask=x > 0):
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    with pytest.raises(InputError, match="masked"):
        bounds.quadrature(masked, torch.tensor([1.0, -1.0, 2.0]))


@pytest.mark.filterwarnings("ignore:the programs run once for each draw")
@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize("turned", [False, True])
def test_enumeration_of_global_and_local_sites(dim: int, turned: bool) -> None:
    """One switch for all data, and a label for each example: 2 * 3^4 combinations."""
    table = torch.tensor([[0.1, 0.6, 0.3], [0.7, 0.1, 0.2]]).double()

    def model(x: Tensor, spread: Tensor) -> None:
        on = pyro.sample("on", dist.Bernoulli(x.new_tensor(0.3)))
        shape = (len(x), *(1,) * (-1 - dim))
        with pyro.plate("rows", len(x), dim=dim):
            row = table[on.long()]
            k = pyro.sample("k", dist.Categorical(row))
            if turned:
                k = k.reshape(len(x), -1).reshape(shape)
            loc = k.double() + 0 * on
            pyro.sample("x", dist.Normal(loc, spread.reshape(shape)), obs=x.reshape(shape))

    x, spread = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5
    terms = []
    for on in (0, 1):
        log_lik = torch.distributions.Normal(torch.arange(3.0).double(), spread[:, None]).log_prob(
            x[:, None]
        )
        local = (table[on].log() + log_lik).logsumexp(1).sum()
        terms.append(local + math.log(0.3 if on else 0.7))
    exact = torch.stack(terms).logsumexp(0)
    log_p = bounds.enumeration(model, (x, spread))
    torch.testing.assert_close(log_p, exact[None], atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:the programs run once for each draw")
@pytest.mark.parametrize("keep", [True, False])  # without it the program cannot be vectorised
@pytest.mark.parametrize("plate", [None, "images"])
def test_enumeration_in_an_inner_plate(plate: str | None, keep: bool) -> None:
    """Three switches for each example, which are one sum."""

    def model(x: Tensor) -> None:
        with pyro.plate("images", len(x), dim=-1):
            with pyro.plate("parts", 3, dim=-2):
                on = pyro.sample("on", dist.Bernoulli(x.new_tensor([0.2, 0.5, 0.6])[:, None]))
            pyro.sample("x", dist.Normal(on.sum(-2, keepdim=keep), 0.5), obs=x)

    x = torch.randn(5, dtype=torch.float64)
    terms = []
    for on in torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3):
        log_prior = torch.distributions.Bernoulli(torch.tensor([0.2, 0.5, 0.6]).double()).log_prob(
            on
        )
        terms.append(log_prior.sum() + torch.distributions.Normal(on.sum(), 0.5).log_prob(x))
    exact = torch.stack(terms).logsumexp(0)
    torch.testing.assert_close(bounds.enumeration(model, x, plate=plate), exact, atol=1e-5, rtol=0)


def test_sites_that_exist_for_some_values_only_are_refused() -> None:
    def model(x: Tensor) -> None:
        on = pyro.sample("on", dist.Bernoulli(x.new_tensor(0.5)))
        loc = pyro.sample("loc", dist.Bernoulli(x.new_tensor(0.5))) if on.all() else on
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    x = torch.zeros(2)
    for seed in range(6):  # the sites of one run, with and without loc
        torch.manual_seed(seed)
        with pytest.raises(InputError):
            bounds.enumeration(model, x, vectorize=False)
