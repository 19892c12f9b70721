"""Active units, on posteriors whose means are known."""

import torch

from pyro_vae import VAE, diagnostics, likelihoods, posteriors, priors
from pyro_vae.networks import Linear


def test_active_units() -> None:
    posterior = posteriors.Normal([3], 3, Linear)
    with torch.no_grad():
        posterior.encoder.body[1].weight.zero_()
        for unit, gain in enumerate([1.0, 0.15, 0.05]):  # variances 1, 0.0225 and 0.0025
            posterior.encoder.body[1].weight[unit, unit] = gain
    guide = VAE(priors.StandardNormal(3), likelihoods.Gaussian(3, [3]), posterior).guide
    x = torch.randn(20_000, 3)
    assert diagnostics.active_units(guide, x) == {"z": 2}
    assert diagnostics.active_units(guide, x, threshold=0.5) == {"z": 1}
    assert diagnostics.active_units(guide, x[:1].expand(1000, 3)) == {"z": 0}


def test_both_layers_are_counted() -> None:
    posterior = posteriors.Hierarchical([3], 2, top_dim=4)
    guide = VAE(priors.Hierarchical(2), likelihoods.Gaussian(2, [3]), posterior).guide
    with torch.no_grad():
        posterior.top.encoder.bias[0] = 5 * torch.ones(4)  # far off, and the same for all
        posterior.top.encoder.body[-1].weight.zero_()
        posterior.joint.body[-1].weight.zero_()
    assert diagnostics.active_units(guide, torch.randn(500, 3)) == {"z_top": 0, "z": 0}
