"""The objectives against Pyro's, against closed forms, and against each other."""

import gc
import inspect
import math
import weakref
from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import LinearGaussian
from pyro.infer import ELBO as PyroELBO
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae import VAE, InputError, bounds, likelihoods, networks, objectives, posteriors, priors
from pyro_vae.kinds import Binary
from pyro_vae.objectives import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    RWS,
    TVO,
    AnalyticELBO,
    Renyi,
    TargetKL,
)
from pyro_vae.training import EagerEngine


@pytest.fixture
def x() -> Tensor:
    return (torch.rand(30, 5) < 0.4).float()


def make(prior: type[priors.Prior] = priors.StandardNormal) -> VAE:
    torch.manual_seed(2)
    return VAE(prior(2), likelihoods.Bernoulli(2, [5]), posteriors.Normal([5], 2))


def value_and_gradients(
    objective: PyroELBO, vae: VAE, x: Tensor, seed: int = 4
) -> tuple[float, list[Tensor]]:
    torch.manual_seed(seed)
    vae.zero_grad()
    loss = objective.loss_and_grads(vae.model, vae.guide, x)
    return loss, [p.grad.clone() for p in vae.parameters() if p.grad is not None]


def assert_same(first: tuple[float, list[Tensor]], second: tuple[float, list[Tensor]]) -> None:
    assert first[0] == pytest.approx(second[0], rel=1e-6)
    assert len(first[1]) == len(second[1]) > 0
    for one, other in zip(first[1], second[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def by_hand(vae: VAE, x: Tensor, beta: float, analytic: bool) -> tuple[float, list[Tensor]]:
    """The loss in plain PyTorch, with the same noise."""
    torch.manual_seed(4)
    vae.zero_grad()
    q, p = vae.posterior(x), vae.prior()
    z = q.rsample()
    if analytic:
        kl = torch.distributions.kl_divergence(q.base_dist, p.base_dist).sum(-1)
    else:
        kl = q.log_prob(z) - p.log_prob(z)
    loss = (beta * kl - vae.likelihood(z).log_prob(x)).sum()
    loss.backward()
    return loss.item(), [p.grad.clone() for p in vae.parameters() if p.grad is not None]


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize(("objective", "analytic"), [(ELBO, False), (AnalyticELBO, True)])
def test_weighted_elbo_by_hand(
    objective: Callable[..., PyroELBO], analytic: bool, beta: float, x: Tensor
) -> None:
    vae = make(priors.LearnedNormal)
    expected = by_hand(vae, x, beta, analytic)
    assert_same(value_and_gradients(objective(beta=beta), vae, x), expected)


@pytest.mark.parametrize("num_particles", [1, 4])
def test_elbo_is_pyros_at_beta_one(num_particles: int, x: Tensor) -> None:
    for ours, theirs in ((ELBO, Trace_ELBO), (AnalyticELBO, TraceMeanField_ELBO)):
        vae = make()
        reference = theirs(
            num_particles, max_plate_nesting=1, vectorize_particles=num_particles > 1
        )
        first = value_and_gradients(ours(num_particles=num_particles), vae, x)
        assert_same(first, value_and_gradients(reference, vae, x))


def test_analytic_and_monte_carlo_kl_agree_in_expectation(linear_gaussian: LinearGaussian) -> None:
    x = linear_gaussian.marginal.sample((50,))
    vae = linear_gaussian.vae
    exact = -linear_gaussian.elbo(x).sum().item()
    for objective in (ELBO(), AnalyticELBO()):
        draws = torch.tensor([objective.loss(vae.model, vae.guide, x) for _ in range(400)])
        error = draws.std().item() / 20
        assert abs(draws.mean().item() - exact) < 4 * error
        assert error < 0.01 * abs(exact)


def test_loss_is_a_proper_bound_whatever_is_trained(x: Tensor) -> None:
    """`loss` has the KL in full, even where the training objective has none of it."""
    vae = make()
    torch.manual_seed(4)
    expected = Trace_ELBO().loss(vae.model, vae.guide, x)
    for objective in (ELBO(), ELBO(beta=0.0), ELBO(beta=5.0), ELBO(warmup=10.0)):
        torch.manual_seed(4)
        assert objective.loss(vae.model, vae.guide, x) == pytest.approx(expected)


def test_warmup_is_linear() -> None:
    for objective in (ELBO(beta=2.0, warmup=10.0), AnalyticELBO(beta=2.0, warmup=10.0)):
        assert objective.kl_weight == 0  # from the first step on
        for epoch, weight in ((0, 0.0), (2.5, 0.5), (5, 1.0), (10, 2.0), (11, 2.0), (1000, 2.0)):
            objective.anneal(epoch)
            assert objective.kl_weight.item() == pytest.approx(weight)
    objective = ELBO(warmup=10.0)
    objective.anneal(7.0)
    vae, x = make(), torch.ones(4, 5)
    assert_same(value_and_gradients(objective, vae, x), by_hand(vae, x, 0.7, analytic=False))


def test_analytic_kl_is_refused_where_there_is_none(x: Tensor) -> None:
    for prior in (priors.Mixture, priors.Vamp):
        vae = make(prior)
        for act in ("loss", "loss_and_grads"):
            with pytest.raises(
                InputError, match=r"KL\(Normal \|\| NormalMixture.*--objective ELBO"
            ):
                getattr(AnalyticELBO(), act)(vae.model, vae.guide, x)


def test_iwae_with_one_particle_is_the_elbo(x: Tensor) -> None:
    vae = make()
    objective = IWAE(num_particles=1)
    objective.loss(vae.model, vae.guide, x)  # looks at the programs once, with noise of its own
    assert_same(value_and_gradients(objective, vae, x), value_and_gradients(ELBO(), vae, x))


def test_iwae_by_hand(x: Tensor) -> None:
    vae = make(priors.LearnedNormal)
    objective = IWAE(num_particles=6)
    objective.loss(vae.model, vae.guide, x)
    first = value_and_gradients(objective, vae, x)
    torch.manual_seed(4)
    vae.zero_grad()
    q = vae.posterior(x)
    z = q.rsample((6,))
    log_w = vae.likelihood(z).log_prob(x) + vae.prior().log_prob(z) - q.log_prob(z)
    loss = -log_w.exp().mean(0).log().sum()
    loss.backward()
    assert_same(first, (loss.item(), [p.grad for p in vae.parameters() if p.grad is not None]))
    torch.manual_seed(4)
    assert objective.loss(vae.model, vae.guide, x) == pytest.approx(loss.item(), rel=1e-6)


def test_iwae_is_what_bounds_measure(linear_gaussian: LinearGaussian) -> None:
    x = linear_gaussian.marginal.sample((20,))
    vae = linear_gaussian.vae
    measured = bounds.evaluate(vae.model, vae.guide, x, 5000, ladder=[5]).iwae[5]
    objective = IWAE(num_particles=5)
    draws = torch.tensor([objective.loss(vae.model, vae.guide, x) / -20 for _ in range(500)])
    error = (draws.var().item() / 500 + measured.mc_se**2) ** 0.5
    assert abs(draws.mean().item() - measured.mean) < 4 * error


class Coin(nn.Module):
    """A model, or a guide, with one discrete latent site."""

    def __init__(self, observes: bool) -> None:
        super().__init__()
        self.observes = observes

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            if self.observes:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_iwae_refuses_what_it_has_no_gradient_for() -> None:
    with pytest.raises(InputError, match="'z' of the guide is not reparameterised"):
        IWAE().loss_and_grads(Coin(True), Coin(False), torch.zeros(3))


EVERY: dict[str, Callable[[], objectives.Objective]] = {
    "ELBO": ELBO,
    "ELBO, stl": partial(ELBO, 3, gradient="stl"),
    "ELBO, free bits": partial(ELBO, 2, free_bits=0.1, group=0),
    "AnalyticELBO": AnalyticELBO,
    "TargetKL": partial(TargetKL, 5.0, 2),
    "IWAE": IWAE,
    "IWAE, dreg": partial(IWAE, 3, "dreg"),
    "MIWAE": partial(MIWAE, 2, 2, "stl"),
    "PIWAE": partial(PIWAE, 2, 2, "dreg"),
    "CIWAE": partial(CIWAE, 3, 0.5, "dreg"),
    "Renyi": partial(Renyi, 3, 0.5),
    "CUBO": CUBO,
    "TVO": TVO,
    "RWS": partial(RWS, guide="both"),
}
EVERY_NAME = pytest.mark.parametrize("name", EVERY)


def test_no_objective_is_forgotten() -> None:
    classes = {type(make_objective()).__name__ for make_objective in EVERY.values()}
    assert classes == set(objectives.__all__) - {"Objective"}


POSTERIORS = [
    posteriors.Normal,
    posteriors.FullNormal,
    posteriors.LowRankNormal,
    partial(posteriors.IAF, layers=1, hidden=4, context=2),
    partial(posteriors.SplineFlow, layers=1, hidden=4, context=2, bins=3),
]
REAL = [
    priors.StandardNormal,
    priors.LearnedNormal,
    priors.StudentT,
    priors.Laplace,
    priors.AR1,
    partial(priors.Mixture, components=3),
    partial(priors.Vamp, components=3),
    partial(priors.Exemplar, components=3),
    partial(priors.Flow, layers=1, hidden=4),
    priors.LARS,
]
PAIRS = [
    *[(prior, posteriors.Normal) for prior in REAL],
    *[(priors.StandardNormal, posterior) for posterior in POSTERIORS[1:]],
    (partial(priors.Vamp, components=3), POSTERIORS[3]),
    (priors.UniformSphere, posteriors.PowerSpherical),
    (priors.Bernoulli, posteriors.Bernoulli),
    (partial(priors.Categorical, categories=2), partial(posteriors.Categorical, categories=2)),
    (priors.Hierarchical, partial(posteriors.Hierarchical, top_dim=2, features=4)),
]


def step(objective: objectives.Objective, vae: VAE, x: Tensor) -> None:
    """One step of Pyro's own SVI moves decoder and encoder, and leaves all of it finite."""
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), objective)
    assert math.isfinite(svi.step(x))
    moved = {n for n, p in vae.named_parameters() if not torch.equal(p.detach(), before[n])}
    assert all(p.isfinite().all() for p in vae.parameters())
    for part in ("decoder", "encoder"):
        assert any(part in parameter for parameter in moved), part
    assert math.isfinite(svi.evaluate_loss(x))


@EVERY_NAME
def test_every_prior_and_posterior(name: str, x: Tensor) -> None:
    refused = 0
    for prior, posterior in PAIRS:
        pyro.clear_param_store()
        small = partial(networks.MLP, widths=[4])
        vae = VAE(prior(2), likelihoods.Bernoulli(2, [5], small), posterior([5], 2, small))
        try:
            step(EVERY[name](), vae, x)
        except InputError as error:
            assert "no closed form: take --objective ELBO" in str(error)
            refused += 1
    assert refused == (13 if name == "AnalyticELBO" else 0)


@EVERY_NAME
def test_every_likelihood(name: str) -> None:
    small = partial(networks.MLP, widths=[4])
    for likelihood in (getattr(likelihoods, kind) for kind in likelihoods.__all__):
        if not inspect.isclass(likelihood) or inspect.isabstract(likelihood):
            continue
        pyro.clear_param_store()
        made = likelihood(2, [3, 2], small)
        images = torch.randint(256, (7, 3, 2), dtype=torch.uint8)
        vae = VAE(priors.StandardNormal(2), made, posteriors.Normal([3, 2], 2, small))
        vae.initialize(Binary().stored_features(images))
        step(EVERY[name](), vae, made.kind.observe(images))


@EVERY_NAME
def test_engines_take_every_objective(name: str, x: Tensor) -> None:
    """The engine's step is SVI's, and its loss a proper bound, by the objective's own draws."""
    ours, theirs = make(), make()
    engine = EagerEngine(ours.model, ours.guide, EVERY[name](), lr=1e-2)
    svi = pyro.infer.SVI(theirs.model, theirs.guide, pyro.optim.Adam({"lr": 1e-2}), EVERY[name]())
    losses = []
    for run in (engine, svi):
        torch.manual_seed(0)
        losses.append([run.step(x), run.step(x), run.evaluate_loss(x)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@EVERY_NAME
def test_a_step_is_a_graph(name: str, x: Tensor) -> None:
    """Loss and gradients can be traced, and the graph draws anew and follows the schedule."""
    vae, objective = make(), EVERY[name]()
    objective.loss(vae.model, vae.guide, x)  # looks at the programs once
    parameters = list(vae.parameters())

    def step(x: Tensor) -> list[Tensor]:
        loss = objective.differentiable_loss(vae.model, vae.guide, x)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [loss, *(g for g in gradients if g is not None)]

    with pyro.validation_enabled(False):
        graph = make_fx(step)(x)
    weight = getattr(objective, "kl_weight", torch.zeros(()))
    for value in (1.0, 0.3):
        weight.fill_(value)
        found = []
        for run in (step, graph):
            torch.manual_seed(1)
            found.append(run(x.flip(0)))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@EVERY_NAME
def test_a_step_leaves_nothing_behind(name: str, x: Tensor) -> None:
    """What a step made is freed at once, and not when Python next looks for cycles."""
    vae, objective = make(), EVERY[name]()
    objective.loss(vae.model, vae.guide, x)
    made: list[weakref.ref[Tensor]] = []
    forward = vae.likelihood.decoder.forward

    def watched(z: Tensor) -> Tensor:
        made.append(weakref.ref(z))
        return forward(z)

    vae.likelihood.decoder.forward = watched
    gc.disable()
    try:
        objective.loss_and_grads(vae.model, vae.guide, x)
        assert made and all(ref() is None for ref in made)
    finally:
        gc.enable()


@EVERY_NAME
def test_what_is_measured_is_a_proper_bound(name: str, linear_gaussian: LinearGaussian) -> None:
    """`loss` is -ELBO or -IWAE_K whatever is trained; its mean is what `bounds` says it is."""
    vae, objective = linear_gaussian.vae, EVERY[name]()
    x = linear_gaussian.marginal.sample((20,))
    draws = torch.tensor([objective.loss(vae.model, vae.guide, x) / -20 for _ in range(150)])
    error = draws.std().item() / 150**0.5
    if isinstance(objective, ELBO | AnalyticELBO | TargetKL):
        expected, slack = linear_gaussian.elbo(x).mean().item(), 0.0
    else:
        k = objective.num_particles
        measured = bounds.evaluate(vae.model, vae.guide, x, 40 * k, ladder=[k]).iwae[k]
        expected, slack = measured.mean, measured.mc_se
    assert abs(draws.mean().item() - expected) < 4.5 * (error**2 + slack**2) ** 0.5
    assert draws.mean().item() < linear_gaussian.marginal.log_prob(x).mean().item()


REDUCTIONS = [
    (partial(ELBO, free_bits=0.0), ELBO),
    (partial(AnalyticELBO, free_bits=0.0), AnalyticELBO),
    (partial(AnalyticELBO, free_bits=1e-30), AnalyticELBO),  # a KL in closed form is not below it
    (partial(ELBO, beta=1.0), ELBO),
    (partial(Renyi, 4, 1.0), partial(ELBO, 4)),
    (partial(Renyi, 4, 0.0), partial(IWAE, 4)),
    (partial(Renyi, 4, 1.0, "dreg"), partial(ELBO, 4, gradient="stl")),
    (partial(Renyi, 4, 0.0, "dreg"), partial(IWAE, 4, "dreg")),
    (partial(CIWAE, 4, 1.0), partial(ELBO, 4)),
    (partial(CIWAE, 4, 0.0), partial(IWAE, 4)),
    (partial(CIWAE, 4, 1.0, "dreg"), partial(ELBO, 4, gradient="stl")),
    (partial(CIWAE, 4, 0.0, "dreg"), partial(IWAE, 4, "dreg")),
    (partial(MIWAE, 1, 4), partial(ELBO, 4)),
    (partial(MIWAE, 4, 1), partial(IWAE, 4)),
    (partial(PIWAE, 4, 1), partial(IWAE, 4)),
    (partial(IWAE, 1), ELBO),
    (partial(IWAE, 1, "dreg"), partial(ELBO, gradient="stl")),
    (partial(ELBO, warmup=3.0), ELBO),
    (partial(ELBO, warmup=3.0, start=0.2), ELBO),
    (partial(ELBO, warmup=1.0, cycles=2), ELBO),
]


@pytest.mark.parametrize(("special", "plain"), REDUCTIONS)
def test_reductions_are_exact(
    special: Callable[[], objectives.Objective],
    plain: Callable[[], objectives.Objective],
    x: Tensor,
) -> None:
    """Value and gradients, in double precision; a schedule at its end."""
    vae, x = make(priors.LearnedNormal).double(), x.double()
    found = []
    for objective in (special(), plain()):
        objective.anneal(100)
        objective.loss(vae.model, vae.guide, x)  # looks at the programs once
        found.append(value_and_gradients(objective, vae, x))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_free_bits_by_hand() -> None:
    """Per group of dimensions, in the mean over the batch; below the free bits there is no pull."""
    torch.manual_seed(2)
    vae = VAE(priors.LearnedNormal(5), likelihoods.Bernoulli(5, [5]), posteriors.Normal([5], 5))
    with torch.no_grad():
        vae.posterior.encoder.bias[0] = torch.tensor([0.0, 0.1, 0.2, 1.0, 2.0])
        vae.posterior.encoder.bias[1] = 0.5  # scales near one
    x = (torch.rand(30, 5) < 0.4).float()
    for group, sizes in ((1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1]), (0, [5])):
        for objective, analytic in ((ELBO, False), (AnalyticELBO, True)):
            first = value_and_gradients(objective(beta=0.7, free_bits=0.3, group=group), vae, x)
            torch.manual_seed(4)
            vae.zero_grad()
            q, p = vae.posterior(x).base_dist, vae.prior().base_dist
            z = q.rsample()
            kl = (
                torch.distributions.kl_divergence(q, p)
                if analytic
                else q.log_prob(z) - p.log_prob(z)
            )
            groups = torch.stack([part.sum() for part in kl.mean(0).split(sizes)])
            assert (groups > 0.3).any() and ((groups < 0.3).any() or group in (0, 4))
            loss = 0.7 * 30 * groups.clamp(min=0.3).sum() - vae.likelihood(z).log_prob(x).sum()
            loss.backward()
            grads = [p.grad for p in vae.parameters() if p.grad is not None]
            assert_same(first, (loss.item(), grads))


def test_free_bits_of_several_draws_and_sites() -> None:
    """Draws are averaged before the free bits are taken off, and sites have each their own."""
    torch.manual_seed(2)
    small = partial(networks.MLP, widths=[4])
    vae = VAE(
        priors.Hierarchical(2),
        likelihoods.Bernoulli(2, [5], small),
        posteriors.Hierarchical([5], 2, small, top_dim=2, features=4),
    )
    x = (torch.rand(30, 5) < 0.4).float()
    for free in (0.02, 0.2, 5.0):
        objective = ELBO(3, free_bits=free, group=0)
        objective.loss(vae.model, vae.guide, x)  # looks at the programs once
        torch.manual_seed(4)
        draws = objective.draw(vae.model, vae.guide, x)
        torch.manual_seed(4)
        loss = objective.differentiable_loss(vae.model, vae.guide, x)
        price = 0.0
        for name in ("z", "z_top"):
            of_site = partial(lambda name, site: site["name"] == name, name)
            kl = draws.sum(draws.guide, of_site) - draws.sum(draws.model, of_site)
            assert kl.shape == (3, 30)
            price += 30 * max(kl.mean().item(), free)
        expected = price - draws.sum(draws.model, lambda s: s["is_observed"]).mean(0).sum().item()
        assert loss.item() == pytest.approx(expected, rel=1e-5)


class Masked(nn.Module):
    """A program in which only some of the examples count."""

    def __init__(self, program: nn.Module, counted: Tensor) -> None:
        super().__init__()
        self.program, self.counted = program, counted

    def forward(self, x: Tensor) -> None:
        with pyro.poutine.mask(mask=self.counted):
            self.program(x)


def test_masks(linear_gaussian: LinearGaussian) -> None:
    """An example that is masked has no part in the loss; free bits refuse masks."""
    vae, x = linear_gaussian.vae, linear_gaussian.marginal.sample((3,))
    counted = torch.tensor([True, False, True])
    model, guide = (Masked(part, counted) for part in (vae.model, vae.guide))
    for objective in (ELBO(2), AnalyticELBO(2), IWAE(3), TVO(3)):
        objective.loss(model, guide, x)  # looks at the programs once
        found = []
        for second in (x[1], x[1] + 9):
            torch.manual_seed(1)
            found.append(objective.loss(model, guide, torch.stack([x[0], second, x[2]])))
        assert found[0] == pytest.approx(found[1])
        torch.manual_seed(1)
        assert objective.loss(vae.model, vae.guide, x) > found[0] + 0.1
    for objective in (ELBO(free_bits=0.1), AnalyticELBO(free_bits=0.1, group=0)):
        with pytest.raises(InputError, match="'z' is masked"):
            objective.differentiable_loss(model, guide, x)


@pytest.mark.parametrize(
    "objective", [AnalyticELBO(), ELBO(free_bits=0.1, group=0), AnalyticELBO(free_bits=0.1)]
)
def test_sites_without_a_kl_of_their_own(objective: objectives.Objective, x: Tensor) -> None:
    """Those of Pyro's autoguides are points; `ELBO` knows their auxiliary sites."""
    model = make().model
    guide = pyro.infer.autoguide.AutoNormal(model)
    guide(x)
    with pytest.raises(InputError, match="has no KL of its own: take --objective ELBO"):
        objective.differentiable_loss(model, guide, x)
    assert math.isfinite(ELBO().loss(model, guide, x))


class Plates(nn.Module):
    """A model, or a guide, with a plate beside that of the data."""

    def __init__(self, observes: bool) -> None:
        super().__init__()
        self.observes = observes
        self.loc = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("inner", 3, dim=-1), pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0))
            if self.observes:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_weights_that_do_not_fit_plates_are_refused() -> None:
    model, guide, x = Plates(True), Plates(False), torch.randn(3, 3)
    for taken in (IWAE(3), MIWAE(2, 2), CUBO(3), TVO(3), IWAE(1)):
        assert taken.differentiable_loss(model, guide, x).isfinite()
    for refused in (PIWAE(2, 2), IWAE(3, "dreg"), IWAE(3, "stl"), IWAE(1, "dreg")):
        with pytest.raises(InputError, match="no plate but that of the data"):
            refused.differentiable_loss(model, guide, x)


def test_free_bits_that_no_dimension_has(x: Tensor) -> None:
    vae = make(priors.Mixture)
    with pytest.raises(InputError, match=r"independent dimensions under NormalMixture.*group 0"):
        ELBO(free_bits=1.0).differentiable_loss(vae.model, vae.guide, x)
    assert ELBO(free_bits=1.0, group=0).differentiable_loss(vae.model, vae.guide, x).isfinite()


def test_schedules() -> None:
    """Linear, from above zero, and in cycles: up for `warmup` epochs, and up there for as long."""
    weight = objectives.elbo.kl_weight
    for epoch, expected in ((0, 0.2), (2.5, 0.6), (5, 1.0), (9.99, 1.0), (50, 1.0)):
        assert weight(epoch, 0.2, 1.0, warmup=5, cycles=1) == pytest.approx(expected)
    for epoch, expected in ((0, 0), (1, 0.5), (2, 1), (3.9, 1), (4, 0), (5, 0.5), (6, 1), (99, 1)):
        assert weight(epoch, 0.0, 1.0, warmup=2, cycles=2) == pytest.approx(expected)


def test_target_kl_is_held(x: Tensor) -> None:
    """From both sides, and the multiplier goes with the checkpoint."""
    for target in (0.5, 2.0):
        vae = make()
        objective = TargetKL(target, 8, rate=0.05)
        engine = EagerEngine(vae.model, vae.guide, objective, lr=1e-2)
        for _ in range(600):
            engine.step(x)
        vae.eval()
        with torch.no_grad():
            q = vae.posterior(x)
            kl = torch.distributions.kl_divergence(q.base_dist, vae.prior().base_dist)
        assert kl.sum(-1).mean().item() == pytest.approx(target, rel=0.2)
        state = engine.state_dict()
        other = TargetKL(target)
        EagerEngine(vae.model, vae.guide, other).load_state_dict(state)
        assert other.kl_weight.item() == objective.kl_weight.item() != 1


@pytest.mark.parametrize(
    "make_objective", [ELBO, AnalyticELBO, IWAE, MIWAE, PIWAE, CIWAE, Renyi, CUBO, TVO, RWS]
)
def test_particles_are_counted(make_objective: Callable[..., PyroELBO]) -> None:
    with pytest.raises(InputError, match="particles"):
        make_objective(num_particles=0)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (partial(ELBO, beta=-1.0), "beta has to be between 0 and 1e6"),
        (partial(AnalyticELBO, warmup=-1.0), "warmup has to be between 0 and 1e6"),
        (partial(ELBO, cycles=0), "cycles"),
        (partial(ELBO, free_bits=-1.0), "free_bits"),
        (partial(ELBO, free_bits=1.0, gradient="stl"), "do not go together"),
        (partial(CIWAE, beta=1.1), "beta has to be between 0 and 1,"),
        (partial(MIWAE, groups=0), "groups"),
        (partial(CUBO, order=1.0), "order"),
        (partial(CUBO, num_particles=1), "two particles"),
        (partial(ELBO, start=0.3), "warm-up"),
        (partial(AnalyticELBO, cycles=2), "warm-up"),
        (partial(Renyi, alpha=math.nan), "alpha"),
        (partial(TVO, terms=0), "terms"),
        (partial(TVO, num_particles=1), "two particles"),
        (partial(RWS, num_particles=1), "two particles"),
        (partial(TargetKL, target=0.0), "target"),
    ],
)
def test_options_are_checked(bad: Callable[[], PyroELBO], said: str) -> None:
    with pytest.raises(InputError, match=said):
        bad()


def test_scales_are_refused(x: Tensor) -> None:
    vae = make()
    with pytest.raises(InputError, match="site 'z' has a scale"):
        ELBO().loss(pyro.poutine.scale(vae.model, 2.0), vae.guide, x)


def test_a_model_that_does_not_dream() -> None:
    with pytest.raises(InputError, match=r"model\(size=n\)"):
        RWS(guide="sleep").loss_and_grads(Coin(True), Coin(False), torch.zeros(3))


def test_objectives_are_elbos() -> None:
    for make_objective in EVERY.values():
        objective = make_objective()
        assert isinstance(objective, PyroELBO) and isinstance(objective, objectives.Objective)
        with pytest.raises(NotImplementedError):
            objective._get_trace(None, None, (), {})
