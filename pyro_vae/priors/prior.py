"""The base class of all priors."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind
from pyro_vae.posteriors import Posterior
from pyro_vae.posteriors.codes import Latent


class _NotBuiltError(InputError, AttributeError):
    """A part is used before `build` has made it. `hasattr` expects an AttributeError."""


class Prior(nn.Module, ABC):
    """A distribution over codes z of shape [latent_dim].

    A prior is made in three steps:

    1. the constructor takes the latent dimension and the options;
    2. `build` makes the parts that depend on the posterior, and `build_for` those that depend on
       the kind of the data. `VAE` calls both, once. A prior without such parts is complete after
       the constructor;
    3. `initialize` sets parameters from the training data, once, before training. It may be left
       out: the parameters then keep their first values.

    Attributes:
        support: where the prior's codes are, as `Posterior.support`; None for a prior whose codes
            are wherever the posterior's are.
        built_parts: the names of the attributes that `build` makes. Using one of them before
            raises an InputError that says so.
    """

    support: ClassVar[Latent | None] = "real"
    built_parts: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self) -> dist.Distribution:
        """Return p(z), with batch shape [] and event shape [latent_dim]."""

    def leave_out(self, x: Tensor, kind: Kind) -> dist.Distribution:
        """Return p(z) for a training step on x; a prior made of training images leaves x out.

        Args:
            x: examples as the likelihood sees them, shape [batch, *event].
            kind: what x is.

        Returns:
            A distribution with batch shape [] or [batch], and event shape [latent_dim].
        """
        return self()

    def under(self, x: Tensor, kind: Kind) -> "Prior":
        """Return p(z | y) for the conditions y of some examples; by default p(z), this prior.

        Args:
            x: examples as the likelihood sees them, shape [..., *event].
            kind: what x is.
        """
        return self

    def code(self, z: Tensor) -> Tensor:
        """Return the input of the decoder for z, shape [..., latent_dim]; for most priors, z."""
        return z

    def build(self, posterior: Posterior) -> None:
        """Make the parts that depend on the posterior.

        Raises:
            InputError: if the prior cannot be used with this posterior.
        """

    def build_for(self, kind: Kind) -> None:
        """Make the parts that depend on the kind of the data.

        Raises:
            InputError: if the prior cannot be used with such data.
        """

    def initialize(self, images: Tensor) -> None:
        """Set the first values of parameters from the data; called once before training.

        Args:
            images: the features of training examples, as `Kind.stored_features` returns them, shape
                [N, *event]; for pixels, intensities in [0, 1].
        """

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in self.built_parts:
                raise
        raise _NotBuiltError(
            f"the prior {type(self).__name__} depends on a posterior that it does not have yet: "
            "give both to VAE, or call build(posterior)",
            "prior",
        )
