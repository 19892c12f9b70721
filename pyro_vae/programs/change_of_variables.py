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
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from pyro_vae.errors import InputError

MAX_DIMS = 4096  # dimensions of the noise of one example for which the Jacobian is computed

Site = dict[str, Any]


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
    with torch.enable_grad():
        noise, trace = _run_with_noise(run_guide, guide_trace, auxiliary, computed)
        coordinates, log_dets = [], []
        for name in computed:
            site = trace.nodes[name]
            transform = biject_to(model_trace.nodes[name]["fn"].support)
            u = transform.inv(site["value"])
            log_det = transform.log_abs_det_jacobian(u, site["value"])
            coordinates.append(_by_example(u, site, plate))
            log_dets.append(_by_example(log_det, site, plate).sum(1))
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
        leaves = list(noise.values())

        def gradient(total: Tensor) -> Tensor:
            """Return the gradient with respect to the noise, shape [examples, dims]."""
            parts = torch.autograd.grad(
                total, leaves, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            return torch.cat(
                [
                    _by_example(part, trace.nodes[name], plate)
                    for name, part in zip(noise, parts, strict=True)
                ],
                1,
            )

        log_det = _log_det_of_diagonal(u, gradient)
        elementwise = log_det is not None
        if log_det is None:
            log_det = _log_det(u, gradient, auxiliary, computed)
        log_density = sum(
            _by_example(
                trace.nodes[name]["fn"].log_prob(trace.nodes[name]["value"]),
                trace.nodes[name],
                plate,
            ).sum(1)
            for name in computed
        )
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
    if not elementwise:
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
    with torch.enable_grad():
        noise, trace = _run_with_noise(run_guide, guide_trace, auxiliary, computed)
        return _points(computed, [trace.nodes[name]["value"] for name in computed], noise)


def _run_with_noise(
    run_guide: Callable[[poutine.Trace], poutine.Trace],
    guide_trace: poutine.Trace,
    auxiliary: Sequence[str],
    computed: Sequence[str],
) -> tuple[dict[str, Tensor], poutine.Trace]:
    """Return the noise, with gradients, and a trace in which the sites are computed from it."""
    noise = {
        name: guide_trace.nodes[name]["value"].detach().clone().requires_grad_()
        for name in auxiliary
    }
    given = guide_trace.copy()
    for name in computed:
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


def _log_det_of_diagonal(u: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Return log |det du/da| of each example if u depends on a elementwise, in order; else None."""
    first, second = torch.rand_like(u) + 0.5, torch.rand_like(u) + 0.5
    one, other = (gradient((u * weights).sum()) / weights for weights in (first, second))
    if not torch.allclose(one, other, rtol=1e-4, atol=1e-6):
        return None
    return one.abs().log().sum(1)


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
