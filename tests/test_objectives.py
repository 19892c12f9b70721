"""The objectives against Pyro's, against closed forms, and against each other."""

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

from pyro_vae import VAE, InputError, bounds, likelihoods, objectives, posteriors, priors
from pyro_vae.objectives import ELBO, IWAE, AnalyticELBO


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
        reference = theirs(num_particles=num_particles, vectorize_particles=num_particles > 1)
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


@pytest.mark.parametrize("make_objective", [ELBO, AnalyticELBO, IWAE])
def test_particles_are_counted(make_objective: Callable[..., PyroELBO]) -> None:
    with pytest.raises(InputError, match="num_particles"):
        make_objective(num_particles=0)


@pytest.mark.parametrize("bad", [partial(ELBO, beta=-1.0), partial(AnalyticELBO, warmup=-1.0)])
def test_weights_are_checked(bad: Callable[[], PyroELBO]) -> None:
    with pytest.raises(InputError, match="between 0 and 1e6"):
        bad()


def test_objectives_are_elbos() -> None:
    for objective in (ELBO(), AnalyticELBO(), IWAE()):
        assert isinstance(objective, PyroELBO) and isinstance(objective, objectives.Objective)
