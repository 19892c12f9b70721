"""The engines: steps are those of `pyro.infer.SVI`, states round-trip, compiled steps are equal."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pyro_vae import VAE, InputError, likelihoods, posteriors, priors
from pyro_vae.kinds import Binary
from pyro_vae.networks import MLP, Linear, Network
from pyro_vae.objectives import ELBO, IWAE, Objective
from pyro_vae.training import CompiledEngine, EagerEngine

SMALL = partial(MLP, widths=[4])


def make(
    prior: type[priors.Prior] = priors.StandardNormal,
    network: Callable[..., Network] = SMALL,
) -> VAE:
    torch.manual_seed(2)
    return VAE(prior(2), likelihoods.Bernoulli(2, [5], network), posteriors.Normal([5], 2, network))


def engine_of(vae: VAE) -> EagerEngine:
    return EagerEngine(vae.model, vae.guide, ELBO(), lr=1e-2)


@pytest.fixture
def x() -> Tensor:
    return (torch.rand(30, 5) < 0.4).float()


@pytest.mark.parametrize("prior", [priors.StandardNormal, priors.Vamp])
def test_steps_are_those_of_pyro_svi(prior: type[priors.Prior], x: Tensor) -> None:
    ours, theirs = make(prior), make(prior)
    engine = engine_of(ours)
    torch.manual_seed(0)
    our_losses = [engine.step(x) for _ in range(5)]
    svi = SVI(theirs.model, theirs.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    torch.manual_seed(0)
    their_losses = [svi.step(x) for _ in range(5)]
    assert our_losses == pytest.approx(their_losses, rel=1e-6)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    torch.manual_seed(0)
    expected = svi.evaluate_loss(x)
    torch.manual_seed(0)
    assert engine.evaluate_loss(x) == pytest.approx(expected)


def test_engines_have_their_own_parameter_stores(x: Tensor) -> None:
    pyro.param("mine", torch.ones(1))
    first, second = make(), make()
    engines = [engine_of(first), engine_of(second)]
    before = [p.detach().clone() for p in second.parameters()]
    engines[0].step(x)
    assert all(torch.equal(p, b) for p, b in zip(second.parameters(), before, strict=True))
    engines[1].step(x)
    assert not all(torch.equal(p, b) for p, b in zip(second.parameters(), before, strict=True))
    assert list(pyro.get_param_store().keys()) == ["mine"]


def test_evaluating_changes_nothing(x: Tensor) -> None:
    vae = make()
    engine = engine_of(vae)
    before = [p.detach().clone() for p in vae.parameters()]
    engine.evaluate_loss(x)
    assert all(torch.equal(p, b) for p, b in zip(vae.parameters(), before, strict=True))
    assert all(p.grad is None for p in vae.parameters())


def test_state_round_trip(x: Tensor) -> None:
    first, second = make(priors.Vamp), make(priors.Vamp)
    engine = engine_of(first)
    for _ in range(3):
        engine.step(x)
    other = engine_of(second)
    other.load_state_dict(engine.state_dict())
    losses = []
    for resumed in (engine, other):
        torch.manual_seed(1)
        losses.append([resumed.step(x) for _ in range(3)])
    assert losses[0] == losses[1]
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)


def test_memory_format_does_not_matter(x: Tensor) -> None:
    """Pyro's store copies tensors that are not contiguous, and the copies would be trained."""
    plain, strided = make(), make()
    for parameter in strided.parameters():
        if parameter.dim() == 2:
            parameter.data = parameter.data.T.contiguous().T
    assert not all(parameter.is_contiguous() for parameter in strided.parameters())
    losses = []
    for vae in (plain, strided):
        engine = engine_of(vae)
        torch.manual_seed(0)
        losses.append([engine.step(x) for _ in range(5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(plain.parameters(), strided.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert losses[0][-1] != losses[0][0]


class WithDropout(Network):
    """A network that drops all units: in training only the bias is left."""

    def __init__(self, in_shape: list[int], out_shape: list[int]) -> None:
        super().__init__(in_shape, out_shape)
        self.body = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Dropout(1.0))


def test_steps_are_in_training_mode_and_evaluations_are_not(x: Tensor) -> None:
    torch.manual_seed(2)
    likelihood = likelihoods.Bernoulli(2, [5], WithDropout)
    vae = VAE(priors.StandardNormal(2), likelihood, posteriors.Normal([5], 2))
    engine = engine_of(vae)
    engine.evaluate_loss(x)
    assert not any(module.training for module in [*vae.model.modules(), *vae.guide.modules()])
    dropped = likelihood.decoder.body[0].weight.clone()
    engine.step(x)
    assert all(module.training for module in [*vae.model.modules(), *vae.guide.modules()])
    assert torch.equal(likelihood.decoder.body[0].weight, dropped)  # no gradient came through


def test_fixed_parameters_stay(x: Tensor) -> None:
    torch.manual_seed(2)
    likelihood = likelihoods.Gaussian(2, [5], noise="fixed")
    vae = VAE(priors.StandardNormal(2), likelihood, posteriors.Normal([5], 2))
    engine = engine_of(vae)
    before = likelihood.log_scale.item()
    engine.step(x)
    assert likelihood.log_scale.item() == before


# Compiled steps. To compile one takes a second for each of its kernels, and there are some for each
# layer: most tests have linear networks. Several compile the same step, which Inductor then finds
# on disk.


@pytest.mark.parametrize(
    ("objective", "prior", "network", "dtype", "tolerance", "steps"),
    [
        (lambda: ELBO(warmup=4), priors.Vamp, Linear, torch.double, 1e-10, 12),
        (lambda: IWAE(3), priors.StandardNormal, SMALL, torch.float, 1e-5, 1),
    ],
)
def test_compiled_steps_are_the_eager_ones(
    objective: Callable[[], Objective],
    prior: type[priors.Prior],
    network: Callable[..., Network],
    dtype: torch.dtype,
    tolerance: float,
    steps: int,
) -> None:
    """Given the same noise, the losses and the whole state are equal up to rounding.

    In single precision only the loss of one step and Adam's means of its gradients are compared:
    Adam divides gradients by their size, including gradients that are only rounding errors.
    """
    images = torch.randint(256, (30, 5), dtype=torch.uint8)
    states, losses = [], []

    def show(batch: Tensor) -> Tensor:
        return Binary().observe(batch).to(dtype)

    for kind in (EagerEngine, CompiledEngine):
        vae = make(prior, network).to(dtype)
        engine = kind(vae.model, vae.guide, objective(), lr=1e-2)
        torch.manual_seed(0)
        losses.append([])
        for number, batch in enumerate(
            ([*images.split(12)] * 4)[:steps]
        ):  # every third batch has 6 images
            engine.objective.anneal(number // 3)  # the schedule is an input of the graph
            engine.optimizer.param_groups[0]["lr"] = 0.01 / (1 + number)  # so is the learning rate
            losses[-1].append(engine.step(batch, show))
        states.append(engine.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    assert len(engine._steps) == 1
    if dtype is torch.float:
        states = [[row["exp_avg"] for row in s["optimizer"]["state"].values()] for s in states]
    for first, second in zip(*map(tensors, states), strict=True):
        slack = tolerance * first.abs().max().item()
        torch.testing.assert_close(second, first, rtol=tolerance, atol=slack)


def tensors(state: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]


@pytest.mark.usefixtures("traced")
def test_compiled_state_round_trip(x: Tensor) -> None:
    """Both engines have the same state, and each loads the other's."""
    vaes = make(network=Linear), make(network=Linear)
    compiled = CompiledEngine(vaes[0].model, vaes[0].guide, ELBO(), lr=1e-2)
    eager = engine_of(vaes[1])
    for first, second in ((compiled, eager), (eager, compiled)):
        for _ in range(3):
            first.step(x)
        second.load_state_dict(first.state_dict())
        losses = []
        for engine in (first, second):
            torch.manual_seed(1)
            losses.append([engine.step(x) for _ in range(3)])
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class Peeking(priors.Prior):
    """A prior whose structure depends on its parameters."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(latent_dim))

    def forward(self) -> dist.Distribution:
        scale = 1.0 if self.loc.sum() > -1e9 else 2.0
        return dist.Normal(self.loc, scale).to_event(1)


def test_what_cannot_be_compiled(x: Tensor) -> None:
    vaes = [make(Peeking) for _ in range(3)]
    refusing = CompiledEngine(vaes[0].model, vaes[0].guide, ELBO(), lr=1e-2)
    with pytest.raises(
        InputError, match=r"depends on the value of a tensor.*the eager engine"
    ) as said:
        refusing.step(x)
    assert said.value.parameter == "engine"
    eager = engine_of(vaes[1])
    torch.manual_seed(0)
    expected = [eager.step(x) for _ in range(3)]
    falling = CompiledEngine(vaes[2].model, vaes[2].guide, ELBO(), lr=1e-2, fall_back=True)
    torch.manual_seed(0)
    with pytest.warns(
        UserWarning, match="the eager engine is used instead: it depends on the value"
    ):
        losses = [falling.step(x)]
    assert losses + [falling.step(x) for _ in range(2)] == expected  # it warned once only


@pytest.mark.usefixtures("traced")
def test_fixed_parameters_stay_unchanged_in_compiled_steps(x: Tensor) -> None:
    """Which parameters are trained may change from step to step, as with `GuideFirst`."""
    vae = make(network=Linear)
    engine = CompiledEngine(vae.model, vae.guide, ELBO(), lr=1e-2)
    engine.step(x)
    vae.model.requires_grad_(False)
    before = [p.clone() for p in vae.parameters()]
    engine.step(x)
    moved = [not torch.equal(p, b) for p, b in zip(vae.parameters(), before, strict=True)]
    assert moved == [p.requires_grad for p in vae.parameters()]


def test_lower_precision_is_near(x: Tensor) -> None:
    """The compiled steps are compared with eager ones, from which rounding alone parts them."""
    losses = {}
    for precision, kind in (("float32", EagerEngine), ("bfloat16", CompiledEngine)):
        vae = make(network=Linear)
        engine = kind(vae.model, vae.guide, ELBO(), lr=1e-2, precision=precision)
        torch.manual_seed(0)
        losses[precision] = [engine.step(x) for _ in range(5)]
        assert all(p.dtype == torch.float32 for p in vae.parameters())
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2**-6)
    assert losses["bfloat16"] != pytest.approx(losses["float32"], rel=1e-6)


def test_the_largest_batch_so_far_is_compiled() -> None:
    """What is compiled depends on the sizes only, not on where a training was resumed."""
    vae = make(network=Linear)
    engine = CompiledEngine(vae.model, vae.guide, ELBO())
    sizes = [3, 3, 2, 4, 3, 4]
    found = [engine._is_largest(torch.zeros(size, 5)) for size in sizes]
    assert found == [True, True, False, True, False, True]
    assert not engine._is_largest(torch.zeros(4, 5, dtype=torch.double))
