"""The base of all priors."""

from abc import ABC, abstractmethod
from typing import ClassVar

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.codes import Latent
from pyro_vae.kinds import Kind
from pyro_vae.posteriors import Posterior


class Prior(nn.Module, ABC):
    """A distribution over codes z of shape [latent_dim].

    Attributes:
        support: where its codes are, as `Posterior.support`; None where the posterior's are.
    """

    support: ClassVar[Latent | None] = "real"

    @abstractmethod
    def forward(self) -> dist.Distribution:
        """Return p(z), with batch shape [] and event shape [latent_dim]."""

    def leave_out(self, x: Tensor, kind: Kind) -> dist.Distribution:
        """Return p(z) for training on x: a prior made of training images leaves x itself out.

        Args:
            x: as the likelihood is shown it, shape [batch, *event].
            kind: what x is.

        Returns:
            A distribution with batch shape [] or [batch], and event shape [latent_dim].
        """
        return self()

    def code(self, z: Tensor) -> Tensor:
        """Return what the decoder is shown of z, shape [..., latent_dim]; most show z itself."""
        return z

    def attach(self, posterior: Posterior) -> None:
        """Meet the posterior; called once by `VAE`, for priors that are made from it."""

    def initialize(self, images: Tensor) -> None:
        """Start from the data; called once before training.

        Args:
            images: training images, shape [N, *event], intensities in [0, 1].
        """
