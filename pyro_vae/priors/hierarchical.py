"""A prior of several layers."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind
from pyro_vae.networks import MLP, Network
from pyro_vae.posteriors import Posterior
from pyro_vae.posteriors.codes import check_support
from pyro_vae.posteriors.layers import given_above, upper_sites
from pyro_vae.priors.factorial import StandardNormal
from pyro_vae.priors.prior import Prior


class Hierarchical(Prior):
    """p(z | z_top) p(z_top): layers of latent variables (Burda et al. 2016; Tomczak 2018).

    It has as many layers as the posterior, and of the same dimensions; with three it is
    p(z | z_top) p(z_top | z_top2) p(z_top2). `forward` draws the upper layers, at the Pyro sites
    "z_top", "z_top2", .., and returns N(m(z_top), diag(s(z_top)^2)). The layers between have
    normals of the same form. The likelihood decodes z alone.

    Args:
        latent_dim: the dimension of z, the lowest layer.
        top: the prior of the uppermost layer; its codes have to be of the same type as those of
            the posterior's uppermost layer.
        network: the network that maps a layer to m and s of the layer below it.
    """

    support = "layers"
    built_parts = ("top", "network", "upper_networks")

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
        """Make the prior of the uppermost layer, and the networks of the layers below it.

        Raises:
            InputError: if the prior and the posterior of the uppermost layer do not agree.
        """
        dims = posterior.upper_dims
        if not dims:
            raise InputError(
                "a Hierarchical prior goes with a posterior of several layers: Hierarchical, "
                "Ladder or BottomUp",
                "posterior",
            )
        self.top = self._make_top(dims[-1])
        check_support(self.top, posterior.top)
        self.top.build(posterior.top)
        self.network, *upper_networks = (
            self._make_network((above,), (2, dim))
            for dim, above in pairwise((self.latent_dim, *dims))
        )
        self.upper_networks = nn.ModuleList(upper_networks)

    @property
    def layer_networks(self) -> list[nn.Module]:
        """The networks of p(z_i | z_{i+1}), from z upwards, whose outputs `given_above` takes."""
        return [self.network, *self.upper_networks]

    def build_for(self, kind: Kind) -> None:
        """Make the parts of the uppermost layer that depend on the kind of the data."""
        self.top.build_for(kind)

    def under(self, x: Tensor, kind: Kind) -> Prior:
        """Return the prior given y; by default the top does not depend on y, and this is itself."""
        top = self.top.under(x, kind)
        if top is self.top:
            return self
        fixed = Hierarchical(self.latent_dim)
        fixed.top, fixed.network, fixed.upper_networks = top, self.network, self.upper_networks
        fixed.training = self.training
        return fixed

    def initialize(self, images: Tensor) -> None:
        """Initialise the uppermost layer."""
        self.top.initialize(images)

    def forward(self) -> dist.Distribution:
        """Draw the upper layers, and return p(z | z_top)."""
        return self._given_top(self.top())

    def leave_out(self, x: Tensor, kind: Kind) -> dist.Distribution:
        """Draw the upper layers with x left out of the uppermost one, and return p(z | z_top)."""
        return self._given_top(self.top.leave_out(x, kind))

    def _given_top(self, top: dist.Distribution) -> dist.Distribution:
        """Draw the uppermost layer and those between it and z, and return p(z | z_top)."""
        *sites, uppermost = upper_sites(len(self.layer_networks))
        z = self.top.code(pyro.sample(uppermost, top))
        for site, network in zip(reversed(sites), reversed(self.upper_networks), strict=True):
            z = pyro.sample(site, given_above(network(z)))
        return given_above(self.network(z))
