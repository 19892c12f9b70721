"""Posteriors q(z|x): the guide's side, amortised by an encoder network.

To add one, subclass `Posterior`: the constructor takes the shape of x, the latent dimension, and
then the options of the command line; `forward` returns the distribution of z for a batch of x.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_vae.networks import MLP, Network


class Posterior(nn.Module, ABC):
    """A distribution over codes for each x.

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z.
    """

    def __init__(self, event_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.latent_dim = latent_dim

    @abstractmethod
    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x), with batch shape [...] and event shape [latent_dim].

        Args:
            x: shape [..., *event_shape].
        """


class Normal(Posterior):
    """N(m(x), diag(s(x)^2)), m and s from one encoder (Kingma & Welling 2014, equation 9).

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z.
        encoder: the network that maps x to m and s.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Callable[[Sequence[int], Sequence[int]], Network] = MLP,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        self.encoder = encoder(event_shape, (2, latent_dim))

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        loc, raw_scale = self.encoder(x).unbind(-2)
        # The floor keeps the density finite, and is far below the width of any real posterior.
        return dist.Normal(loc, softplus(raw_scale) + 1e-5).to_event(1)
