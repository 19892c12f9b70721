"""Guides that compute latent values from auxiliary noise, as Pyro's autoguides do.

Such a guide draws noise a at sites that are marked as auxiliary, computes latent values z(a), and
records each z at a `Delta` site. If z(a) is invertible, the density of z is

    log q(z) = log q(a) - log |det dz/da|,

and the `Delta` sites have to carry the second term, as their `log_density`. The density of a z with
a constrained support refers to its unconstrained coordinates and the bijection that PyTorch
registers for the support. All this is checked here, by derivatives, because a guide for which it
does not hold gives weights with a wrong mean: without a word, and without a limit.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from pyro import poutine
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import biject_to

from pyro_vae.errors import InputError
from pyro_vae.programs.sites import base
from pyro_vae.programs.traces import Site, sample_sites

MAX_DIMS = 4096  # dimensions of the noise of one example for which the Jacobian is computed
MAX_DIMS_FOLDED = 64  # the same, for which it is computed at several draws
DRAWS_FOLDED = 8


def check_change_of_variables(
    run_guide: Callable[[poutine.Trace], poutine.Trace],
    guide_trace: poutine.Trace,
    model_trace: poutine.Trace,
    auxiliary: Sequence[str],
    computed: Sequence[str],
    plate: str | None,
) -> dict[str, str]:
    """Check that computed sites are an invertible function of the auxiliary sites.

    Args:
        run_guide: a function that runs the guide with the values of a trace.
        guide_trace: a trace of the guide.
        model_trace: a trace of the model with the same values.
        auxiliary: the names of the auxiliary sites.
        computed: the names of the `Delta` sites for continuous latent variables.
        plate: the name of the plate of the examples, which all these sites are in; None if there is
            none.

    Returns:
        For each computed site that is elementwise a function of one auxiliary site of the same
        shape, this auxiliary site.

    Raises:
        InputError: if a computed site is a point that no noise reaches, or the function is not
            invertible, or its Jacobian is not in the density.
    """
    auxiliary = _without_points(auxiliary, guide_trace)
    with torch.enable_grad():
        noise, trace = _run_with_noise(run_guide, guide_trace, auxiliary)
        coordinates, log_dets = _coordinates(trace, model_trace, computed, plate)
        for name in _points(computed, coordinates, noise):
            raise InputError(
                f"the guide's site '{name}' is a point estimate, which has no density and gives no "
                "bound: let the guide draw it, by AutoNormal for example",
                "guide",
            )
        a = [_by_example(value, trace.nodes[name], plate) for name, value in noise.items()]
        u = torch.cat(coordinates, 1) if coordinates else a[0][:, :0]
        dims = sum(part.shape[1] for part in a)
        if u.shape[1] != dims:
            raise _not_invertible(
                auxiliary, computed, f"{dims} dimensions of noise, and {u.shape[1]} of the values"
            )
        gradient = _gradient(noise, trace, plate)
        found = _elementwise(u, gradient)
        log_det = (
            found.slopes.abs().log().sum(1) if found else _log_det(u, gradient, auxiliary, computed)
        )
        log_density = _log_density_of_computed(trace, plate)
        expected = -(log_det + sum(log_dets))
        error = (log_density - expected).abs().max().item()
    if not math.isfinite(log_det.sum().item()):
        raise _not_invertible(auxiliary, computed, "a Jacobian of lower rank")
    if not error <= 1e-3 * dims * (1 + expected.abs().max().item() / dims):
        raise InputError(
            f"the log_density of the guide's site '{computed[0]}', and of other Delta sites, is "
            f"{error:.3g} nats away from -log |det dz/da|, where z are their values and a the "
            f"auxiliary site '{auxiliary[0]}': no bound follows from these densities",
            "guide",
        )
    if found is not None or dims <= MAX_DIMS_FOLDED:
        _refuse_folds(run_guide, guide_trace, model_trace, auxiliary, computed, plate, found)
    if found is None or not found.in_order():
        return {}
    return {
        latent: name
        for latent, name in zip(computed, auxiliary, strict=False)
        if len(computed) == len(auxiliary)
        and trace.nodes[latent]["fn"].batch_shape == trace.nodes[name]["fn"].batch_shape
    }


def find_points(
    run_guide: Callable[[poutine.Trace], poutine.Trace],
    guide_trace: poutine.Trace,
    auxiliary: Sequence[str],
    computed: Sequence[str],
) -> list[str]:
    """Return the names of the computed sites that are points: no noise reaches them.

    The arguments are those of `check_change_of_variables`.
    """
    auxiliary = _without_points(auxiliary, guide_trace)
    with torch.enable_grad():
        noise, trace = _run_with_noise(run_guide, guide_trace, auxiliary)
        return _points(computed, [trace.nodes[name]["value"] for name in computed], noise)


def _refuse_folds(
    run_guide: Callable[[poutine.Trace], poutine.Trace],
    guide_trace: poutine.Trace,
    model_trace: poutine.Trace,
    auxiliary: Sequence[str],
    computed: Sequence[str],
    plate: str | None,
    elementwise: "_Elementwise | None",
) -> None:
    """Refuse functions that give the same value for several noises, such as z = |a|.

    The sign of the Jacobian of an invertible function is the same everywhere. That of a function
    that folds its argument changes. A function that sorts its argument permutes it differently
    for each draw.

    Args:
        run_guide: as in `check_change_of_variables`, and so are the others.
        guide_trace: the first draw.
        model_trace: a trace of the model.
        auxiliary: the names of the sites that are noise.
        computed: the names of the sites that are computed.
        plate: the name of the plate of the examples.
        elementwise: the function at the first draw, if each value depends on one number alone.
    """
    first: Tensor | None = None
    for draw in range(1 + DRAWS_FOLDED):
        with torch.enable_grad():
            fresh = guide_trace if draw == 0 else run_guide(poutine.Trace())
            noise, trace = _run_with_noise(run_guide, fresh, auxiliary)
            u = torch.cat(_coordinates(trace, model_trace, computed, plate)[0], 1)
            gradient = _gradient(noise, trace, plate)
            if elementwise is not None:
                here = _elementwise(u, gradient)
                if here is None:
                    continue
                if not here.places.equal(elementwise.places):
                    raise _not_invertible(
                        auxiliary, computed, "values whose order depends on the noise"
                    )
                sign = here.slopes.sign()
            else:
                jacobian = torch.stack([gradient(u[:, d].sum()) for d in range(u.shape[1])], 1)
                sign = torch.linalg.slogdet(jacobian.double()).sign
        first = sign if first is None else first
        if (first * sign < 0).any():
            raise _not_invertible(auxiliary, computed, "values that several noises give")


def _coordinates(
    trace: poutine.Trace, model_trace: poutine.Trace, computed: Sequence[str], plate: str | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the unconstrained coordinates u of computed sites, and log |dz/du| of each of them.

    Args:
        trace: a trace of the guide.
        model_trace: a trace of the model, which has the supports.
        computed: the names of the sites.
        plate: the name of the plate of the examples.

    Returns:
        For each site u, shape [examples, dims], and log |dz/du|, shape [examples].
    """
    coordinates, log_dets = [], []
    for name in computed:
        site = trace.nodes[name]
        transform = biject_to(model_trace.nodes[name]["fn"].support)
        u = transform.inv(site["value"])
        log_det = transform.log_abs_det_jacobian(u, site["value"])
        coordinates.append(_by_example(u, site, plate))
        log_dets.append(_by_example(log_det, site, plate).sum(1))
    return coordinates, log_dets


def _deltas(guide_trace: poutine.Trace) -> list[str]:
    """Return the names of all `Delta` sites of a guide."""
    return [name for name, site in sample_sites(guide_trace) if isinstance(base(site["fn"]), Delta)]


def _log_density_of_computed(trace: poutine.Trace, plate: str | None) -> Tensor:
    """Return the log-densities that the `Delta` sites of a guide state, summed by example."""
    total = torch.zeros(())
    for name in _deltas(trace):
        site = trace.nodes[name]
        total = total + _by_example(site["fn"].log_prob(site["value"]), site, plate).sum(1)
    return total


def _without_points(auxiliary: Sequence[str], guide_trace: poutine.Trace) -> list[str]:
    """Return the auxiliary sites that are noise: those that are no points themselves.

    The auxiliary site of AutoLaplaceApproximation is a point while it is trained.
    """
    points = _deltas(guide_trace)
    return [name for name in auxiliary if name not in points]


def _gradient(
    noise: dict[str, Tensor], trace: poutine.Trace, plate: str | None
) -> Callable[[Tensor], Tensor]:
    """Return a function that differentiates a number with respect to noise, [examples, dims]."""

    def gradient(total: Tensor) -> Tensor:
        parts = torch.autograd.grad(
            total,
            list(noise.values()),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.cat(
            [
                _by_example(part, trace.nodes[name], plate)
                for name, part in zip(noise, parts, strict=True)
            ],
            1,
        )

    return gradient


def _run_with_noise(
    run_guide: Callable[[poutine.Trace], poutine.Trace],
    guide_trace: poutine.Trace,
    auxiliary: Sequence[str],
) -> tuple[dict[str, Tensor], poutine.Trace]:
    """Return the noise, with gradients, and a trace in which all points are computed from it."""
    noise = {
        name: guide_trace.nodes[name]["value"].detach().clone().requires_grad_()
        for name in auxiliary
    }
    given = guide_trace.copy()
    for name in _deltas(guide_trace):
        given.remove_node(name)
    for name, value in noise.items():
        given.nodes[name] = {**given.nodes[name], "value": value}
    return noise, run_guide(given)


def _by_example(values: Tensor, site: Site, plate: str | None) -> Tensor:
    """Return values of a site as a matrix, [examples, dims]; one row if there is no plate."""
    if plate is None:
        return values.reshape(1, -1)
    dim = next(frame.dim for frame in site["cond_indep_stack"] if frame.name == plate)
    axis = len(site["fn"].batch_shape) + dim
    return values.movedim(axis, 0).reshape(values.shape[axis], -1)


def _points(names: Sequence[str], values: Sequence[Tensor], noise: dict[str, Tensor]) -> list[str]:
    """Return the names of the values that do not depend on the noise."""
    points = []
    for name, value in zip(names, values, strict=True):
        gradients: tuple[Tensor | None, ...] = ()
        if value.requires_grad and noise:
            gradients = torch.autograd.grad(
                (value * torch.rand_like(value)).sum(),
                list(noise.values()),
                retain_graph=True,
                allow_unused=True,
            )
        if not any(gradient is not None and gradient.any() for gradient in gradients):
            points.append(name)
    return points


class _Elementwise(NamedTuple):
    """A function each value u of which depends on one number a of the noise, and on no other's.

    Args:
        slopes: the derivative of the value that depends on a, for each a, [examples, dims].
        places: the place of this value in u, for each a, [examples, dims].
    """

    slopes: Tensor
    places: Tensor

    def in_order(self) -> bool:
        """Return whether each value depends on the noise of the same place."""
        return bool((self.places == torch.arange(self.places.shape[1]).to(self.places)).all())


def _elementwise(u: Tensor, gradient: Callable[[Tensor], Tensor]) -> _Elementwise | None:
    """Return the function that gives u if it is elementwise, up to a permutation; else None.

    If it is, the derivatives of two weighted sums of u have the ratio of the weights of the value
    that depends on a. With weights 1 + d / 256, the ratio tells a digit d of the place of this
    value. The places are then confirmed with random weights.
    """
    dims = u.shape[1]
    index = torch.arange(dims, device=u.device)
    slopes = gradient(u.sum())
    places, factor = torch.zeros_like(slopes, dtype=torch.long), 1
    while factor < dims:
        weights = (1 + (index // factor % 256) / 256).to(u)
        digits = 256 * (gradient((u * weights).sum()) / slopes - 1)
        places += factor * digits.nan_to_num(0.0, 0.0, 0.0).round().clamp(0, 255).long()
        factor *= 256
    if not (places.sort(1).values == index).all():
        return None
    first, second = torch.rand_like(u) + 0.5, torch.rand_like(u) + 0.5
    one, other = (
        gradient((u * weights).sum()) / weights.gather(1, places) for weights in (first, second)
    )
    if not torch.allclose(one, other, rtol=1e-4, atol=1e-6):
        return None
    return _Elementwise(one, places)


def _log_det(
    u: Tensor,
    gradient: Callable[[Tensor], Tensor],
    auxiliary: Sequence[str],
    computed: Sequence[str],
) -> Tensor:
    """Return log |det du/da| of each example, by the whole Jacobian of each of them."""
    dims = u.shape[1]
    if dims > MAX_DIMS:
        raise _not_invertible(auxiliary, computed, f"{dims} dimensions, too many to check")
    jacobian = torch.stack([gradient(u[:, d].sum()) for d in range(dims)], 1)
    weights = torch.rand_like(u[:, :1])  # of the examples: none may depend on another's noise
    together = gradient((weights * u).sum())
    if not torch.allclose(together, weights * jacobian.sum(1), rtol=1e-3, atol=1e-5):
        raise _not_invertible(auxiliary, computed, "examples that share their noise")
    return torch.linalg.slogdet(jacobian.double()).logabsdet.to(u)


def _not_invertible(auxiliary: Sequence[str], computed: Sequence[str], reason: str) -> InputError:
    values = ", ".join(computed) or "no latent site"
    return InputError(
        f"the guide's auxiliary noise ({', '.join(auxiliary)}) has to be an invertible function of "
        f"latent values ({values}), and here are {reason}: no bound follows from such a guide",
        "guide",
    )
