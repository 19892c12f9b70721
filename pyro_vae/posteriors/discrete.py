"""Posteriors of binary codes and of one-hot codes."""

from collections.abc import Sequence

import pyro.distributions as dist
from torch import Tensor

from pyro_vae.distributions import relaxed
from pyro_vae.networks import MLP
from pyro_vae.posteriors.posterior import Encoder, Posterior


class Bernoulli(Posterior):
    """Independent binary codes; in training they are relaxed to (0, 1).

    In training mode z are the logits of relaxed codes, with the binary Concrete distribution
    (Maddison, Mnih & Teh 2017), and the ELBO is that of the relaxed model. In evaluation mode
    (`vae.eval()`) z are codes of 0 or 1, and bounds are those of the discrete model.

    Args:
        latent_dim: the number of binary variables.
        encoder: the network that maps x to the logits.
        temperature: the temperature of the relaxation.
    """

    support = "binary"

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        temperature: float = 2 / 3,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        self.encoder = encoder(event_shape, (latent_dim,))
        self.temperature = relaxed.check_temperature(temperature)

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x), relaxed in training mode."""
        return relaxed.bernoulli(self.encoder(x), self.temperature if self.training else None)

    def code(self, z: Tensor) -> Tensor:
        """Return the codes. In training mode z are logits of codes that lie in (0, 1)."""
        return z.sigmoid() if self.training else z


class Categorical(Posterior):
    """Independent one-hot codes, concatenated; in training they are relaxed to the simplex.

    In training mode z are the logarithms of relaxed codes, with the Concrete distribution
    (Maddison, Mnih & Teh 2017; Jang, Gu & Poole 2017), and the ELBO is that of the relaxed model.
    In evaluation mode (`vae.eval()`) z are one-hot codes, and bounds are those of the discrete
    model.

    Args:
        latent_dim: the number of variables times the number of categories.
        encoder: the network that maps x to the logits.
        categories: the number of categories of each variable.
        temperature: the temperature of the relaxation.
    """

    support = "categorical"

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        categories: int = 4,
        temperature: float = 2 / 3,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        self.encoder = encoder(event_shape, relaxed.one_hot_shape(latent_dim, categories))
        self.categories = categories
        self.temperature = relaxed.check_temperature(temperature)

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x), relaxed in training mode."""
        return relaxed.one_hot(self.encoder(x), self.temperature if self.training else None)

    def code(self, z: Tensor) -> Tensor:
        """Return the codes. In training mode z are logarithms of codes that lie on the simplex."""
        return z.exp() if self.training else z
