"""The base of all posteriors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_vae.networks import Network
from pyro_vae.posteriors.codes import Latent

# A network's class, or a partial of it: called with the shape of x and the shape of the outputs.
Encoder = Callable[[Sequence[int], Sequence[int]], Network]


class Posterior(nn.Module, ABC):
    """A distribution of codes z for each x.

    The network that reads x is the attribute `encoder`: `refinement` looks for it by this name.

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z.

    Attributes:
        support: the latent space of the codes; the prior must have the same one.
        upper_dims: for codes in layers, the dimensions of the layers above z, from the lowest to
            the uppermost.
        top: for codes in layers, the posterior of the uppermost layer.
    """

    support: ClassVar[Latent] = "real"
    upper_dims: tuple[int, ...] = ()
    top: "Posterior"

    def __init__(self, event_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.latent_dim = latent_dim

    @abstractmethod
    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x), with batch shape [...] and event shape [latent_dim].

        Args:
            x: the features of x, for images intensities in [0, 1]; shape [..., *event_shape].
        """

    def draw(self, x: Tensor) -> Tensor:
        """Draw z at the Pyro site "z", and return it, shape [..., latent_dim].

        Upper layers have sites of their own, which `forward` draws if they come before z.

        Args:
            x: the features of x, shape [..., *event_shape].
        """
        return pyro.sample("z", self(x))

    def build(self, prior: nn.Module) -> None:
        """Keep the parts of the prior that the posterior shares; by default there are none.

        `VAE` calls it, after it has built the prior.

        Raises:
            InputError: if the posterior cannot be used with this prior.
        """

    def code(self, z: Tensor) -> Tensor:
        """Return the decoder's input for z, shape [..., latent_dim]: z itself unless overridden."""
        return z


def positive_scale(raw: Tensor) -> Tensor:
    """Return positive scales for any numbers.

    The smallest scale, 1e-5, keeps densities finite. Scales of useful posteriors are far larger.
    """
    return softplus(raw) + 1e-5
