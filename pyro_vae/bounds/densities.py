"""The two ends of annealing, as densities in coordinates in which HMC can move.

    log f_0(u) = log q(z | x) + log |dz/du|,    log f_1(u) = log p(x, z) + log |dz/du|,   z = z(u)

The coordinates u are unconstrained: a positive z is exp(u), and so on, by PyTorch's registered
bijections. The Jacobian is in both densities, so f_1 / f_0 is the importance weight in any
coordinates. All sites of a guide are laid out in one tensor, [chains, examples, D]. Sites that are
points (`Delta`) are functions of the others, as in Pyro's autoguides: their log-density is
subtracted from that of the target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform

from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.pair import Draws, Pair
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.sites import base
from pyro_vae.programs.traces import Program, Site, plates, sample_sites


class Point(NamedTuple):
    """A point u, with both log-densities and their gradients.

    Attributes:
        u: the unconstrained coordinates, shape [chains, batch, D].
        log_q: log f_0, in nats, shape [chains, batch].
        log_p: log f_1, in nats, shape [chains, batch].
        grad_q: the gradient of log f_0, shape [chains, batch, D].
        grad_p: the gradient of log f_1, shape [chains, batch, D].
    """

    u: Tensor
    log_q: Tensor
    log_p: Tensor
    grad_q: Tensor
    grad_p: Tensor


@dataclass(frozen=True)
class _Site:
    """The place of a site's coordinates: u[:, :, first:end], as [chains, batch, *shape]."""

    first: int
    end: int
    shape: torch.Size
    dim: int | None  # the plate's dimension in the batch shape, from the right; None: no plate


class Densities:
    """log q(z|x) and log p(x, z) of a Pyro model and guide, and their gradients.

    Args:
        pair: the model and the guide. All sites of the guide are continuous.
        arguments: some examples, from which the layout of the programs is read.

    Raises:
        InputError: if a site is discrete, or has a support without unconstrained coordinates.
    """

    def __init__(self, pair: Pair, arguments: Arguments) -> None:
        self.pair = pair
        self._sites: dict[str, _Site] = {}
        first = 0
        with torch.no_grad(), preserve_rng_state(arguments):
            draws = pair.draw(arguments, 2)
        for name, node in sample_sites(draws.runs[0][1]):
            if isinstance(base(node["fn"]), Delta):
                continue
            dims = [frame.dim for frame in plates(node) if frame.name == pair.plate]
            dim = dims[0] if dims else None
            u = _bijection(name, node["fn"]).inv(node["value"])
            if draws.batch_dims == 0:
                u = u.unsqueeze(0)
            shape = self._examples_first(u, node, dim).shape[2:]
            self._sites[name] = _Site(first, first + shape.numel(), shape, dim)
            first += shape.numel()
        self.dims = first
        with preserve_rng_state(arguments):
            u = self.draw(2, arguments)
            self._log_densities(u, arguments)  # run once with Pyro's validation

    def draw(self, num_chains: int, arguments: Arguments) -> Tensor:
        """Draw u from f_0, shape [num_chains, batch, D]."""
        with torch.no_grad():
            draws = self.pair.draw(arguments, num_chains)
            return self._gather(lambda name, trace: trace.nodes[name]["value"], draws)

    def coordinates_of(
        self, latents: dict[str, Tensor], num_chains: int, arguments: Arguments
    ) -> Tensor:
        """Return the u of given values of the latent sites, the same for all chains.

        Raises:
            InputError: if the guide computes its latent sites from auxiliary sites, whose values
                are unknown.
        """
        for name in self._sites:
            if name not in latents:
                raise InputError(
                    f"no value of the guide's auxiliary site '{name}' is known: start from the "
                    "prior",
                    "start",
                )

        def given(name: str, trace: poutine.Trace) -> Tensor:
            shape = trace.nodes[name]["value"].shape
            if draws.batch_dims == 0:
                return latents[name].reshape(shape)
            return latents[name].reshape(shape[1:]).expand(shape)

        with torch.no_grad():
            draws = self.pair.draw(arguments, num_chains)
            return self._gather(given, draws)

    def point(self, u: Tensor, arguments: Arguments) -> Point:
        """Return both log-densities at u, and their gradients.

        Values may be non-finite after a divergent HMC step, so Pyro's validation is off.
        """
        with torch.enable_grad(), pyro.validation_enabled(False):
            u = u.detach().requires_grad_()
            log_q, log_p = self._log_densities(u, arguments)
            (grad_q,) = torch.autograd.grad(log_q.sum(), u, retain_graph=True)
            (grad_p,) = torch.autograd.grad(log_p.sum(), u)
        return Point(u.detach(), log_q.detach(), log_p.detach(), grad_q, grad_p)

    def _log_densities(self, u: Tensor, arguments: Arguments) -> tuple[Tensor, Tensor]:
        """Return log f_0 and log f_1 at u, each of shape [chains, batch]."""
        substitutions = []

        def substitute(chain: int | None) -> Messenger:
            substitution = _Substitution(self._sites, u if chain is None else u[chain])
            substitutions.append(substitution)
            return substitution

        draws = self.pair.draw(arguments, len(u), around_guide=substitute)
        log_q = draws.log_q(lambda site: not isinstance(base(site["fn"]), Delta))
        log_p = draws.log_p() - draws.log_q(lambda site: isinstance(base(site["fn"]), Delta))
        log_dets = [substitution.log_det for substitution in substitutions]
        log_det = log_dets[0] if draws.batch_dims else torch.stack(log_dets)
        return log_q + log_det, log_p + log_det

    def _gather(self, value: Callable[[str, poutine.Trace], Tensor], draws: Draws) -> Tensor:
        """Return the u of the values of all sites, with the bijections of their traces."""
        runs = []
        for _, trace in draws.runs:
            parts = []
            for name, site in self._sites.items():
                node = trace.nodes[name]
                u = _bijection(name, node["fn"]).inv(value(name, trace))
                u = u if draws.batch_dims else u.unsqueeze(0)
                u = self._examples_first(u, node, site.dim)
                parts.append(u.reshape(*u.shape[:2], -1))
            runs.append(torch.cat(parts, 2))
        return torch.cat(runs)

    def _examples_first(self, u: Tensor, node: Site, dim: int | None) -> Tensor:
        """Return coordinates [chains, .., batch, ..] as [chains, batch, ..]."""
        if dim is None:
            return u.unsqueeze(1)
        batch_dims = len(node["fn"].batch_shape) + (0 if self.pair.vectorize else 1)
        return u.movedim(batch_dims + dim, 1)


class _Substitution(Messenger):
    """Gives the sites of a guide the values z(u), and sums the Jacobian's log-determinant.

    Args:
        sites: the places of the sites' coordinates.
        u: the coordinates, [chains, batch, D], or [batch, D] for one chain.
    """

    def __init__(self, sites: dict[str, _Site], u: Tensor) -> None:
        super().__init__()
        self.sites = sites
        self.u = u
        self.log_det = torch.zeros(())  # of dz/du, shape [chains, batch] or [batch]

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        site = self.sites.get(msg["name"])
        if site is None:
            return
        chains = self.u.dim() - 2
        part = self.u[..., site.first : site.end].reshape(*self.u.shape[:-1], *site.shape)
        if site.dim is None:
            part, axis = part.squeeze(chains), None
        else:
            axis = len(msg["fn"].batch_shape) + site.dim
            part = part.movedim(chains, axis)
        transform = _bijection(msg["name"], msg["fn"])
        msg["value"] = transform(part)
        msg["done"] = True
        log_det = transform.log_abs_det_jacobian(part, msg["value"])
        kept = {*range(chains)} | ({axis} if axis is not None else set())
        others = [dim for dim in range(log_det.dim()) if dim not in kept]
        log_det = log_det.sum(others) if others else log_det
        self.log_det = self.log_det + (log_det if axis is not None else log_det.unsqueeze(-1))


def prior_of(model: Program) -> Program:
    """Return a program that draws a model's latent sites from its prior."""
    return poutine.block(model, hide_fn=_is_observed_sample)


def _is_observed_sample(msg: dict[str, Any]) -> bool:
    return msg["type"] == "sample" and msg["is_observed"]


def simulate(model: Program, arguments: Arguments) -> tuple[dict[str, Tensor], Arguments]:
    """Draw latent sites and data from a model: z is an exact draw from p(z|x) for the drawn x.

    Args:
        model: a Pyro program that observes one or more of its arguments, unchanged.
        arguments: a template of the data. It has the number, shape and type of the examples to
            draw; its values can be any that the model accepts.

    Returns:
        The values of the latent sites, and the arguments with the observed ones replaced by draws.

    Raises:
        InputError: if the model observes something else than its arguments.
    """
    with torch.no_grad():
        observed = {
            name: node["value"]
            for name, node in sample_sites(arguments.call(poutine.trace(model).get_trace))
            if node["is_observed"]
        }
        trace = arguments.call(poutine.trace(poutine.uncondition(model)).get_trace)
    tensors = list(arguments.tensors())
    for name, value in observed.items():
        places = [
            i
            for i, tensor in enumerate(tensors)
            if tensor is value
            or (tensor.shape == value.shape and tensor.dtype == value.dtype and tensor.equal(value))
        ]
        drawn = trace.nodes[name]["value"]
        if len(places) != 1 or drawn.shape != value.shape:
            raise InputError(
                "data can be simulated from a model that observes its arguments as they are, and "
                f"site '{name}' observes something else",
                "model",
            )
        tensors[places[0]] = drawn.to(value.dtype)
    if not observed:
        raise InputError("data can be simulated from a model with an observed site", "model")
    latents = {n: node["value"] for n, node in sample_sites(trace) if n not in observed}
    return latents, arguments.with_tensors(tuple(tensors))


def _bijection(name: str, fn: Any) -> Transform:
    """Return the bijection from unconstrained coordinates to the support of a site."""
    support = fn.support
    if support.is_discrete:
        raise InputError(f"site '{name}' is discrete, and HMC moves continuous variables only")
    try:
        return biject_to(support)
    except NotImplementedError as error:
        raise InputError(
            f"site '{name}' is in {support}, for which there are no unconstrained coordinates"
        ) from error
