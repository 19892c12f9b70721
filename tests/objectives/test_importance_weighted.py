"""Objectives that weight draws against each other: IWAE by hand, special cases, and plates."""

from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import LinearGaussian
from test_objectives import assert_same, make, value_and_gradients
from torch import Tensor, nn

from pyro_vae import InputError, bounds, objectives, priors
from pyro_vae.objectives import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    TVO,
    AnalyticELBO,
    Renyi,
)
from pyro_vae.programs.arguments import Arguments


@pytest.fixture
def x() -> Tensor:
    return (torch.rand(30, 5) < 0.4).float()


def test_iwae_with_one_particle_is_the_elbo(x: Tensor) -> None:
    vae = make()
    objective = IWAE(num_particles=1)
    objective.loss(vae.model, vae.guide, x)  # the first call runs the programs once more
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


REDUCTIONS = [
    (partial(ELBO, free_bits=0.0), ELBO),
    (partial(AnalyticELBO, free_bits=0.0), AnalyticELBO),
    (partial(AnalyticELBO, free_bits=1e-30), AnalyticELBO),  # never above a KL in closed form
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
    (partial(ELBO, warmup_share=0.2, cycles=3), ELBO),
]


@pytest.mark.parametrize(("special", "plain"), REDUCTIONS)
def test_reductions_are_exact(
    special: Callable[[], objectives.Objective],
    plain: Callable[[], objectives.Objective],
    x: Tensor,
) -> None:
    """Value and gradients agree in double precision; schedules are at their end."""
    vae, x = make(priors.LearnedNormal).double(), x.double()
    results = []
    for objective in (special(), plain()):
        objective.anneal(100, 1.0)
        objective.loss(vae.model, vae.guide, x)  # the first call runs the programs once more
        results.append(value_and_gradients(objective, vae, x))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


class Plates(nn.Module):
    """A model, or a guide, with a plate other than the data's."""

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
    named = {"plate": "data"}
    for objective in (IWAE, MIWAE, CUBO, TVO):
        accepted = objective(3, **named)
        assert accepted.differentiable_loss(model, guide, x).isfinite()
    for refused in (
        PIWAE(2, 2, **named),
        *(IWAE(k, how, **named) for k, how in ((3, "dreg"), (3, "stl"), (1, "dreg"))),
    ):
        with pytest.raises(InputError, match="no plate other than the data's"):
            refused.differentiable_loss(model, guide, x)


def test_weights_that_vanish_keep_their_gradients() -> None:
    """PIWAE's guide has MIWAE's gradients, even if the model's weights underflow.

    The groups' log-weights are hundreds of nats apart here.
    """
    vae = LinearGaussian(latent_dim=1, data_dim=3).vae.float()
    with torch.no_grad():
        vae.likelihood.log_scale.fill_(-3.5)
        vae.posterior.encoder.bias[1] = 2.0
    x = torch.tensor([[0.7, -0.4, 1.1], [-1.0, 0.2, 0.3]])
    gradients = []
    for objective in (MIWAE(2, 4, "plain"), PIWAE(2, 4, "plain")):
        torch.manual_seed(3)
        log_w = objective.draw(vae.model, vae.guide, Arguments(x)).log_w
        assert (log_w.max(0).values - log_w[-2:].max(0).values).max() > 200
        torch.manual_seed(3)
        loss = objective.differentiable_loss(vae.model, vae.guide, x)
        gradients.append(
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, list(vae.guide.parameters()))]
            )
        )
    assert gradients[0].isfinite().all() and gradients[0].abs().min() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=0)
