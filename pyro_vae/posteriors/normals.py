"""Normal posteriors, with a covariance that is diagonal, of low rank plus diagonal, or full."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.networks import MLP
from pyro_vae.posteriors.posterior import Encoder, Posterior, positive_scale


def diagonal_normal(outputs: Tensor) -> dist.Distribution:
    """Return N(m, diag(s^2)), batch shape [...] and event shape [dim].

    Args:
        outputs: m and raw scales, which a network computed, shape [..., 2, dim].
    """
    loc, raw_scale = outputs.unbind(-2)
    return dist.Normal(loc, positive_scale(raw_scale)).to_event(1)


class Normal(Posterior):
    """N(m(x), diag(s(x)^2)): one encoder gives m and s (Kingma & Welling 2014, equation 9).

    Args:
        encoder: the network that maps x to m and s.
    """

    def __init__(self, event_shape: Sequence[int], latent_dim: int, encoder: Encoder = MLP) -> None:
        super().__init__(event_shape, latent_dim)
        self.encoder = encoder(event_shape, (2, latent_dim))

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        return diagonal_normal(self.encoder(x))


class FullNormal(Posterior):
    """N(m(x), L(x) L(x)'), where L is lower triangular: any covariance matrix.

    Args:
        encoder: the network that maps x to m and L.
    """

    def __init__(self, event_shape: Sequence[int], latent_dim: int, encoder: Encoder = MLP) -> None:
        super().__init__(event_shape, latent_dim)
        self.encoder = encoder(event_shape, (latent_dim * (latent_dim + 3) // 2,))

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        dim = self.latent_dim
        loc, raw_scale, below = self.encoder(x).split([dim, dim, dim * (dim - 1) // 2], -1)
        scale = positive_scale(raw_scale)
        rows, columns = torch.tril_indices(dim, dim, -1, device=x.device)
        lower = torch.zeros(*loc.shape, dim, dtype=loc.dtype, device=loc.device)
        lower[..., rows, columns] = below
        # Each row is in units of its scale, so the entries below the diagonal are correlations.
        return dist.MultivariateNormal(
            loc, scale_tril=scale.diag_embed() + scale[..., None] * lower
        )


class LowRankNormal(Posterior):
    """N(m(x), F(x) F(x)' + diag(s(x)^2)), where F has a few columns.

    Args:
        encoder: the network that maps x to m, s and F.
        rank: the number of columns of F.
    """

    def __init__(
        self, event_shape: Sequence[int], latent_dim: int, encoder: Encoder = MLP, rank: int = 2
    ) -> None:
        super().__init__(event_shape, latent_dim)
        if rank < 1:
            raise InputError(f"a LowRankNormal's rank has to be at least 1, but is {rank}", "rank")
        self.encoder = encoder(event_shape, (2 + rank, latent_dim))

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        loc, raw_scale, *factors = self.encoder(x).unbind(-2)
        scale = positive_scale(raw_scale)
        factor = scale[..., None] * torch.stack(factors, -1)
        return dist.LowRankMultivariateNormal(loc, factor, scale.square())
