"""The base of all priors."""

from abc import ABC, abstractmethod
from typing import ClassVar

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.observations import Support
from pyro_vae.posteriors import Latent, Posterior


class Prior(nn.Module, ABC):
    """A distribution over codes z of shape [latent_dim].

    Attributes:
        support: where its codes are, as `Posterior.support`; None where the posterior's are.
    """

    support: ClassVar[Latent | None] = "real"

    @abstractmethod
    def forward(self) -> dist.Distribution:
        """Return p(z), with batch shape [] and event shape [latent_dim]."""

    def leave_out(self, x: Tensor, support: Support) -> dist.Distribution:
        """Return p(z) for training on x: a prior made of training images leaves x itself out.

        Args:
            x: as the likelihood is shown it, shape [batch, *event].
            support: of the likelihood.

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


def check_support(prior: Prior, posterior: Posterior) -> None:
    """Refuse a prior and a posterior whose codes are not in the same place.

    Raises:
        InputError: saying where they are.
    """
    if prior.support not in (posterior.support, None) or (
        prior.support is None and posterior.support == "two layers"
    ):
        raise InputError(
            f"the codes of the prior {type(prior).__name__} are {_WHERE[prior.support]}, those of "
            f"the posterior {type(posterior).__name__} {_WHERE[posterior.support]}: choose two "
            "that agree"
        )


_WHERE = {
    "real": "real vectors",
    "sphere": "on the unit sphere",
    "binary": "binary",
    "categorical": "one-hot",
    "two layers": "in two layers",
    None: "in a single layer",
}
