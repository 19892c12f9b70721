"""Draws from the model at another temperature, which is defined for normal priors alone."""

import pytest
import torch
from torch import nn

from pyro_vae import VAE, InputError, likelihoods, posteriors, priors
from pyro_vae.runs.applying.decoding import draw_examples, moments


def vae_with(prior: priors.Prior, posterior: posteriors.Posterior | None = None) -> VAE:
    """Return a VAE whose p(x|z) is nearly the code itself."""
    likelihood = likelihoods.Gaussian(2, [2], scale=1e-3, noise="fixed")
    likelihood.decoder = nn.Identity()  # type: ignore[assignment]
    return VAE(prior, likelihood, posterior or posteriors.Normal([2], 2)).eval()


@torch.no_grad()
def test_the_temperature_is_a_factor_of_the_deviations() -> None:
    prior = priors.LearnedNormal(2)
    prior.loc.data = torch.tensor([3.0, -1.0])
    prior.log_scale.data = torch.tensor([2.0, 0.5]).log()
    for temperature in (0.5, 1.0, 2.0):
        x = draw_examples(vae_with(prior), torch.empty(40_000, 0), temperature)
        error = temperature * torch.tensor([2.0, 0.5]) / 200
        assert ((x.mean(0) - prior.loc).abs() < 5 * error).all()
        expected = temperature * torch.tensor([2.0, 0.5])
        torch.testing.assert_close(x.std(0), expected, rtol=0.02, atol=0.0)


@torch.no_grad()
@pytest.mark.parametrize("prior", [priors.Flow(2), priors.Mixture(2), priors.Laplace(2)])
def test_other_priors_have_no_temperature(prior: priors.Prior) -> None:
    vae = vae_with(prior)
    assert draw_examples(vae, torch.empty(5, 0), 1.0).shape == (5, 2)
    with pytest.raises(InputError, match="a temperature other than 1 needs a prior of independent"):
        draw_examples(vae, torch.empty(5, 0), 0.9)


@torch.no_grad()
def test_two_layers_have_neither_moments_nor_a_temperature() -> None:
    vae = vae_with(priors.Hierarchical(2), posteriors.Hierarchical([2], 2))
    assert moments(vae, torch.zeros(3, 2)) is None
    with pytest.raises(InputError, match="a temperature other than 1"):
        draw_examples(vae, torch.empty(5, 0), 0.9)
