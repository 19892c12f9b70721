"""The posterior of the ladder: what x says, combined with what the layer above says."""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor, nn
from torch.nn.functional import silu

from pyro_vae.errors import InputError
from pyro_vae.networks import MLP
from pyro_vae.posteriors.layers import check_upper_dims, given_above, upper_sites
from pyro_vae.posteriors.normals import diagonal_normal
from pyro_vae.posteriors.posterior import Encoder, Posterior

GAIN = 6**0.5  # of the first weights (see `MLP`): else the upward pass says almost nothing of x


class Ladder(Posterior):
    """The top-down posterior of the ladder VAE, for `priors.Hierarchical` (Sonderby et al. 2016).

    A deterministic pass from x upwards gives a mean m_i and a scale s_i for each layer z_i. The
    uppermost layer has q = N(m_L, s_L^2). Then, from the top down, q(z_i | x, z_{i+1}) is the
    product of N(m_i, s_i^2) and the prior's p(z_i | z_{i+1}), normalised: its precision is the sum
    of their precisions, and its mean is their precision-weighted mean (equations 18 and 19). So
    the prior's networks are a part of this posterior, and both are trained together. There is no
    batch normalisation: with it, the bound of an example would depend on the rest of its batch.

    `forward` draws the upper layers at the Pyro sites "z_top", "z_top2", .. and returns
    q(z|x, z_top).

    Args:
        latent_dim: the dimension of z, the lowest layer, which the likelihood decodes.
        encoder: the network that maps x to its features.
        top_dim: the dimensions of the layers above z, from the lowest to the uppermost; a number
            for a single one, z_top.
        features: the number of features of each layer. An MLP with one hidden layer of this width
            maps the features of one layer to those of the next.
    """

    support = "layers"
    top: "_Uppermost"

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        top_dim: int | Sequence[int] = 8,
        features: int = 200,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        if features < 1:
            raise InputError(f"features has to be at least 1, but is {features}", "features")
        self.upper_dims = check_upper_dims(top_dim)
        self.top = _Uppermost(event_shape, self.upper_dims, encoder, features)
        self.heads = nn.ModuleList(
            MLP((features,), (2, dim), widths=(), gain=GAIN)
            for dim in (latent_dim, *self.upper_dims[:-1])
        )
        self.networks: Any = None  # of the prior: `build` shares them

    def build(self, prior: nn.Module) -> None:
        """Share the prior's networks of p(z_i | z_{i+1}).

        Raises:
            InputError: if the prior has none.
        """
        networks: Any = getattr(prior, "layer_networks", None)
        if networks is None:
            raise InputError("a Ladder posterior goes with a Hierarchical prior", "prior")
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> dist.Distribution:
        """Draw the upper layers and return q(z|x, z_top)."""
        if self.networks is None:
            raise InputError(
                "a Ladder posterior shares networks with its prior: give both to VAE, or call "
                "build(prior)",
                "posterior",
            )
        *features, uppermost = self.top.features(x)
        q = self.top.given(uppermost)
        sites = upper_sites(len(self.upper_dims))
        layers: list[Any] = list(zip(sites, features, self.heads, self.networks, strict=True))
        for site, of_layer, head, network in reversed(layers):
            z = pyro.sample(site, q)  # of the layer above
            q = combined(diagonal_normal(head(of_layer)), given_above(network(z)))
        return q


class _Uppermost(Posterior):
    """The deterministic pass from x upwards, and q(uppermost layer | x) = N(m_L, s_L^2).

    Args:
        upper_dims: the dimensions of the layers above z.
        encoder: see `Ladder`.
        features: see `Ladder`.
    """

    def __init__(
        self, event_shape: Sequence[int], upper_dims: Sequence[int], encoder: Encoder, features: int
    ) -> None:
        super().__init__(event_shape, upper_dims[-1])
        self.encoder = encoder(event_shape, (features,))
        self.steps = nn.ModuleList(
            MLP((features,), (features,), widths=(features,), gain=GAIN) for _ in upper_dims
        )
        self.head = MLP((features,), (2, upper_dims[-1]), widths=(), gain=GAIN)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the features of each layer, from z to the uppermost.

        Args:
            x: the features of x, shape [..., *event_shape].
        """
        found = [silu(self.encoder(x))]
        for step in self.steps:
            found.append(silu(step(found[-1])))
        return found

    def given(self, features: Tensor) -> dist.Distribution:
        """Return q(uppermost layer | x), for its features."""
        return diagonal_normal(self.head(features))

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(uppermost layer | x)."""
        return self.given(self.features(x)[-1])


def combined(estimate: Any, prior: Any) -> dist.Distribution:
    """Return the normalised product of two normals (Sonderby et al. 2016, equations 18 and 19).

    Args:
        estimate: N(m_i, s_i^2), batch shape [...] and event shape [dim].
        prior: p(z_i | z_{i+1}), of the same shapes.
    """
    precision = estimate.variance.reciprocal()
    prior_precision = prior.variance.reciprocal()
    variance = 1 / (precision + prior_precision)
    loc = variance * (precision * estimate.mean + prior_precision * prior.mean)
    return dist.Normal(loc, variance.sqrt()).to_event(1)
