"""The likelihood that suits the data."""

from typing import Any

import pyro.distributions as dist
from torch import Tensor

from pyro_vae import kinds
from pyro_vae.errors import InputError
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood
from pyro_vae.likelihoods.suitable import SUITABLE
from pyro_vae.likelihoods.table_columns import Columns
from pyro_vae.networks import MLP


class ByKind(Likelihood):
    """The likelihood that suits the data, by the kind as which they are usually modelled.

    An object of this class is an object of the likelihood that `SUITABLE` names, or `Columns`.

    Args:
        decoder: the network that maps z to the parameters of each pixel's distribution.
    """

    def __new__(cls, latent_dim: int, x: kinds.Kind, decoder: Decoder = MLP) -> Any:
        """Make the likelihood.

        Raises:
            InputError: if none is known to suit the data.
        """
        suitable: dict[type[kinds.Kind], Any] = {**SUITABLE, kinds.Columns: Columns}
        if not isinstance(x, kinds.Kind) or x.usual not in suitable:
            raise InputError(
                f"no likelihood is known to suit data of the kind {x}: name one", "likelihood"
            )
        return suitable[x.usual](latent_dim, x, decoder)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Not reached: no object is of this class."""
        raise NotImplementedError
