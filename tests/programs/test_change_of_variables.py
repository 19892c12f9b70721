"""Guides that compute latent values from noise: right numbers, or a refusal.

Pyro's autoguides are compared with exact evidence, on a model with a site of each support; guides
written by hand are right, or wrong in one way each.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.easyguide import EasyGuide
from pyro.distributions import constraints
from pyro.distributions.transforms import affine_autoregressive, iterated
from pyro.infer import SVI, Trace_ELBO, autoguide
from torch import Tensor
from torch.distributions import biject_to

from pyro_vae import InputError, bounds

REAL, SLOPE = torch.tensor([0.4, -0.2, 1.1, 0.3]), torch.tensor([0.5, -1.0, 0.2, 1.5])
COUNTS, HITS = torch.tensor([2.0, 0.0, 3.0]), torch.tensor([4.0, 6.0])
LABELS = torch.tensor([0, 2, 2, 1])
PAIRS = torch.tensor([[0.5, 0.9], [-1.0, -0.3], [1.2, 0.1]])


def every_support() -> None:
    """Five independent models: real, positive, interval, simplex, correlation-Cholesky."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    p = pyro.sample("p", dist.Beta(2.0, 1.5))
    shares = pyro.sample("shares", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    factor = pyro.sample("factor", dist.LKJCholesky(2, 2.0))
    with pyro.plate("real", 4):
        pyro.sample("x", dist.Normal(w[..., 0] + w[..., 1] * SLOPE, 0.7), obs=REAL)
    with pyro.plate("counts", 3):
        pyro.sample("n", dist.Poisson(rate), obs=COUNTS)
    with pyro.plate("hits", 2):
        pyro.sample("k", dist.Binomial(9, p), obs=HITS)
    with pyro.plate("labels", 4):
        pyro.sample("label", dist.Categorical(shares), obs=LABELS)
    with pyro.plate("pairs", 3):
        normal = dist.MultivariateNormal(torch.zeros(2), scale_tril=factor)
        pyro.sample("pair", normal, obs=PAIRS)


def exact_evidence() -> float:
    """The sum of five closed forms; one of them is an integral over the correlation."""
    design = torch.stack([torch.ones(4), SLOPE], 1).double()
    covariance = design @ design.T + 0.49 * torch.eye(4).double()
    total = dist.MultivariateNormal(torch.zeros(4).double(), covariance).log_prob(REAL.double())
    n = COUNTS.sum().item()
    total += math.lgamma(2 + n) - math.lgamma(2) - (2 + n) * math.log(4)
    total -= torch.lgamma(COUNTS + 1).sum().item()

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    k = HITS.sum().item()
    total += log_beta(2 + k, 1.5 + 18 - k) - log_beta(2, 1.5)
    total += sum(math.log(math.comb(9, int(hit))) for hit in HITS)
    prior, seen = [1.0, 2.0, 3.0], torch.bincount(LABELS).tolist()
    total += math.lgamma(6) - math.lgamma(10)
    total += sum(math.lgamma(a + s) - math.lgamma(a) for a, s in zip(prior, seen, strict=True))
    r = torch.linspace(-1, 1, 20_001).double()[1:-1, None]
    log_prior = (1 - r**2).log() - 3 * math.log(2) - log_beta(2, 2)
    a, b = PAIRS.double().T
    log_p = -0.5 * (a**2 - 2 * r * a * b + b**2) / (1 - r**2) - 0.5 * (1 - r**2).log()
    log_joint = log_prior[:, 0] + (log_p - math.log(2 * math.pi)).sum(1)
    total += log_joint.logsumexp(0) + math.log(2 / 20_000)
    return total.item()


GUIDES: dict[str, Callable[[Any], Any]] = {
    "AutoNormal": autoguide.AutoNormal,
    "AutoDiagonalNormal": autoguide.AutoDiagonalNormal,
    "AutoMultivariateNormal": autoguide.AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": autoguide.AutoLowRankMultivariateNormal,
    "AutoIAFNormal": partial(autoguide.AutoIAFNormal, hidden_dim=[16]),
    "AutoGaussian": autoguide.AutoGaussian,
    "AutoStructured": partial(autoguide.AutoStructured, conditionals="mvn"),
    "AutoNormalizingFlow": lambda model: autoguide.AutoNormalizingFlow(
        model, partial(iterated, 2, affine_autoregressive)
    ),
}


def assert_evidence(log_w: Tensor, exact: Tensor | float) -> None:
    """Weights of a narrow enough spread, whose mean is the evidence."""
    count = len(log_w)
    estimate = log_w.logsumexp(0) - math.log(count)
    error = (log_w - estimate).exp().std(0) / count**0.5
    assert (error < 0.2).all()
    assert ((estimate - torch.as_tensor(exact)).abs() < 4.5 * error + 1e-3).all()


@pytest.mark.parametrize("name", GUIDES)
def test_autoguides_have_the_exact_evidence(name: str) -> None:
    guide = GUIDES[name](every_support)
    svi = SVI(every_support, guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
    for _ in range(150):
        svi.step()
    with torch.no_grad():
        log_w = bounds.log_weights(every_support, guide, bounds.Arguments(), 8000)
    assert log_w.shape == (8000, 1)
    assert_evidence(log_w.double(), exact_evidence())


def test_laplace_approximation() -> None:
    """While it is trained it is a point, which is refused; then it is a multivariate normal."""
    guide = autoguide.AutoLaplaceApproximation(every_support)
    svi = SVI(every_support, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(150):
        svi.step()
    with pytest.raises(InputError, match="point estimate"):
        bounds.log_weights(every_support, guide, bounds.Arguments(), 2)
    normal = guide.laplace_approximation()
    with torch.no_grad():
        log_w = bounds.log_weights(every_support, normal, bounds.Arguments(), 8000)
    assert_evidence(log_w.double(), exact_evidence())


def test_an_autoguide_of_local_sites_has_the_evidence_of_each_example() -> None:
    """AutoNormal in a plate: one number for each example."""

    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-2):
            rate = pyro.sample("rate", dist.Gamma(2.0, 3.0))
            pyro.sample("x", dist.Poisson(rate), obs=x[:, None])

    x = torch.tensor([0.0, 1.0, 4.0, 9.0])
    guide = autoguide.AutoNormal(model, init_scale=0.4)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.08}), Trace_ELBO())
    for _ in range(100):
        svi.step(x)
    with torch.no_grad():
        log_w = bounds.log_weights(model, guide, x, 4000)
    assert_evidence(log_w.double(), dist.GammaPoisson(2.0, 3.0).log_prob(x).double())


# Guides that are written by hand, for z of two dimensions in R^2 or in the positive quadrant.

X = torch.tensor([[0.5, 1.0], [2.0, 0.3], [1.0, 1.5]])
LOC, SCALE = torch.tensor([[0.3, 0.5]]), torch.tensor([[0.8], [0.6], [-0.9]])


def model(x: Tensor, positive: bool = False) -> None:
    with pyro.plate("data", len(x)):
        prior = dist.LogNormal(x.new_zeros(2), 1.0) if positive else dist.Normal(x.new_zeros(2), 1)
        z = pyro.sample("z", prior.to_event(1))
        pyro.sample("x", dist.Normal(z.log() if positive else z, 1.0).to_event(1), obs=x)


def exact() -> Tensor:
    return dist.Normal(0.0, 2**0.5).log_prob(X).sum(-1)


def guide_of(
    transform: Callable[[Tensor], tuple[Tensor, Tensor]], aux: Any = None
) -> Callable[..., None]:
    """Return a guide that computes z and -log |dz/da| from noise."""

    def guide(x: Tensor, positive: bool = False) -> None:
        with pyro.plate("data", len(x)):
            noise = aux or dist.Normal(x.new_zeros(2), 1.0).to_event(1)
            a = pyro.sample("a", noise, infer={"is_auxiliary": True})
            z, log_density = transform(a)
            pyro.sample("z", dist.Delta(z, log_density=log_density, event_dim=1))

    return guide


def affine(a: Tensor) -> tuple[Tensor, Tensor]:
    return X / 2 + SCALE * a, -2 * SCALE[:, 0].abs().log().expand(a.shape[:-1])


def rotated(a: Tensor) -> tuple[Tensor, Tensor]:
    """Another rotation for each example, and a stretch by 0.8."""
    angle = torch.tensor([0.3, 1.2, -2.0])
    rows = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)],
        -2,
    )
    z = X / 2 + 0.8 * (rows @ a[..., None])[..., 0]
    return z, torch.full(a.shape[:-1], -2 * math.log(0.8))


def exponential(a: Tensor) -> tuple[Tensor, Tensor]:
    z = (X / 2 + 0.8 * a).exp()
    return z, -(z.log() + math.log(0.8)).sum(-1)


def sheared(a: Tensor) -> tuple[Tensor, Tensor]:
    """The second value depends on the first in a way that is not linear."""
    first = X[:, 0] / 2 + 0.8 * a[..., 0]
    second = X[:, 1] / 2 + 0.8 * a[..., 1] + 0.2 * first.tanh()
    return torch.stack([first, second], -1), torch.full(a.shape[:-1], -2 * math.log(0.8))


def swapped(a: Tensor) -> tuple[Tensor, Tensor]:
    z, log_density = affine(a)
    return z.flip(-1) + X / 2 - X.flip(-1) / 2, log_density


@pytest.mark.parametrize("transform", [affine, rotated, exponential, sheared, swapped])
@pytest.mark.parametrize("vectorize", [None, False])
def test_guides_that_are_right(
    transform: Callable[[Tensor], tuple[Tensor, Tensor]], vectorize: bool | None
) -> None:
    arguments = bounds.Arguments(X, positive=transform is exponential)
    count = 3000 if vectorize is None else 400
    log_w = bounds.log_weights(model, guide_of(transform), arguments, count, vectorize=vectorize)
    assert_evidence(log_w.double(), exact().double())


def no_jacobian(a: Tensor) -> tuple[Tensor, Tensor]:
    return affine(a)[0], torch.zeros(a.shape[:-1])


def half_of_it(a: Tensor) -> tuple[Tensor, Tensor]:
    z, log_density = affine(a)
    return z, log_density / 2


def wrong_sign(a: Tensor) -> tuple[Tensor, Tensor]:
    z, log_density = rotated(a)
    return z, -log_density


def exponential_without(a: Tensor) -> tuple[Tensor, Tensor]:
    z, _ = exponential(a)
    return z, torch.full(a.shape[:-1], -2 * math.log(0.8))


def projected(a: Tensor) -> tuple[Tensor, Tensor]:
    """Both values are the same function of the noise."""
    z = a.sum(-1, keepdim=True).expand(a.shape)
    return z, torch.zeros(a.shape[:-1])


def folded(a: Tensor) -> tuple[Tensor, Tensor]:
    """Two noises for each z: its density is the sum over both."""
    return a.abs(), torch.zeros(a.shape[:-1])


def folded_and_turned(a: Tensor) -> tuple[Tensor, Tensor]:
    z, log_density = rotated(torch.cat([a[..., :1].abs(), a[..., 1:]], -1))
    return z, log_density


def in_order(a: Tensor) -> tuple[Tensor, Tensor]:
    """Two noises for each z, too."""
    return a.sort(-1).values, torch.zeros(a.shape[:-1])


def shared(a: Tensor) -> tuple[Tensor, Tensor]:
    """The noise of one example moves the others."""
    return a + 0.3 * a.roll(1, -2).tanh(), torch.zeros(a.shape[:-1])


def constant(a: Tensor) -> tuple[Tensor, Tensor]:
    return X / 2 + 0 * a, torch.zeros(a.shape[:-1])


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (no_jacobian, "nats away from"),
        (half_of_it, "nats away from"),
        (wrong_sign, "nats away from"),
        (exponential_without, "nats away from"),
        (projected, "invertible"),
        (folded, "invertible"),
        (folded_and_turned, "invertible"),
        (in_order, "order depends on the noise"),
        (shared, "share their noise"),
        (constant, "point estimate"),
    ],
)
def test_guides_that_are_wrong(
    transform: Callable[[Tensor], tuple[Tensor, Tensor]], said: str
) -> None:
    arguments = bounds.Arguments(X, positive=transform is exponential_without)
    with pytest.raises(InputError, match=said):
        bounds.log_weights(model, guide_of(transform), arguments, 10)


def test_wide_noise_that_a_guide_shares_out_among_sites() -> None:
    """5,010 numbers, in another order than the sites': the Jacobian is found without a matrix."""

    def wide(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(10), 1.0).to_event(1))
        with pyro.plate("data", 5):
            pyro.sample("z_0", dist.Normal(torch.zeros(300), 1.0).to_event(1))
            pyro.sample("z_1", dist.LogNormal(torch.zeros(700), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(w[..., 0], 1.0), obs=x)

    class Grouped(EasyGuide):
        def guide(self, x: Tensor) -> None:
            scale = pyro.param("scale", torch.ones(1000))
            w = self.group(match="w")
            w.sample("ws", dist.Normal(torch.zeros(10), torch.ones(10)).to_event(1))
            with self.plate("data", 5):
                z = self.group(match="z_.*")
                z.sample("zs", dist.Normal(torch.zeros(1000), scale).to_event(1))

    x = torch.tensor([0.3, -0.2, 0.8, 0.1, 0.5])
    log_w = bounds.log_weights(wide, Grouped(wide), x, 2000)
    covariance = torch.eye(5).double() + 1
    exact = dist.MultivariateNormal(torch.zeros(5).double(), covariance).log_prob(x.double())
    assert_evidence(log_w.double(), exact)


def test_noise_that_is_too_much_or_discrete() -> None:
    wide = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    keep = guide_of(lambda a: (a[..., :2], torch.zeros(a.shape[:-1])), wide)
    with pytest.raises(InputError, match="3 dimensions of noise, and 2 of the values"):
        bounds.log_weights(model, keep, X, 10)
    coins = dist.Bernoulli(torch.full((2,), 0.5)).to_event(1)
    flipped = guide_of(lambda a: (2 * a - 1, torch.zeros(a.shape[:-1])), coins)
    with pytest.raises(InputError, match="'a' is discrete"):
        bounds.log_weights(model, flipped, X, 10)


def test_points_beside_draws() -> None:
    """One value is drawn, the other is a parameter."""

    def two(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = autoguide.AutoGuideList(two)
    guide.append(autoguide.AutoNormal(pyro.poutine.block(two, hide=["w"])))
    guide.append(autoguide.AutoDelta(pyro.poutine.block(two, expose=["w"])))
    x = torch.zeros(4)
    guide(x)
    with pytest.raises(InputError, match="'w' is a point estimate"):
        bounds.evaluate(two, guide, x, 10)


def test_a_value_that_is_constrained_by_hand() -> None:
    """The Jacobian of a Delta refers to the support of the model's site: a wrong one is found."""

    def positive(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Exponential(1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor, right: bool = True) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.2 * x, 0.8), infer={"is_auxiliary": True})
            z = biject_to(constraints.positive)(a)
            pyro.sample("z", dist.Delta(z, log_density=-a if right else torch.zeros_like(a)))

    x = torch.tensor([0.5, 1.5, 2.5])
    z = torch.linspace(0, 40, 400_001).double()[:, None]
    log_joint = -z + torch.distributions.Normal(z, 1.0).log_prob(x.double())
    log_p = torch.trapezoid(log_joint.exp(), z, dim=0).log()
    assert_evidence(bounds.log_weights(positive, guide, x, 8000).double(), log_p)
    with pytest.raises(InputError, match="nats away from"):
        bounds.log_weights(positive, partial(guide, right=False), x, 10)
