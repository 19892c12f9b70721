"""A prior of two layers."""

import math
from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyro_vae import posteriors
from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind
from pyro_vae.networks import MLP, Network
from pyro_vae.posteriors import Posterior
from pyro_vae.posteriors.codes import check_support
from pyro_vae.priors.factorial import StandardNormal
from pyro_vae.priors.prior import Prior


class Hierarchical(Prior):
    """p(z | z_top) p(z_top): two layers of latent variables (Burda et al. 2016; Tomczak 2018).

    `forward` draws z_top, at the Pyro site of this name, and returns N(m(z_top), diag(s(z_top)^2)).
    The likelihood decodes z alone. z_top has the same dimension as the z_top of the posterior.

    Args:
        latent_dim: the dimension of z, the lower layer.
        top: the prior of z_top; its codes have to be of the same type as those of the posterior's
            top.
        network: the network that maps z_top to m and s.
    """

    support = "two layers"
    built_parts = ("top", "network")

    def __init__(
        self,
        latent_dim: int,
        top: Callable[[int], Prior] = StandardNormal,
        network: Callable[[Sequence[int], Sequence[int]], Network] = MLP,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self._make_top = top
        self._make_network = network

    def build(self, posterior: Posterior) -> None:
        """Make the prior and the network of the upper layer, for the posterior's z_top.

        Raises:
            InputError: if the prior and the posterior of the upper layer do not agree.
        """
        if not isinstance(posterior, posteriors.Hierarchical):
            raise InputError("a Hierarchical prior goes with a Hierarchical posterior", "posterior")
        top_dim = posterior.top.latent_dim
        self.top = self._make_top(top_dim)
        check_support(self.top, posterior.top)
        self.top.build(posterior.top)
        self.network = self._make_network((top_dim,), (2, self.latent_dim))

    def build_for(self, kind: Kind) -> None:
        """Make the parts of the upper layer that depend on the kind of the data."""
        self.top.build_for(kind)

    def under(self, x: Tensor, kind: Kind) -> Prior:
        """Return p(z | z_top) p(z_top | y); by default the top is p(z_top), and this is itself."""
        top = self.top.under(x, kind)
        if top is self.top:
            return self
        fixed = Hierarchical(self.latent_dim)
        fixed.top, fixed.network, fixed.training = top, self.network, self.training
        return fixed

    def initialize(self, images: Tensor) -> None:
        """Initialise the upper layer."""
        self.top.initialize(images)

    def forward(self) -> dist.Distribution:
        """Draw z_top, and return p(z | z_top)."""
        return self._given_top(self.top())

    def leave_out(self, x: Tensor, kind: Kind) -> dist.Distribution:
        """Draw z_top with x left out of its prior, and return p(z | z_top)."""
        return self._given_top(self.top.leave_out(x, kind))

    def _given_top(self, top: dist.Distribution) -> dist.Distribution:
        z_top = self.top.code(pyro.sample("z_top", top))
        loc, raw_scale = self.network(z_top).unbind(-2)
        return dist.Normal(loc, softplus(raw_scale + math.log(math.e - 1)) + 1e-5).to_event(1)
