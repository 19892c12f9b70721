"""The ELBO against Pyro's and by hand: weights, schedules, free bits, masks, closed forms."""

import math
from collections.abc import Callable
from functools import partial

import pyro
import pytest
import torch
from conftest import LinearGaussian
from pyro.infer import ELBO as PyroELBO
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from test_objectives import assert_same, make, value_and_gradients
from torch import Tensor, nn

from pyro_vae import VAE, InputError, likelihoods, networks, objectives, posteriors, priors
from pyro_vae.objectives import ELBO, IWAE, TVO, AnalyticELBO
from pyro_vae.objectives.kl_schedule import KLSchedule
from pyro_vae.programs.arguments import Arguments


@pytest.fixture
def x() -> Tensor:
    return (torch.rand(30, 5) < 0.4).float()


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
    """`loss` contains the full KL, even where the training objective has weight 0."""
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
                InputError, match=r"KL\(Normal \|\| NormalMixture.*use the objective ELBO"
            ):
                getattr(AnalyticELBO(), act)(vae.model, vae.guide, x)


def test_free_bits_by_hand() -> None:
    """Groups of dimensions, means over the batch, and no gradient below the free bits."""
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
    """Draws are averaged before the maximum is taken, and each site is a group."""
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
        objective.loss(vae.model, vae.guide, x)  # the first call runs the programs once more
        torch.manual_seed(4)
        draws = objective.draw(vae.model, vae.guide, Arguments(x))
        torch.manual_seed(4)
        loss = objective.differentiable_loss(vae.model, vae.guide, x)
        price = 0.0
        for name in ("z", "z_top"):
            of_site = partial(lambda name, site: site["name"] == name, name)
            kl = draws.draws.log_q(of_site) - draws.draws.log_p(of_site)
            assert kl.shape == (3, 30)
            price += 30 * max(kl.mean().item(), free)
        expected = price - draws.log_likelihood.mean(0).sum().item()
        assert loss.item() == pytest.approx(expected, rel=1e-5)


class Masked(nn.Module):
    """A program in which some examples are masked."""

    def __init__(self, program: nn.Module, counted: Tensor) -> None:
        super().__init__()
        self.program, self.counted = program, counted

    def forward(self, x: Tensor) -> None:
        with pyro.poutine.mask(mask=self.counted):
            self.program(x)


def test_masks(linear_gaussian: LinearGaussian) -> None:
    """A masked example is not part of the loss; free bits refuse masks."""
    vae, x = linear_gaussian.vae, linear_gaussian.marginal.sample((3,))
    counted = torch.tensor([True, False, True])
    model, guide = (Masked(part, counted) for part in (vae.model, vae.guide))
    for objective in (ELBO(2), AnalyticELBO(2), IWAE(3), TVO(3)):
        objective.loss(model, guide, x)  # the first call runs the programs once more
        losses = []
        for second in (x[1], x[1] + 9):
            torch.manual_seed(1)
            losses.append(objective.loss(model, guide, torch.stack([x[0], second, x[2]])))
        assert losses[0] == pytest.approx(losses[1])
        torch.manual_seed(1)
        assert objective.loss(vae.model, vae.guide, x) > losses[0] + 0.1
    for objective in (ELBO(free_bits=0.1), AnalyticELBO(free_bits=0.1, group=0)):
        with pytest.raises(InputError, match="'z' is masked"):
            objective.differentiable_loss(model, guide, x)


@pytest.mark.parametrize(
    "objective", [AnalyticELBO(), ELBO(free_bits=0.1, group=0), AnalyticELBO(free_bits=0.1)]
)
def test_sites_without_a_kl_of_their_own(objective: objectives.Objective, x: Tensor) -> None:
    """Sites of Pyro's autoguides are points; `ELBO` uses their auxiliary sites."""
    model = make().model
    guide = pyro.infer.autoguide.AutoNormal(model)
    guide(x)
    with pytest.raises(InputError, match="has no KL of its own: use the objective ELBO"):
        objective.differentiable_loss(model, guide, x)
    assert math.isfinite(ELBO().loss(model, guide, x))


def test_free_bits_that_no_dimension_has(x: Tensor) -> None:
    vae = make(priors.Mixture)
    with pytest.raises(InputError, match=r"independent dimensions under NormalMixture.*group 0"):
        ELBO(free_bits=1.0).differentiable_loss(vae.model, vae.guide, x)
    assert ELBO(free_bits=1.0, group=0).differentiable_loss(vae.model, vae.guide, x).isfinite()


def test_warmup_over_a_share_of_training() -> None:
    """The weight follows the progress of training, whatever the number of epochs."""
    for make_objective in (ELBO, AnalyticELBO):
        objective = make_objective(beta=2.0, warmup_share=0.25, start=0.4)
        assert objective.kl_weight.item() == pytest.approx(0.4)
        for progress, weight in ((0, 0.4), (0.125, 1.2), (0.25, 2.0), (0.3, 2.0), (1, 2.0)):
            objective.anneal(1000.0, progress)
            assert objective.kl_weight.item() == pytest.approx(weight)
        cyclical = make_objective(warmup_share=0.2, cycles=3)  # it ends with the last warm-up
        for progress, weight in ((0.1, 0.5), (0.3, 1), (0.5, 0.5), (0.7, 1), (0.9, 0.5), (1, 1)):
            cyclical.anneal(1000.0, progress)
            assert cyclical.kl_weight.item() == pytest.approx(weight)
    epochs = ELBO(warmup=10.0, warmup_share=0.0)  # older files of options have a warmup of 0
    epochs.anneal(5.0, 0.9)
    assert epochs.kl_weight.item() == pytest.approx(0.5)
    vae, x, objective = make(), torch.ones(4, 5), ELBO(warmup_share=0.5)
    objective.anneal(9.0, 0.35)
    assert_same(value_and_gradients(objective, vae, x), by_hand(vae, x, 0.7, analytic=False))


def test_schedules() -> None:
    """Linear; from a start above zero; and cycles of a rise and a plateau of `warmup` epochs."""
    for epoch, expected in ((0, 0.2), (2.5, 0.6), (5, 1.0), (9.99, 1.0), (50, 1.0)):
        assert KLSchedule(1.0, 5, 0, 0.2, 1).weight(epoch) == pytest.approx(expected)
    for epoch, expected in ((0, 0), (1, 0.5), (2, 1), (3.9, 1), (4, 0), (5, 0.5), (6, 1), (99, 1)):
        assert KLSchedule(1.0, 2, 0, 0.0, 2).weight(epoch) == pytest.approx(expected)
