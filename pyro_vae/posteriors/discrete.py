"""Binary and one-hot codes."""

from collections.abc import Sequence

import pyro.distributions as dist
from torch import Tensor

from pyro_vae.distributions import relaxed
from pyro_vae.networks import MLP
from pyro_vae.posteriors.posterior import Encoder, Posterior


class Bernoulli(Posterior):
    """Independent binary codes; in training, relaxed to (0, 1).

    In training mode this is the binary Concrete distribution (Maddison, Mnih & Teh 2017), of the
    logits of relaxed codes, and the ELBO is that of the relaxed model. In evaluation mode
    (`vae.eval()`) codes are 0 or 1, and bounds are those of the discrete model.

    Args:
        event_shape: the shape of one x.
        latent_dim: the number of binary variables.
        encoder: the network that maps x to the logits.
        temperature: of the relaxation.
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
        """Return codes in (0, 1) in training, where z are their logits."""
        return z.sigmoid() if self.training else z


class Categorical(Posterior):
    """Independent categorical codes, one-hot, side by side; in training, relaxed to the simplex.

    In training mode this is the Concrete distribution (Maddison, Mnih & Teh 2017; Jang, Gu & Poole
    2017), of the logarithms of relaxed codes, and the ELBO is that of the relaxed model. In
    evaluation mode (`vae.eval()`) codes are one-hot, and bounds are those of the discrete model.

    Args:
        event_shape: the shape of one x.
        latent_dim: the number of variables times that of their categories.
        encoder: the network that maps x to the logits.
        categories: of each variable.
        temperature: of the relaxation.
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
        """Return codes on the simplex in training, where z are their logarithms."""
        return z.exp() if self.training else z
