"""Posteriors that are autoregressive normalising flows."""

from abc import abstractmethod
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.nn import ConditionalAutoRegressiveNN
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks import MLP
from pyro_vae.posteriors.posterior import Encoder, Posterior, positive_scale


class _Flow(Posterior):
    """z = m(x) + s(x) f(u; h(x)) with u ~ N(0, I), where f is autoregressive.

    f is a sequence of autoregressive transforms. Each has the dimensions in the reverse order of
    the one before it. A draw and its density take one pass; the density of any other z takes a pass
    for each dimension.

    Args:
        latent_dim: the dimension of z, two or more.
        encoder: the network that maps x to m, s and h.
        layers: the number of autoregressive transforms.
        hidden: the width of their two hidden layers.
        context: the dimension of h.
        outputs: the sizes of the parameters that a transform has for each dimension of z.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder,
        layers: int,
        hidden: int,
        context: int,
        outputs: Sequence[int],
    ) -> None:
        super().__init__(event_shape, latent_dim)
        if latent_dim < 2:
            raise InputError(
                f"the posterior {type(self).__name__} needs two latent dimensions or more",
                "latent_dim",
            )
        for name, size in (("layers", layers), ("hidden", hidden), ("context", context)):
            if size < 1:
                raise InputError(f"a flow's {name} has to be at least 1, but is {size}", name)
        self.context = context
        self.encoder = encoder(event_shape, (2 * latent_dim + context,))
        order = torch.arange(latent_dim)
        networks = [
            ConditionalAutoRegressiveNN(
                latent_dim,
                context,
                [max(hidden, latent_dim)] * 2,
                param_dims=list(outputs),
                permutation=order.flip(0) if layer % 2 else order,
            )
            for layer in range(layers)
        ]
        self.networks = nn.ModuleList(networks)
        with torch.no_grad():  # the initial q(z|x) is close to a diagonal normal
            for network in networks:
                for parameter in network.layers[-1].parameters():
                    parameter.mul_(0.1)

    @abstractmethod
    def transform(self, network: nn.Module, context: Tensor) -> dist.transforms.Transform:
        """Return one transform of f.

        Args:
            network: one of `networks`, which computes the transform's parameters from u and h.
            context: a batch of h, shape [..., context].
        """

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        dim = self.latent_dim
        loc, raw_scale, context = self.encoder(x).split([dim, dim, self.context], -1)
        base = dist.Normal(torch.zeros_like(loc), torch.ones_like(loc)).to_event(1)
        layers = [self.transform(network, context) for network in self.networks]
        affine = transforms.AffineTransform(
            loc, positive_scale(raw_scale), event_dim=1, cache_size=1
        )
        return dist.TransformedDistribution(base, [*layers, affine])


class IAF(_Flow):
    """Inverse autoregressive flow (Kingma et al. 2016, equation 10)."""

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        layers: int = 2,
        hidden: int = 100,
        context: int = 50,
    ) -> None:
        super().__init__(event_shape, latent_dim, encoder, layers, hidden, context, [1, 1])

    def transform(self, network: nn.Module, context: Tensor) -> dist.transforms.Transform:
        """Return an affine transform."""
        return transforms.ConditionalAffineAutoregressive(network).condition(context)


class SplineFlow(_Flow):
    """Autoregressive rational splines (Durkan et al. 2019; linear ones, Dolatabadi et al. 2020).

    Args:
        bins: the number of bins of each spline on [-4, 4]; outside, the spline is the identity.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        layers: int = 2,
        hidden: int = 100,
        context: int = 50,
        bins: int = 8,
    ) -> None:
        if not 2 <= bins <= 500:
            raise InputError(
                f"a spline needs two bins or more, and 500 at most, not {bins}", "bins"
            )
        self.bins = bins
        outputs = [bins, bins, bins - 1, bins]
        super().__init__(event_shape, latent_dim, encoder, layers, hidden, context, outputs)

    def transform(self, network: nn.Module, context: Tensor) -> dist.transforms.Transform:
        """Return a transform by splines."""
        return transforms.ConditionalSplineAutoregressive(
            self.latent_dim, network, count_bins=self.bins, bound=4.0
        ).condition(context)
