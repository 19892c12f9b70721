"""Top-down inference, with networks of the guide's own."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks import MLP
from pyro_vae.posteriors.layers import check_upper_dims, upper_sites
from pyro_vae.posteriors.normals import Normal, diagonal_normal
from pyro_vae.posteriors.posterior import Encoder, Posterior


class Hierarchical(Posterior):
    """q(z_top|x) q(z|x, z_top), for `priors.Hierarchical` (Tomczak & Welling 2018, section 4).

    With more layers, q is that of the uppermost layer times q(z_i | x, z_{i+1}) of each lower one.
    `forward` draws the upper layers at the Pyro sites "z_top", "z_top2", .. and returns
    N(m(x, z_top), s(x, z_top)^2). An MLP for each layer maps the features of x and the layer above
    to m and s.

    Args:
        latent_dim: the dimension of z, the lowest layer, which the likelihood decodes.
        encoder: the network that maps x to its features.
        top: the family of q(uppermost layer | x), with its own encoder.
        top_dim: the dimensions of the layers above z, from the lowest to the uppermost; a number
            for a single one, z_top.
        features: the number of features of x, and the width of the hidden layer of each MLP.
    """

    support = "layers"

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        top: Callable[[Sequence[int], int], Posterior] = Normal,
        top_dim: int | Sequence[int] = 8,
        features: int = 100,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        if features < 1:
            raise InputError(f"features has to be at least 1, but is {features}", "features")
        self.upper_dims = check_upper_dims(top_dim)
        self.top = top(event_shape, self.upper_dims[-1])
        if self.top.upper_dims:
            raise InputError(
                "top is the family of the uppermost layer, and has a single layer: give the "
                "dimensions of all upper layers as top_dim",
                "top",
            )
        self.encoder = encoder(event_shape, (features,))
        self.joint, *upper_joints = (
            MLP((features + above,), (2, dim), widths=(features,))
            for dim, above in pairwise((latent_dim, *self.upper_dims))
        )
        self.upper_joints = nn.ModuleList(upper_joints)

    def forward(self, x: Tensor) -> dist.Distribution:
        """Draw the upper layers and return q(z|x, z_top)."""
        *sites, uppermost = upper_sites(len(self.upper_dims))
        z = self.top.code(pyro.sample(uppermost, self.top(x)))
        features = torch.tanh(self.encoder(x))
        for site, joint in zip(reversed(sites), reversed(self.upper_joints), strict=True):
            z = pyro.sample(site, _given(joint, features, z))
        return _given(self.joint, features, z)


def _given(joint: nn.Module, features: Tensor, above: Tensor) -> dist.Distribution:
    """Return q(z_i | x, z_{i+1})."""
    features = features.expand(*above.shape[:-1], features.shape[-1])
    return diagonal_normal(joint(torch.cat([features, above], -1)))
