"""A likelihood of binary pixels."""

import pyro.distributions as dist
from torch import Tensor

from pyro_vae.kinds import Binary
from pyro_vae.likelihoods.likelihood import Likelihood


class Bernoulli(Likelihood):
    """Independent binary pixels. The decoder gives their logits.

    -log p(x|z) is the cross-entropy.
    """

    kinds = (Binary,)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(dist.Bernoulli(logits=self.decoder(z)))

    def initialize(self, images: Tensor) -> None:
        """Set the pixels' probabilities to their means, at least 0.001 away from 0 and 1."""
        self.decoder.bias.data.copy_(images.mean(0).clamp(1e-3, 1 - 1e-3).logit())
