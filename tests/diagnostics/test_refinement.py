"""Refinement against the linear-Gaussian model, whose best q of each family is known."""

from functools import partial

import pytest
import torch
from conftest import LinearGaussian
from torch import Tensor

from pyro_vae import VAE, InputError, bounds, likelihoods, posteriors, priors
from pyro_vae.diagnostics import refinement
from pyro_vae.networks import ConvEncoder, Linear
from pyro_vae.posteriors import Posterior
from pyro_vae.vae import Guide


def gap(model: LinearGaussian, guide: Guide, x: Tensor) -> Tensor:
    """KL(q(z|x) || p(z|x)), in closed form."""
    decoder = model.vae.likelihood.decoder
    weight = decoder.body[1].weight
    mean = (x - decoder.bias) @ weight @ model.posterior_covariance / model.scale**2
    exact = torch.distributions.MultivariateNormal(mean, model.posterior_covariance)
    q = guide.posterior(x)
    if isinstance(q, torch.distributions.Independent):
        q = torch.distributions.MultivariateNormal(q.mean, q.variance.diag_embed())
    return torch.distributions.kl_divergence(q, exact).detach()


def test_refinement_leaves_the_approximation_gap(linear_gaussian: LinearGaussian) -> None:
    """The gap of the best diagonal q is 1/2 (log |S| - log |diag(S^-1)^-1|), S the covariance."""
    model, guide = linear_gaussian.vae.model, linear_gaussian.vae.guide
    x = linear_gaussian.marginal.sample((50,))
    with torch.no_grad():
        guide.posterior.encoder.bias[0] += 0.5  # the same error for all examples
    before = {name: value.clone() for name, value in linear_gaussian.vae.state_dict().items()}
    local = refinement.refine(model, guide, x, steps=600, lr=0.05, num_particles=16)
    inverse = torch.linalg.inv(linear_gaussian.posterior_covariance)
    best = 0.5 * (
        inverse.diagonal().log().sum() + torch.logdet(linear_gaussian.posterior_covariance)
    )
    started, left = gap(linear_gaussian, guide, x), gap(linear_gaussian, local, x)
    assert started.min() > best + 0.1
    assert left.min() >= best - 1e-9 and left.mean() < best + 0.01
    # The measured ELBO is the exact one: log p(x) minus the gap.
    elbo = bounds.evaluate(model, local, x, 2000).elbo
    exact = linear_gaussian.marginal.log_prob(x) - left
    assert abs(elbo.mean - exact.mean().item()) < 4.5 * elbo.mc_se
    after = linear_gaussian.vae.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(p.requires_grad for p in guide.parameters())


def test_no_steps_change_nothing(linear_gaussian: LinearGaussian) -> None:
    x = linear_gaussian.marginal.sample((5,))
    vae = linear_gaussian.vae
    local = refinement.refine(vae.model, vae.guide, x, steps=0)
    torch.testing.assert_close(local.posterior(x).mean, vae.posterior(x).mean)


@pytest.mark.parametrize(
    ("make", "prior"),
    [
        (partial(posteriors.Normal, encoder=ConvEncoder), priors.StandardNormal),
        (posteriors.FullNormal, priors.StandardNormal),
        (posteriors.LowRankNormal, partial(priors.Vamp, components=5)),
        (posteriors.IAF, priors.StandardNormal),
        (posteriors.SplineFlow, priors.LearnedNormal),
        (posteriors.PowerSpherical, priors.UniformSphere),
        (posteriors.Bernoulli, priors.Bernoulli),
        (posteriors.Categorical, priors.Categorical),
        (posteriors.Hierarchical, priors.Hierarchical),
        (partial(posteriors.Ladder, top_dim=[3, 2]), priors.Hierarchical),
        (partial(posteriors.BottomUp, top_dim=[3, 2]), priors.Hierarchical),
    ],
)
def test_every_posterior_is_refined(make: type[Posterior], prior: type[priors.Prior]) -> None:
    vae = VAE(prior(4), likelihoods.Binomial(4, [5, 4]), make([5, 4], 4)).eval()
    x = torch.randint(256, (30, 5, 4)).float()
    steps = 400 if vae.posterior.support in ("binary", "categorical") else 60  # REINFORCE
    local = refinement.refine(vae.model, vae.guide, x, steps=steps, lr=0.03)
    assert not local.training
    before, after = (bounds.evaluate(vae.model, guide, x, 200).elbo for guide in (vae.guide, local))
    assert after.mean > before.mean + 3 * (after.mc_se + before.mc_se)


def test_what_is_refused() -> None:
    class Bare(Posterior):
        def __init__(self) -> None:
            super().__init__([3], 2)
            self.network = Linear([3], [2])

        def forward(self, x: Tensor) -> torch.distributions.Distribution:
            return posteriors.dist.Normal(self.network(x), 1.0).to_event(1)

    vae = VAE(priors.StandardNormal(2), likelihoods.Gaussian(2, [3]), Bare())
    with pytest.raises(InputError, match="no Network named encoder"):
        refinement.refine(vae.model, vae.guide, torch.rand(2, 3))
    with pytest.raises(InputError, match="cannot be -1"):
        refinement.refine(vae.model, vae.guide, torch.rand(2, 3), steps=-1)
