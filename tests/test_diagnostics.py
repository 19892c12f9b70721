"""Active units, on a posterior whose means are known."""

import torch

from pyro_vae import diagnostics, posteriors
from pyro_vae.networks import Linear


def test_active_units() -> None:
    posterior = posteriors.Normal([3], 3, Linear)
    with torch.no_grad():
        posterior.encoder.body[1].weight.zero_()
        for unit, gain in enumerate([1.0, 0.11, 0.05]):  # variances 1, 0.0121 and 0.0025
            posterior.encoder.body[1].weight[unit, unit] = gain
    x = torch.randn(20_000, 3)
    assert diagnostics.active_units(posterior, x) == 2
    assert diagnostics.active_units(posterior, x, threshold=0.001) == 3
    assert diagnostics.active_units(posterior, x[:1].expand(10, 3)) == 0
