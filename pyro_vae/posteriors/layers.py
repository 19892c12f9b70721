"""Codes in layers: z, which the likelihood decodes, and z_top, z_top2, .. above it.

    p(z, z_top, z_top2, ..) = p(z | z_top) p(z_top | z_top2) .. p(uppermost layer)

This file has what the hierarchical prior and its posteriors share.
"""

import math
from collections.abc import Sequence

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyro_vae.errors import InputError
from pyro_vae.networks.network import check_positive


def upper_sites(count: int) -> list[str]:
    """Return the names of the Pyro sites of the layers above z, from the lowest to the uppermost.

    Args:
        count: the number of layers above z.
    """
    return ["z_top", *(f"z_top{height}" for height in range(2, count + 1))][:count]


def check_upper_dims(top_dim: int | Sequence[int]) -> tuple[int, ...]:
    """Return the dimensions of the layers above z, from the lowest to the uppermost.

    Args:
        top_dim: one dimension for each layer; a number for a single layer.

    Raises:
        InputError: if there is no layer, or a dimension is not positive.
    """
    dims = (top_dim,) if isinstance(top_dim, int) else tuple(top_dim)
    if not dims:
        raise InputError(
            "a hierarchy has at least one layer above z: give its dimension", "top_dim"
        )
    check_positive("top_dim", dims)
    return dims


def given_above(outputs: Tensor) -> dist.Distribution:
    """Return p(z_i | z_{i+1}) = N(m, diag(s^2)); at outputs of zero it is N(0, I).

    Args:
        outputs: m and raw scales, which the prior's network computes from z_{i+1}; shape
            [..., 2, dim].
    """
    loc, raw_scale = outputs.unbind(-2)
    return dist.Normal(loc, softplus(raw_scale + math.log(math.e - 1)) + 1e-5).to_event(1)
