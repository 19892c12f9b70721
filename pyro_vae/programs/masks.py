"""Masks: which values of a site count in a log-probability.

A mask is set around a site (`poutine.mask`), or within its distribution (`fn.mask`), where no trace
shows it, and where `to_event` may make its last dimensions part of an event. A latent variable that
the model masks is no part of log p(x, z), so it may be no part of log q(z|x) either.
"""

import math
from collections.abc import Callable

import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.traces import Site, sample_sites


def mask_of(site: Site) -> Tensor | None:
    """Return which values of a site count, or None if all do.

    Args:
        site: a site of a trace.

    Returns:
        True where a value counts. The shape can be broadcast to that of the values: it has the
        batch dimensions, and as many event dimensions.
    """
    layer, device = site["fn"], site["value"].device
    masks = [(site["mask"], layer.event_dim)]
    while hasattr(layer, "base_dist") and not hasattr(layer, "transforms"):
        if isinstance(layer, MaskedDistribution):
            masks.append((layer._mask, layer.event_dim))
        layer = layer.base_dist
    result = None
    for mask, event_dims in masks:
        if mask is not None and mask is not True:
            tensor = torch.as_tensor(mask, device=device)
            tensor = tensor.reshape(tensor.shape + (1,) * event_dims)
            result = tensor if result is None else result & tensor
    return result


def counted(site: Site, model_mask: Tensor | None, scale: Tensor | float) -> Tensor:
    """Return the log-probabilities of a guide's site, where the model has the latent variable.

    Args:
        site: a site of the guide, with its log-probabilities.
        model_mask: `mask_of` the same site in the model.
        scale: a factor of the log-probabilities.

    Returns:
        Nats, in the batch shape of the site; NaN where the two masks give no density.
    """
    values, own = site["unscaled_log_prob"], mask_of(site)
    if own is None and model_mask is None:
        return scale_and_mask(values, scale)
    event_dims = site["fn"].event_dim
    values = torch.where(_unlike(own, model_mask, event_dims), math.nan, values)
    if model_mask is None:
        return scale_and_mask(values, scale)
    return scale_and_mask(values, scale, _over_events(torch.any, model_mask, event_dims))


def check_masks(
    model: poutine.Trace, guide: poutine.Trace, noise: dict[str, str], computed: list[str]
) -> None:
    """Check that the guide has a density wherever the model has a latent variable.

    Args:
        model: a trace of the model.
        guide: a trace of the guide.
        noise: the auxiliary site of each computed site, where there is one.
        computed: the names of the sites whose values are computed.

    Raises:
        InputError: if the guide masks what the model does not, or part of a value is masked in one
            of them alone, or the noise of a masked latent variable cannot be told apart.
    """
    sites = dict(sample_sites(model))
    for name, site in sample_sites(guide):
        model_mask = mask_of(sites[name]) if name in sites else None
        own = mask_of(site)
        if (own is not None or model_mask is not None) and _unlike(
            own, model_mask, site["fn"].event_dim
        ).any():
            raise InputError(
                f"the guide's site '{name}' is masked where the model's is not, or part of its "
                "values is masked in one of them alone: mask both alike",
                "guide",
            )
        if name in computed and model_mask is not None and name not in noise:
            raise InputError(
                f"the model masks site '{name}', and the guide computes its values from noise that "
                "other values share: use a guide with noise for each value, such as AutoNormal",
                "guide",
            )


def masked_values(model: poutine.Trace) -> dict[str, Tensor]:
    """Return, for each masked latent site, which of its values the masks take out."""
    return {
        name: ~mask
        for name, site in sample_sites(model)
        if not site["is_observed"] and (mask := mask_of(site)) is not None
    }


def draws_that_count(site: Site) -> Tensor | None:
    """Return which draws of a site count at least in part, in its batch shape; None if all do."""
    mask = mask_of(site)
    return None if mask is None else _over_events(torch.any, mask, site["fn"].event_dim)


def _unlike(own: Tensor | None, model_mask: Tensor | None, event_dims: int) -> Tensor:
    """Return, in the batch shape, where two masks leave no density of the guide."""
    true = torch.ones((1,) * event_dims, dtype=torch.bool)
    guided = true if own is None else own
    modelled = true.to(guided.device) if model_mask is None else model_mask
    hidden = ~guided.to(modelled.device) & modelled
    some = _over_events(torch.any, modelled, event_dims)
    partly = some & ~_over_events(torch.all, modelled, event_dims)
    differ = _over_events(torch.any, guided.to(modelled.device) != modelled, event_dims)
    return _over_events(torch.any, hidden, event_dims) | (partly & differ)


def _over_events(reduce: Callable[[Tensor, int], Tensor], mask: Tensor, event_dims: int) -> Tensor:
    """Reduce a mask over the event dimensions."""
    return reduce(mask.flatten(-event_dims), -1) if event_dims else mask
