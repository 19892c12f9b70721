"""The base of all posteriors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_vae.codes import Latent
from pyro_vae.networks import Network

Encoder = Callable[[Sequence[int], Sequence[int]], Network]


class Posterior(nn.Module, ABC):
    """A distribution over codes for each x.

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z.

    Attributes:
        support: where its codes are; a prior's have to be there too.
    """

    support: ClassVar[Latent] = "real"

    def __init__(self, event_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.latent_dim = latent_dim

    @abstractmethod
    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x), with batch shape [...] and event shape [latent_dim].

        Args:
            x: intensities in [0, 1], shape [..., *event_shape].
        """

    def code(self, z: Tensor) -> Tensor:
        """Return what the decoder is shown of z, shape [..., latent_dim]; most show z itself."""
        return z


def positive_scale(raw: Tensor) -> Tensor:
    """A scale from any number; the floor keeps densities finite, far below any real posterior."""
    return softplus(raw) + 1e-5
