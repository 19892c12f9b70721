"""Bottom-up inference: each layer is drawn given the layer below."""

from collections.abc import Sequence
from itertools import pairwise

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks import MLP
from pyro_vae.posteriors.layers import check_upper_dims, upper_sites
from pyro_vae.posteriors.normals import Normal, diagonal_normal
from pyro_vae.posteriors.posterior import Encoder, Posterior


class BottomUp(Normal):
    """q(z|x) q(z_top|z) .., for `priors.Hierarchical` (Burda, Grosse & Salakhutdinov 2016).

    Each layer is normal given the layer below it (their section 2): z given x, z_top given z,
    z_top2 given z_top. So `draw` draws z first, and then the upper layers at the Pyro sites
    "z_top", "z_top2", .. The model draws them in the opposite order. `forward` returns q(z|x).

    The uppermost layer depends on x through z alone, so its prior cannot be made of posteriors of
    images, as `Vamp` and `Exemplar` are.

    Args:
        latent_dim: the dimension of z, the lowest layer, which the likelihood decodes.
        encoder: the network that maps x to m and s of z.
        top_dim: the dimensions of the layers above z, from the lowest to the uppermost; a number
            for a single one, z_top.
        network: the network that maps a layer to m and s of the layer above it.
    """

    support = "layers"

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        top_dim: int | Sequence[int] = 8,
        network: Encoder = MLP,
    ) -> None:
        super().__init__(event_shape, latent_dim, encoder)
        self.upper_dims = check_upper_dims(top_dim)
        self.upper_networks = nn.ModuleList(
            network((below,), (2, dim)) for below, dim in pairwise((latent_dim, *self.upper_dims))
        )
        self.top = _GivenBelow(event_shape, self.upper_dims[-1])

    def draw(self, x: Tensor) -> Tensor:
        """Draw z at the site "z", then the upper layers, and return z."""
        z = below = super().draw(x)
        sites = upper_sites(len(self.upper_dims))
        for site, network in zip(sites, self.upper_networks, strict=True):
            below = pyro.sample(site, diagonal_normal(network(below)))
        return z


class _GivenBelow(Posterior):
    """Stands for the uppermost layer, which has no q given x alone in closed form."""

    def forward(self, x: Tensor) -> dist.Distribution:
        """Refuse.

        Raises:
            InputError: always.
        """
        raise InputError(
            "a BottomUp posterior has no q(uppermost layer | x) that a prior can be made of: "
            "choose another prior for the uppermost layer, Mixture for example",
            "prior",
        )
