"""A prior that is a normalising flow."""

from collections.abc import Callable
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.nn import AutoRegressiveNN
from torch import nn

from pyro_vae.errors import InputError
from pyro_vae.priors.prior import Prior


class Flow(Prior):
    """A normalising flow: z = f(u), u ~ N(0, I), with f a chain of invertible transforms.

    `affine_coupling` is Real NVP (Dinh, Sohl-Dickstein & Bengio 2017); `masked_autoregressive` is
    MAF (Papamakarios, Pavlakou & Murray 2017), which is slow to draw from: a draw takes one pass
    for each dimension; `spline_coupling` has rational splines on [-5, 5] (Durkan et al. 2019;
    linear rational splines, Dolatabadi et al. 2020). After each transform the order of the
    dimensions is reversed. Flows as priors: Chen et al. 2017.

    Args:
        latent_dim: the dimension of z, two or more.
        transform: the type of the transforms.
        layers: the number of transforms.
        hidden: the width of the two hidden layers of each transform's network.
    """

    def __init__(
        self,
        latent_dim: int,
        transform: Literal[
            "affine_coupling", "masked_autoregressive", "spline_coupling"
        ] = "affine_coupling",
        layers: int = 4,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        if latent_dim < 2:
            raise InputError("a Flow prior needs two latent dimensions or more", "latent_dim")
        if min(layers, hidden) < 1:
            name = "layers" if layers < 1 else "hidden"
            raise InputError("layers and hidden of a flow have to be at least 1", name)
        self.latent_dim = latent_dim
        self.backwards = transform == "masked_autoregressive"  # its inverse has the fast density
        widths = [max(hidden, latent_dim)] * 2
        make: dict[str, Callable[[], nn.Module]] = {
            "affine_coupling": lambda: transforms.affine_coupling(latent_dim, widths),
            "masked_autoregressive": lambda: transforms.AffineAutoregressive(
                AutoRegressiveNN(latent_dim, widths, permutation=torch.arange(latent_dim))
            ),
            "spline_coupling": lambda: transforms.spline_coupling(
                latent_dim, hidden_dims=widths, bound=5.0
            ),
        }
        self.transforms = nn.ModuleList(make[transform]() for _ in range(layers))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        weight = next(self.parameters())
        reverse = transforms.Permute(torch.arange(self.latent_dim, device=weight.device).flip(0))
        layers: list[Any] = []
        layer: Any
        for layer in self.transforms:
            layer.clear_cache()  # Pyro's cache does not notice that parameters have changed
            layers += [layer.inv if self.backwards else layer, reverse]
        zeros = weight.new_zeros(self.latent_dim)
        base = dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)
        return dist.TransformedDistribution(base, layers)
