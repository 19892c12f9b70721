"""Coordinates of sites: which kind a site has, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.infer.autoguide
import pytest
import torch
from annealing_programs import bit_over_line, circle_over_categories
from pyro.distributions import transforms
from torch import Tensor

from pyro_vae import InputError, bounds, distributions
from pyro_vae.bounds import Settings, discrete_values
from pyro_vae.bounds.coordinates import Circle, Line, Sphere, Values, coordinates, is_circle
from pyro_vae.distributions import relaxed

PI = math.pi
FEW = Settings(temperatures=3, chains=4)
NOT_IN_MIXTURES = dist.SineBivariateVonMises | dist.ProjectedNormal | dist.Uniform
ZERO, ONE = torch.zeros(()), torch.ones(())


def pair(
    guide_fn: Callable[[Tensor], Any], model_fn: Callable[[Tensor], Any]
) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
    """Return a model and a guide with one site, whose value only shifts the observed variable."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", model_fn(x))
            z = z.reshape(*z.shape[: z.dim() - len(model_fn(x).event_shape)], -1).sum(-1)
            pyro.sample("x", dist.Normal(z.to(x.dtype), 2.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide_fn(x))

    return model, guide


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (dist.Normal(0.0, 1.0), Line),
        (dist.Normal(torch.zeros(2), 1e4).to_event(1), Line),
        (dist.Normal(0.0, 0.1), Line),
        (dist.Gamma(ONE, ONE), Line),
        (dist.Uniform(-PI, PI), Line),
        (dist.Dirichlet(torch.ones(3)), Line),
        (dist.VonMises(ZERO, ONE), Circle),
        (dist.VonMises(torch.tensor(3.0), torch.tensor(1e5)), Circle),
        (dist.VonMises(torch.zeros(4, 3), torch.ones(4, 3)).to_event(1), Circle),
        (dist.SineBivariateVonMises(ZERO, ZERO, ONE, ONE, torch.tensor(0.3)), Circle),
        (distributions.UniformSphere(2), Sphere),
        (dist.ProjectedNormal(torch.ones(3)), Sphere),
        (distributions.PowerSpherical(torch.eye(3), ONE).to_event(1), Sphere),
        (dist.Bernoulli(0.5), Values),
        (relaxed.one_hot(torch.zeros(2, 3), None), Values),
        (relaxed.one_hot(torch.zeros(2, 3), 0.5), Line),
        (dist.OrderedLogistic(ZERO, torch.tensor([0.0, 1.0])), Values),
    ],
)
def test_kinds(fn: Any, kind: type) -> None:
    """The same kind alone, as components of a mixture, and behind a mask; u gives z back."""
    weights = dist.Categorical(torch.ones(3))
    cases = [fn, fn.mask(torch.tensor(True))]
    if fn.batch_shape == () and not isinstance(fn, NOT_IN_MIXTURES):
        cases.append(dist.MixtureSameFamily(weights, fn.expand([3])))
    for each in cases:
        z = each.sample()
        found = coordinates("z", each, z)
        assert type(found) is kind
        u = found.of(each, z)
        value, _ = found.value(each, u)
        torch.testing.assert_close(value, z)
        assert is_circle("z", each, z) == (kind is Circle)


def test_log_probabilities_of_values() -> None:
    """They are those of the distribution; gradients are differences of log-probabilities.

    This holds for independent variables. For mixtures the gradients are only approximations.
    """
    logits = torch.randn(2, 3, dtype=torch.float64)
    components = relaxed.one_hot(torch.randn(5, 2, 3, dtype=torch.float64), None)
    weights = dist.Categorical(torch.rand(5, dtype=torch.float64))
    for fn in (relaxed.one_hot(logits, None), dist.MixtureSameFamily(weights, components)):
        fn = fn.expand((7,))
        z = fn.sample()
        found = coordinates("z", fn, z)
        assert isinstance(found, Values)
        u = found.of(fn, z).requires_grad_()
        log_prob = found.log_prob(fn, found.value(fn, u)[0], u)
        torch.testing.assert_close(log_prob, fn.log_prob(z))
        (gradient,) = torch.autograd.grad(log_prob.sum(), u)
        assert gradient.any()
        if not isinstance(fn, dist.MixtureSameFamily):
            torch.testing.assert_close(gradient, fn.base_dist.base_dist.logits.expand(7, 2, 3))


def test_mixture_of_values_has_gradients_of_its_components() -> None:
    """The gradient is the mean of those of the components, by their responsibilities."""
    logits = torch.randn(4, 3, dtype=torch.float64)
    weights = dist.Categorical(torch.rand(4, dtype=torch.float64))
    fn = dist.MixtureSameFamily(weights, dist.Bernoulli(logits=logits).to_event(1))
    z = fn.sample()
    found = coordinates("z", fn, z)
    assert isinstance(found, Values)
    u = found.of(fn, z).requires_grad_()
    (gradient,) = torch.autograd.grad(found.log_prob(fn, z, u), u)
    joint = weights.logits + dist.Bernoulli(logits=logits).log_prob(z).sum(-1)
    expected = joint.softmax(-1) @ logits  # of log p(z = 1) - log p(z = 0)
    torch.testing.assert_close(gradient[:, 1] - gradient[:, 0], expected)


def test_values_that_depend_on_another_site_are_refused() -> None:
    three, four = dist.Categorical(torch.ones(3)), dist.Categorical(torch.ones(4))
    z = torch.tensor(1)
    found = coordinates("z", three, z)
    assert isinstance(found, Values)
    with pytest.raises(InputError, match="depend on another site"):
        found.log_prob(four, z, found.of(three, z))
    with pytest.raises(InputError, match="not among its possible values"):
        discrete_values.to_weights("z", three, torch.tensor(3), found.values)


def normal(x: Tensor) -> Any:
    return dist.Normal(0.0 * x, 1.0)


def von_mises(x: Tensor) -> Any:
    return dist.VonMises(0.0 * x, 1.0)


def shifted(x: Tensor) -> Any:
    return dist.TransformedDistribution(von_mises(x), [transforms.AffineTransform(2.0, 1.0)])


def categories(count: int) -> Callable[[Tensor], Any]:
    return lambda x: dist.Categorical(x.new_ones(len(x), count))


@pytest.mark.parametrize(
    ("guide_fn", "model_fn", "said"),
    [
        (normal, von_mises, "in the guide it is on a line, and in the model it is on a circle"),
        (von_mises, normal, "in the guide it is on a circle, and in the model it is on a line"),
        (shifted, shifted, "has a density with the period 2 pi"),
        (categories(3), categories(4), "it has 3 possible values, and in the model it has 4"),
        (lambda x: dist.Poisson(1 + 0 * x), lambda x: dist.Poisson(1 + 0 * x), "enumerated"),
        (categories(3), lambda x: dist.Poisson(1 + 0 * x), "cannot be enumerated"),
        (
            lambda x: distributions.UniformSphere(3, x),
            lambda x: dist.Normal(x.new_zeros(3), 1.0).to_event(1),
            "continuous in the model, and on a sphere in the guide",
        ),
    ],
)
def test_what_is_refused(
    guide_fn: Callable[[Tensor], Any], model_fn: Callable[[Tensor], Any], said: str
) -> None:
    model, guide = pair(guide_fn, model_fn)
    with pytest.raises(InputError, match=said):
        bounds.anneal(model, guide, torch.randn(5), FEW)


@pytest.mark.filterwarnings("ignore:all examples are taken at once")
def test_an_autoguide_of_an_angle_is_refused() -> None:
    """AutoNormal takes the circle for a line: the density of the model is not normalised there."""
    model, _ = pair(von_mises, von_mises)
    x = torch.randn(5)
    guide = pyro.infer.autoguide.AutoNormal(model)
    with pytest.raises(InputError, match="is on a circle"):
        bounds.anneal(model, guide, x, FEW)


def test_an_interval_may_be_a_circle() -> None:
    def uniform(x: Tensor) -> Any:
        return dist.Uniform(-PI + 0 * x, PI)

    x = torch.randn(20)
    for guide_fn, model_fn in ((von_mises, uniform), (uniform, von_mises)):
        model, guide = pair(guide_fn, model_fn)
        log_w = bounds.anneal(model, guide, x, Settings(3, chains=2000)).log_w
        expected = bounds.iwae(bounds.log_weights(model, guide, x, 20_000)).double()
        error = (log_w.exp().std(0) / 2000**0.5 / log_w.exp().mean(0)) + 0.02
        assert ((bounds.iwae(log_w) - expected).abs() < 4.5 * error).all()


def test_densities_without_gradients() -> None:
    """A variable that the model does not use, and one whose gradient is cut off."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", distributions.UniformSphere(3, x))
            z = pyro.sample("z", dist.Uniform(-PI + 0 * x, PI))
            pyro.sample("x", dist.Normal(z.detach().round(), 2.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", distributions.UniformSphere(3, x))
            pyro.sample("z", dist.VonMises(0.0 * x, 0.5))

    x = torch.tensor([0.3, 2.0]).double()
    z = -PI + 2 * PI * (torch.arange(10_000).double() + 0.5) / 10_000
    exact = dist.Normal(z.round(), 2.0).log_prob(x[:, None]).logsumexp(1) - math.log(10_000)
    for start in ("posterior", "prior"):
        settings = Settings(4, chains=4000, leapfrog=2, start=start)
        ratio = (bounds.anneal(model, guide, x, settings).log_w - exact).exp()
        assert ((ratio.mean(0) - 1).abs() < 4.5 * ratio.std(0) / 4000**0.5).all()


@pytest.mark.parametrize("make", [bit_over_line, circle_over_categories])
def test_one_chain_at_a_time(make: Callable[[], Any]) -> None:
    """Programs that cannot make several draws at once have the same densities."""
    known = make()
    settings = Settings(3, chains=40, leapfrog=1)
    log_w = bounds.anneal(known.model, known.guide, known.x, settings, vectorize=False).log_w
    ratio = (log_w - known.log_p(known.x)).exp()
    assert ((ratio.mean(0) - 1).abs() < 4.5 * ratio.std(0) / 40**0.5).all()


def test_discrete_variables_outside_the_plate() -> None:
    """The bound is then for all data together."""
    means = torch.tensor([-0.5, 0.4]).double()
    probs = torch.tensor([0.4, 0.6]).double()

    def model(x: Tensor) -> None:
        k = pyro.sample("k", dist.Categorical(probs))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(means[k], 1.0))
            pyro.sample("x", dist.Normal(z, 1.5), obs=x)

    def guide(x: Tensor) -> None:
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.5]).double()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * x + 0.7 * means[k], 0.9))

    x = torch.tensor([0.3, 1.0, -0.4]).double()
    evidence = dist.Normal(means[:, None], math.hypot(1, 1.5)).log_prob(x).sum(1)
    exact = (probs.log() + evidence).logsumexp(0)
    log_w = bounds.anneal(model, guide, x, Settings(5, chains=2000, leapfrog=2)).log_w
    assert log_w.shape == (2000, 1)
    ratio = (log_w - exact).exp()
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / 2000**0.5
