"""A prior that depends on the conditions of an example."""

import copy
import math
from collections.abc import Callable, Sequence

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Kind
from pyro_vae.networks import MLP, Network
from pyro_vae.priors.prior import Prior


class ConditionalNormal(Prior):
    """p(z | y) = N(m(y), diag(s(y)^2)), by a network (Sohn, Lee & Yan 2015).

    It needs data with conditions y. The other priors go with such data too: z is then independent
    of y, and only the decoder knows y.

    Args:
        latent_dim: the dimension of z.
        network: the network that maps the features of y to m and s.
    """

    built_parts = ("network",)
    conditions: Tensor | None = None  # features of y, in the object that `under` returns

    def __init__(
        self,
        latent_dim: int,
        network: Callable[[Sequence[int], Sequence[int]], Network] = MLP,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self._make_network = network

    def build_for(self, kind: Kind) -> None:
        """Make the network for the features of y.

        Raises:
            InputError: if the data have no conditions.
        """
        if self.conditions is not None:
            return
        if not isinstance(kind, Conditional):
            raise InputError(
                "a ConditionalNormal prior is p(z | y), and these data have no conditions y: name "
                "some, or choose another prior",
                "prior",
            )
        self.network = self._make_network(kind.given.feature_shape, (2, self.latent_dim))

    def under(self, x: Tensor, kind: Kind) -> Prior:
        """Return p(z | y) for the conditions of these examples; see `Prior.under`."""
        if self.conditions is not None:
            return self
        assert isinstance(kind, Conditional)  # `build_for` has refused others
        fixed = copy.copy(self)
        fixed.conditions = kind.given.features(kind.parted(x)[1])
        return fixed

    def forward(self) -> dist.Distribution:
        """Return p(z | y), with the batch shape of the fixed conditions.

        Raises:
            InputError: if no conditions are fixed.
        """
        if self.conditions is None:
            raise InputError(
                "p(z | y) needs conditions y: fix those of some examples x by under(x, kind), or "
                "give y to the model",
                "y",
            )
        loc, raw_scale = self.network(self.conditions.to(self.network.bias)).unbind(-2)
        return dist.Normal(loc, softplus(raw_scale + math.log(math.e - 1)) + 1e-5).to_event(1)
