"""The posterior of codes in two layers."""

from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.networks import MLP
from pyro_vae.posteriors.normals import Normal
from pyro_vae.posteriors.posterior import Encoder, Posterior, positive_scale


class Hierarchical(Posterior):
    """q(z_top|x) q(z|x, z_top), for `priors.Hierarchical` (Tomczak & Welling 2018, section 4).

    `forward` draws z_top at the Pyro site "z_top" and returns N(m(x, z_top), s(x, z_top)^2). An MLP
    maps the features of x and z_top to m and s.

    Args:
        latent_dim: the dimension of z, the lower layer, which the likelihood decodes.
        encoder: the network that maps x to its features.
        top: the family of q(z_top|x), with its own encoder.
        top_dim: the dimension of z_top.
        features: the number of features of x, and the width of the MLP's hidden layer.
    """

    support = "two layers"

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        top: Callable[[Sequence[int], int], Posterior] = Normal,
        top_dim: int = 8,
        features: int = 100,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        for name, size in (("top_dim", top_dim), ("features", features)):
            if size < 1:
                raise InputError(f"{name} has to be at least 1, and {size} is not", name)
        self.top = top(event_shape, top_dim)
        if isinstance(self.top, Hierarchical):
            raise InputError("a hierarchy has two layers: take another posterior as its top", "top")
        self.encoder = encoder(event_shape, (features,))
        self.joint = MLP((features + top_dim,), (2, latent_dim), widths=(features,))

    def forward(self, x: Tensor) -> dist.Distribution:
        """Draw z_top and return q(z|x, z_top)."""
        z_top = pyro.sample("z_top", self.top(x))
        features = torch.tanh(self.encoder(x))
        features = features.expand(*z_top.shape[:-1], features.shape[-1])
        z_top = self.top.code(z_top)
        loc, raw_scale = self.joint(torch.cat([features, z_top], -1)).unbind(-2)
        return dist.Normal(loc, positive_scale(raw_scale)).to_event(1)
