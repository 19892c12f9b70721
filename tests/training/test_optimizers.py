"""Optimisers: the formulas are those of torch.optim, in the graph and outside it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from pyro_vae import VAE, InputError, likelihoods, posteriors, priors
from pyro_vae.networks import Linear
from pyro_vae.objectives import ELBO
from pyro_vae.training import Adam, Adamax, AdamW, CompiledEngine, EagerEngine, Optimizer
from pyro_vae.training.optimizers import clipped

OPTIMIZERS: list[Callable[[], Optimizer]] = [
    Adam,
    lambda: Adam((0.8, 0.99), 1e-2),
    lambda: AdamW(weight_decay=0.3),
    lambda: Adamax((0.7, 0.9), 1e-3),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_steps_are_those_of_torch(make: Callable[[], Optimizer]) -> None:
    """Thirty steps with changing learning rates, of parameters, moments and gradients at random."""
    ours = make()
    theirs = torch.nn.Parameter(torch.randn(4, 3).double())
    parameter = theirs.detach().clone()
    optimizer = ours.of([theirs], 0.1)
    moments = [torch.zeros_like(parameter) for _ in ours.moments]
    for count in range(1, 31):
        lr = 0.1 / count
        theirs.grad = torch.randn(4, 3).double() * 10 ** (count % 5 - 3)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        factors = torch.tensor(ours.factors(lr, count), dtype=torch.double)
        change, moments = ours.update(parameter, theirs.grad, moments, factors)
        parameter = parameter - change
        torch.testing.assert_close(parameter, theirs.detach(), rtol=1e-12, atol=1e-13)
    state = optimizer.state[theirs]
    assert state.keys() == {"step", *ours.moments}
    for name, moment in zip(ours.moments, moments, strict=True):
        torch.testing.assert_close(moment, state[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("largest", [1e-3, 1.0, 1e6])
def test_clipping_is_that_of_torch(largest: float) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(n, 2).double()) for n in (3, 5, 1)]
    for parameter in parameters[:2]:
        parameter.grad = torch.randn_like(parameter)
    found = clipped([parameter.grad for parameter in parameters], largest)
    before = torch.nn.utils.clip_grad_norm_(parameters, largest)
    assert (before > largest) == (largest < 10)
    assert found[2] is None
    for parameter, gradient in zip(parameters[:2], found, strict=False):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-12, atol=0)
    assert clipped([None], largest) == [None]


def small(kind: type[EagerEngine], optimizer: Optimizer) -> EagerEngine:
    torch.manual_seed(2)
    posterior = posteriors.Normal([5], 2, Linear)
    vae = VAE(priors.StandardNormal(2), likelihoods.Bernoulli(2, [5], Linear), posterior).double()
    return kind(vae.model, vae.guide, ELBO(), lr=0.05, optimizer=optimizer, clip_norm=5.0)


@pytest.mark.parametrize("optimizer", [AdamW(weight_decay=0.3), Adamax(eps=1e-3)])
def test_compiled_steps_are_the_eager_ones(
    optimizer: Optimizer, request: pytest.FixtureRequest
) -> None:
    """With clipping, and with a smaller batch, which is run eagerly."""
    if isinstance(optimizer, Adamax):  # compiling takes long: one optimiser is enough
        request.getfixturevalue("traced")
    x = (torch.rand(30, 5) < 0.4).double()
    states, losses = [], []
    for kind in (EagerEngine, CompiledEngine):
        engine = small(kind, optimizer)
        torch.manual_seed(0)
        losses.append([])
        for number, batch in enumerate([*x.split(12)] * 3):
            engine.lr = 0.05 / (1 + number)
            losses[-1].append(engine.step(batch))
        states.append([s for s in tree_leaves(engine.state_dict()) if isinstance(s, Tensor)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-10)
    for first, second in zip(*states, strict=True):
        torch.testing.assert_close(second, first, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_the_compiled_update_runs_where_the_parameters_are(make: Callable[[], Optimizer]) -> None:
    """For parameters on a GPU that does not exist: their tensors have a device, and no values."""
    engine = small(CompiledEngine, make())
    assert isinstance(engine, CompiledEngine)
    with FakeTensorMode():
        trained = [torch.nn.Parameter(torch.empty(size, device="cuda")) for size in (3, 2)]
        states = [engine._state_of(parameter) for parameter in trained]
        moments = [[state[name] for name in engine.settings.moments] for state in states]
        gradients = [torch.empty_like(moments[0][0]), None]
        factors = engine.settings.factors(0.1, 1)
        rows = torch.empty(2, len(factors), device="cuda")
        valid = torch.empty((), dtype=torch.bool, device="cuda")
        engine._update(trained, gradients, valid, rows, moments)
    assert {state["step"].device.type for state in states} == {"cpu"}  # as in torch.optim
    assert {moment.device.type for moment in tree_leaves(moments)} == {"cuda"}


def test_the_gradient_is_clipped_before_the_moments() -> None:
    """After one step of Adam its means are a tenth of the gradient, whose norm is the limit."""
    engine = small(EagerEngine, Adam())
    engine.step((torch.rand(30, 5) < 0.4).double())
    means = [state["exp_avg"] for state in engine.optimizer.state.values()]
    norm = torch.stack([mean.norm() for mean in means]).norm() / 0.1
    assert norm.item() == pytest.approx(5.0, rel=1e-6)


@pytest.mark.parametrize("kind", [EagerEngine, CompiledEngine])
def test_a_state_does_not_change_the_settings(kind: type[EagerEngine]) -> None:
    """Both engines go on with their own, and with the learning rate and the moments that were."""
    x = (torch.rand(30, 5) < 0.4).double()
    before = small(EagerEngine, Adam())
    before.lr = 0.02
    before.step(x)
    after = small(kind, AdamW((0.8, 0.9), 1e-3, weight_decay=0.2))
    after.load_state_dict(before.state_dict())
    group = after.optimizer.param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.9), 1e-3, 0.2)
    assert after.lr == 0.02
    moments = [state["exp_avg"] for state in after.optimizer.state.values()]
    expected = [state["exp_avg"] for state in before.optimizer.state.values()]
    assert all(torch.equal(one, other) for one, other in zip(moments, expected, strict=True))
    with pytest.raises(InputError, match="state is that of another optimiser: Adamax has") as error:
        small(kind, Adamax()).load_state_dict(before.state_dict())
    assert error.value.parameter == "optimizer"


def test_settings_that_are_refused() -> None:
    for said, make in (
        ("two numbers from 0 to below 1", lambda: Adam((0.9, 1.0))),
        ("two numbers from 0 to below 1", lambda: Adam((0.9,))),
        ("eps has to be between 0", lambda: Adamax(eps=-1.0)),
        ("weight_decay has to be between 0", lambda: AdamW(weight_decay=-1.0)),
        ("clip_norm has to be positive", lambda: EagerEngine(abs, abs, ELBO(), clip_norm=0.0)),
    ):
        with pytest.raises(InputError, match=said):
            make()
