"""Contracts of every objective, options that are refused, and the two special training rules."""

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
from pairs import PAIRS
from pyro.infer import ELBO as PyroELBO
from test_contracts import OBJECTIVES
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae import VAE, InputError, bounds, likelihoods, networks, objectives, posteriors, priors
from pyro_vae.kinds import Binary, Pixels
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
from pyro_vae.programs.arguments import Arguments
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


EVERY = {name: make for name, (make, _) in OBJECTIVES.items()}
EVERY_NAME = pytest.mark.parametrize("name", EVERY)


def step(objective: objectives.Objective, vae: VAE, x: Tensor) -> None:
    """One step of Pyro's own SVI changes decoder and encoder, and all parameters stay finite."""
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
            assert "no closed form: use the objective ELBO" in str(error) or (
                isinstance(vae.posterior, posteriors.BottomUp) and "same order" in str(error)
            )
            refused += 1
    assert refused == (14 if name == "AnalyticELBO" else 0)


@EVERY_NAME
def test_every_likelihood(name: str) -> None:
    small = partial(networks.MLP, widths=[4])
    for likelihood in (getattr(likelihoods, kind) for kind in likelihoods.__all__):
        if not inspect.isclass(likelihood) or inspect.isabstract(likelihood):
            continue
        if not likelihood.kinds or not issubclass(likelihood.kinds[0], Pixels):
            continue  # it needs to know more of the data than their shape
        pyro.clear_param_store()
        made = likelihood(2, [3, 2], small)
        images = torch.randint(256, (7, 3, 2), dtype=torch.uint8)
        vae = VAE(priors.StandardNormal(2), made, posteriors.Normal([3, 2], 2, small))
        vae.initialize(Binary().stored_features(images))
        step(EVERY[name](), vae, made.kind.observe(images))


@EVERY_NAME
def test_engines_take_every_objective(name: str, x: Tensor) -> None:
    """The engine takes the same steps as Pyro's SVI, and evaluates the same loss."""
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
    """Loss and gradients can be traced; the graph draws new noise and follows the schedule."""
    vae, objective = make(), EVERY[name]()
    objective.loss(vae.model, vae.guide, x)  # the first call runs the programs once more
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
        results = []
        for run in (step, graph):
            torch.manual_seed(1)
            results.append(run(x.flip(0)))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@EVERY_NAME
def test_a_step_leaves_nothing_behind(name: str, x: Tensor) -> None:
    """The tensors of a step are freed without the garbage collector: there are no cycles."""
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
    """`loss` is -ELBO or -IWAE_K for any training objective; its mean agrees with `bounds`."""
    vae, objective = linear_gaussian.vae, EVERY[name]()
    x = linear_gaussian.marginal.sample((20,))
    draws = torch.tensor([objective.loss(vae.model, vae.guide, x) / -20 for _ in range(150)])
    error = draws.std().item() / 150**0.5
    if isinstance(objective, ELBO | AnalyticELBO | TargetKL):
        expected, slack = linear_gaussian.elbo(x).mean().item(), 0.0
    else:
        k = objective.num_draws
        measured = bounds.evaluate(vae.model, vae.guide, x, 40 * k, ladder=[k]).iwae[k]
        expected, slack = measured.mean, measured.mc_se
    assert abs(draws.mean().item() - expected) < 4.5 * (error**2 + slack**2) ** 0.5
    assert draws.mean().item() < linear_gaussian.marginal.log_prob(x).mean().item()


def test_target_kl_is_reached(x: Tensor) -> None:
    """From above and from below; the multiplier is part of the state of the engine."""
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


def test_particles_and_draws() -> None:
    """`num_particles` is the argument; `num_draws` is the number of draws in all."""
    for objective, draws in ((IWAE(5), 5), (MIWAE(5, 2), 10), (PIWAE(2, 4), 8), (ELBO(3), 3)):
        assert (objective.num_draws, objective.num_particles) == (
            draws,
            draws // getattr(objective, "groups", 1),
        )
        vae = make()
        found = objective.draw(vae.model, vae.guide, Arguments(torch.ones(4, 5)))
        assert found.log_w.shape == (draws, 4)


def test_both_elbos_take_the_same_options() -> None:
    """`AnalyticELBO` has the options of `ELBO`, except the gradient."""
    options = {"num_particles": 2, "beta": 0.5, "warmup": 3.0, "start": 0.1, "cycles": 2}
    options |= {"free_bits": 0.2, "group": 3}
    for objective in (ELBO(**options), AnalyticELBO(**options), ELBO(2, 0.5, 3.0, 0.1, 2, 0.2, 3)):
        assert {name: getattr(objective, name) for name in options} == options
    share = {"warmup_share": 0.2, "cycles": 3}
    for objective in (ELBO(**share), AnalyticELBO(**share)):
        assert {name: getattr(objective, name) for name in share} == share
    with pytest.raises(TypeError, match="gradient"):
        AnalyticELBO(gradient="stl")
    with pytest.raises(TypeError, match="betta"):
        ELBO(betta=1.0)


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
        (partial(ELBO, warmup_share=1.1), "warmup_share has to be between 0 and 1"),
        (partial(ELBO, warmup=1.0, warmup_share=0.1), "give only one"),
        (partial(AnalyticELBO, warmup_share=0.4, cycles=2), "1.2 times as long as training"),
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


class BrokenModel(nn.Module):
    """A model that can be called as `model(size=n)`, and raises a TypeError of its own."""

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            if x is None:
                z = z + "a mistake in the model"
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_the_sleep_phase_refuses_models_without_a_size() -> None:
    """The signature decides, also behind Pyro's handlers; the model's own errors are not hidden."""
    x = torch.zeros(3)
    guide = Coin(False)
    for model in (Coin(True), pyro.poutine.mask(Coin(True), mask=True), Coin(True).forward):
        with pytest.raises(InputError, match=r"model\(size=n\)") as refusal:
            RWS(guide="sleep").loss_and_grads(model, guide, x)
        assert refusal.value.parameter == "guide"
    guide = pyro.infer.autoguide.AutoNormal(BrokenModel())
    guide(x)
    for model in (BrokenModel(), pyro.poutine.mask(BrokenModel(), mask=True)):
        with pytest.raises(TypeError, match="str"):
            RWS(guide="sleep").loss_and_grads(model, guide, x)


def test_objectives_are_elbos() -> None:
    for make_objective in EVERY.values():
        objective = make_objective()
        assert isinstance(objective, PyroELBO) and isinstance(objective, objectives.Objective)
        with pytest.raises(NotImplementedError):
            objective._get_trace(None, None, (), {})
