"""Discrete sites that are marked for enumeration: objectives against closed forms."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from like_pyro import gradients
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from test_contracts import OBJECTIVES
from torch import Tensor

from pyro_vae import InputError, bounds, objectives
from pyro_vae.objectives import ELBO, IWAE, AnalyticELBO, Renyi, TargetKL

LOCS = torch.tensor([-1.0, 0.5, 2.0])
X = torch.tensor([0.2, -1.4, 2.2, 1.0])


def weights() -> Tensor:
    logits = pyro.param("logits", lambda: torch.tensor([0.1, -0.3, 0.4]))
    return logits.softmax(0)


@config_enumerate
def mixture(x: Tensor) -> None:
    """A mixture of three, with its component summed out."""
    p = weights()
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(p))
        pyro.sample("x", dist.Normal(LOCS[c], 0.8), obs=x)


def empty(x: Tensor) -> None:
    """A guide without a site."""


def guess(x: Tensor) -> Tensor:
    slope = pyro.param("slope", lambda: torch.tensor(0.6))
    return -((x[:, None] - LOCS) ** 2) * slope


@config_enumerate
def categorical(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.Categorical(logits=guess(x)))


def log_joint() -> Tensor:
    """Log p(x, c), shape [4, 3]."""
    return weights().log() + dist.Normal(LOCS, 0.8).log_prob(X[:, None])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_model_that_is_summed_out_has_its_evidence(name: str) -> None:
    """All log-weights are log p(x), whatever the objective; the gradient is exact."""
    objective = OBJECTIVES[name][0]()
    plain = isinstance(objective, ELBO) and objective.gradient == "plain"
    needs_parts = isinstance(objective, ELBO | AnalyticELBO | TargetKL) and (
        not plain or objective.free_bits or objective.warmup or objective.beta != 1
    )
    if name == "RWS":  # its sleep phase needs a model that draws x
        return
    if needs_parts:
        with pytest.raises(InputError, match="is summed out"):
            objective.loss_and_grads(mixture, empty, X)
        return
    loss, found = gradients(objective, mixture, empty, X)
    exact = -log_joint().logsumexp(-1).sum()
    assert loss == pytest.approx(exact.item(), rel=1e-5)
    assert objective.loss(mixture, empty, X) == pytest.approx(exact.item(), rel=1e-5)
    logits = pyro.param("logits").unconstrained()
    (gradient,) = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(found["logits"], gradient, rtol=1e-4, atol=1e-5)


def test_a_guide_that_is_enumerated_has_its_expectation() -> None:
    """No noise: the loss and the gradients are sums over all components."""
    for objective in (ELBO(), ELBO(3), ELBO(2, vectorize_particles=False)):
        loss, found = gradients(objective, mixture, categorical, X)
        q = guess(X).log_softmax(-1)
        exact = (q.exp() * (q - log_joint())).sum()
        assert loss == pytest.approx(exact.item(), rel=1e-5)
        assert objective.loss(mixture, categorical, X) == pytest.approx(exact.item(), rel=1e-5)
        for name in ("logits", "slope"):
            (gradient,) = torch.autograd.grad(
                exact, pyro.param(name).unconstrained(), retain_graph=True
            )
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


def test_sequential_enumeration_and_local_samples() -> None:
    ELBO().loss(mixture, categorical, X)
    q = guess(X).log_softmax(-1)
    exact = (q.exp() * (q - log_joint())).sum().item()
    one = X[:1]

    def alone(x: Tensor) -> None:  # sequential enumeration runs once for each value of all sites
        pyro.sample("c", dist.Categorical(logits=guess(x)[0]), infer={"enumerate": "sequential"})

    def model(x: Tensor) -> None:
        c = pyro.sample("c", dist.Categorical(weights()))
        pyro.sample("x", dist.Normal(LOCS[c], 0.8), obs=x[0])

    q_one = guess(one).log_softmax(-1)
    expected = (q_one.exp() * (q_one - log_joint()[:1])).sum().item()
    assert ELBO().loss(model, alone, one) == pytest.approx(expected, rel=1e-5)

    def several(x: Tensor) -> None:
        infer = {"enumerate": "parallel", "num_samples": 50}
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(logits=guess(x)), infer=infer)

    draws = torch.tensor([ELBO().loss(mixture, several, X) for _ in range(100)])
    assert abs(draws.mean() - exact) < 4.5 * draws.std() / 10 < 0.05 * abs(exact)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_other_objectives_refuse_a_guide_that_is_enumerated(name: str) -> None:
    objective = OBJECTIVES[name][0]()
    if isinstance(objective, ELBO):
        return
    for act in (objective.loss, objective.loss_and_grads):
        with pytest.raises(InputError, match="only ELBO takes the expectation"):
            act(mixture, categorical, X)


def test_weights_of_the_kl_refuse_a_guide_that_is_enumerated() -> None:
    for objective in (
        ELBO(beta=0.5),
        ELBO(warmup=2.0),
        ELBO(warmup_share=0.2),
        ELBO(gradient="stl"),
        ELBO(free_bits=0.1),
    ):
        with pytest.raises(InputError, match="only ELBO takes the expectation"):
            objective.differentiable_loss(mixture, categorical, X)


def local_and_global(reparameterised: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A continuous global variable, drawn, and a discrete one in the plate, summed out."""

    class Drawn(dist.Normal):
        has_rsample = reparameterised

    def model(x: Tensor) -> None:
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), 2):
            c = pyro.sample("c", dist.Categorical(weights()), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(LOCS[c] + shift, 0.8), obs=x[:2])

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.tensor(0.2))
        pyro.sample("shift", Drawn(loc, 0.5))

    return model, guide


@pytest.mark.parametrize("reparameterised", [True, False])
def test_enumeration_beside_draws_is_pyros(reparameterised: bool) -> None:
    """With a plate that takes a part of the data, its scale outside of the logarithm."""
    model, guide = local_and_global(reparameterised)
    for options in ({}, {"num_particles": 4, "vectorize_particles": True}):
        reference = TraceEnum_ELBO(max_plate_nesting=1, **options)
        reference.loss(model, guide, X)
        expected = gradients(reference, model, guide, X)
        found = gradients(ELBO(**options), model, guide, X)
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        for name, gradient in expected[1].items():
            torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="has a scale of its own"):
        IWAE(3).loss(model, guide, X)


def test_a_global_site_is_summed_out_after_its_plate() -> None:
    """One component for all data: log sum_c p(c) prod_i p(x_i | c), for every objective."""

    @config_enumerate
    def model(x: Tensor) -> None:
        c = pyro.sample("c", dist.Categorical(weights()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(LOCS[c], 0.8), obs=x)

    exact = dist.Normal(LOCS, 0.8).log_prob(X[:, None]).sum(0)
    for objective in (ELBO(), IWAE(3), Renyi(2, vectorize_particles=False)):
        loss = objective.loss_and_grads(model, empty, X)
        evidence = (weights().log() + exact).logsumexp(-1).item()
        assert loss == pytest.approx(-evidence, rel=1e-5)


def test_masks_of_sites_that_are_summed_out() -> None:
    """A hidden Markov model of sequences of different lengths: the padding counts for nothing."""
    move = torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    emit = torch.tensor([0.2, 0.9])
    start = torch.tensor([0.6, 0.4])
    data = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    lengths = torch.tensor([3, 1])

    @config_enumerate
    def model(data: Tensor, lengths: Tensor) -> None:
        with pyro.plate("data", len(data)):
            state: Any = None
            for t in pyro.markov(range(3)):
                with pyro.poutine.mask(mask=t < lengths):
                    p = start if state is None else move[state]
                    state = pyro.sample(f"state_{t}", dist.Categorical(p))
                    pyro.sample(f"x_{t}", dist.Bernoulli(emit[state]), obs=data[:, t])

    def nothing(data: Tensor, lengths: Tensor) -> None:
        pass

    exact = 0.0
    for sequence, length in zip(data, lengths, strict=True):
        forward = start
        for t in range(int(length)):
            forward = forward if t == 0 else forward @ move
            forward = forward * dist.Bernoulli(emit).log_prob(sequence[t]).exp()
        exact += forward.sum().log().item()
    for objective in (ELBO(), IWAE(2)):
        assert objective.loss(model, nothing, data, lengths) == pytest.approx(-exact, rel=1e-5)


def test_programs_that_cannot_be_enumerated_are_refused() -> None:
    """All values of a site lie in a dimension at the left, which such programs take for another."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            loc = c + torch.arange(len(c)).float().mean()  # of the examples, or of the values
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(0.4), infer={"enumerate": "parallel"})

    for objective, other in ((ELBO(), guide), (ELBO(), empty), (IWAE(2), empty)):
        with pytest.raises(InputError, match="all values of the sites"):
            objective.loss(model, other, X)


def test_local_samples_of_a_model_are_refused() -> None:
    def marked(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample(
                "c", dist.Categorical(weights()), infer={"enumerate": "parallel", "num_samples": 5}
            )
            pyro.sample("x", dist.Normal(LOCS[c], 0.8), obs=x)

    for objective in (ELBO(), IWAE(2)):
        with pytest.raises(InputError, match="num_samples, which is not an exact sum"):
            objective.loss(marked, empty, X)


def test_steps_of_enumerated_programs() -> None:
    """SVI raises the evidence of a mixture, with no noise at all."""
    svi = SVI(mixture, empty, pyro.optim.Adam({"lr": 0.1}), objectives.ELBO())
    losses = [svi.step(X) for _ in range(50)]
    assert losses[-1] < losses[0] - 0.1


def test_programs_without_parameters() -> None:
    """Pyro's differentiable loss raises an error for them."""
    frozen = config_enumerate(lambda x: pyro.sample("c", dist.Bernoulli(0.5)))
    assert ELBO().loss_and_grads(frozen, empty, X) == pytest.approx(0.0, abs=1e-6)


def test_marks_of_shared_arguments_are_taken_off() -> None:
    """Pyro's own ELBO, which does the sum, gets the argument itself."""

    def model(x: Tensor, means: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.4), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(means[c.long()], 1.0), obs=x)

    def guide(x: Tensor, means: Tensor) -> None:
        pass

    x, means = torch.randn(2), torch.tensor([-1.0, 1.0])
    log_p = dist.Normal(means, 1.0).log_prob(x[:, None]) + torch.tensor([0.6, 0.4]).log()
    loss = objectives.ELBO().loss(model, guide, x, bounds.Shared(means))
    assert loss == pytest.approx(-log_p.logsumexp(1).sum().item(), rel=1e-5)
