"""The two ends of annealing, as densities in coordinates in which chains can move.

    log f_0(u) = log q(z | x) + log |dz/du|,    log f_1(u) = log p(x, z) + log |dz/du|,   z = z(u)

The coordinates of each kind of site are in `coordinates`. The change from z to u is in both
densities, so f_1 / f_0 is the importance weight in any coordinates. All sites of a guide are laid
out in one tensor, [chains, examples, D]: first those that HMC moves, then the weights of discrete
values. Sites that are points (`Delta`) are functions of the others, as in Pyro's autoguides: their
log-density is subtracted from that of the target.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.bounds.coordinates import Circle, Coordinates, Values, check_model, coordinates
from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.masks import mask_of
from pyro_vae.programs.pair import Draws, Pair
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.sites import base
from pyro_vae.programs.traces import Program, Site, plates, sample_sites


class Point(NamedTuple):
    """A point u, with both log-densities and their gradients.

    Attributes:
        u: the coordinates, shape [chains, batch, D].
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

    coordinates: Coordinates
    first: int
    end: int
    shape: torch.Size
    dim: int | None  # the plate's dimension in the batch shape, from the right; None: no plate


class Densities:
    """log q(z|x) and log p(x, z) of a Pyro model and guide, and their gradients.

    Args:
        pair: the model and the guide.
        arguments: some examples, from which the layout of the programs is read.

    Attributes:
        dims: D, the number of coordinates of an example.
        continuous: the number of coordinates that HMC moves: u[:, :, :continuous].
        variables: the places of the discrete variables in u. Each entry stands for u[:, :, a:b],
            the weights of variables that have `count` values each, as (a, b, count).

    Raises:
        InputError: if a site has no coordinates, or another support in the guide than in the model,
            or a density that cannot be differentiated.
    """

    def __init__(self, pair: Pair, arguments: Arguments) -> None:
        if pair.summed_out:  # chains may get where these sites have nothing to be drawn from
            pair = replace(pair, guide=_FirstValues(pair.summed_out)(pair.guide))
        self.pair = pair
        with torch.no_grad(), preserve_rng_state(arguments):
            self._check_masks(arguments)
            self._sites = self._layout(pair.draw(arguments, 2))
        sites = self._sites.values()
        self.dims = max((site.end for site in sites), default=0)
        self.variables = [
            (site.first, site.end, len(site.coordinates.values))
            for site in sites
            if isinstance(site.coordinates, Values)
        ]
        self.continuous = min((first for first, _, _ in self.variables), default=self.dims)
        self._circles = [site for site in sites if isinstance(site.coordinates, Circle)]
        with preserve_rng_state(arguments):
            u = self.draw(2, arguments)
            self._log_densities(u, arguments)  # run once with Pyro's validation
            try:
                self.point(u, arguments)
            except (NotImplementedError, RuntimeError) as error:
                raise InputError(
                    f"log q(z|x) or log p(x, z) cannot be differentiated: {error}"
                ) from error

    def _check_masks(self, arguments: Arguments) -> None:
        """Refuse masks that depend on latent values: f_t would have no density under them."""
        masks: list[dict[str, Tensor | None]] = []
        for _ in range(4):
            model, _ = self.pair.draw(arguments, 1, always_a_dimension=False).runs[0]
            sites = sample_sites(model)
            masks.append({n: mask_of(site) for n, site in sites if not site["is_observed"]})
        for name, first in masks[0].items():
            for other in (drawn[name] for drawn in masks[1:]):
                if first is not None and other is not None and not torch.equal(first, other):
                    raise InputError(
                        f"the mask of site '{name}' depends on latent values, and chains cannot "
                        "move under such a mask",
                        "model",
                    )

    def _layout(self, draws: Draws) -> dict[str, _Site]:
        """Lay the sites of the guide out, and check that those of the model have the same measure.

        Args:
            draws: two draws.
        """
        model, guide = draws.runs[0]
        found = {
            name: coordinates(name, node["fn"], node["value"])
            for name, node in sample_sites(guide)
            if not isinstance(base(node["fn"]), Delta)
        }
        for name, node in sample_sites(model):
            if not node["is_observed"]:
                guide_fn = guide.nodes[name]["fn"] if name in guide.nodes else None
                check_model(found.get(name), guide_fn, name, node["fn"], node["value"])
        sites: dict[str, _Site] = {}
        first = 0
        for name in sorted(found, key=lambda name: isinstance(found[name], Values)):
            node = guide.nodes[name]
            dims = [frame.dim for frame in plates(node) if frame.name == self.pair.plate]
            dim = dims[0] if dims else None
            u = found[name].of(node["fn"], node["value"])
            if draws.batch_dims == 0:
                u = u.unsqueeze(0)
            shape = self._examples_first(u, node, dim).shape[2:]
            sites[name] = _Site(found[name], first, first + shape.numel(), shape, dim)
            first += shape.numel()
        return sites

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
            grad_q, grad_p = _gradient(log_q, u), _gradient(log_p, u)
        return Point(u.detach(), log_q.detach(), log_p.detach(), grad_q, grad_p)

    def add(self, u: Tensor, change: Tensor) -> Tensor:
        """Add a change to the coordinates that HMC moves; an angle stays between -pi and pi.

        Args:
            u: the coordinates, shape [chains, batch, D].
            change: what is added, shape [chains, batch, continuous].
        """
        moved = u[:, :, : self.continuous] + change
        for site in self._circles:
            angle = moved[:, :, site.first : site.end]
            around = (angle + math.pi).remainder(2 * math.pi) - math.pi
            moved[:, :, site.first : site.end] = torch.where(angle.abs() > math.pi, around, angle)
        return torch.cat([moved, u[:, :, self.continuous :]], -1)

    def scale(self, u: Tensor) -> Tensor:
        """Return the scale of each coordinate that HMC moves, shape [batch, continuous].

        Args:
            u: draws, shape [draws, batch, D].
        """
        moving = u[:, :, : self.continuous]
        scale = moving.std(0) if self.continuous else torch.zeros_like(moving[0])
        for site in self._circles:  # the standard deviation, if angles are nearly normal
            angle = moving[:, :, site.first : site.end]
            length = torch.hypot(angle.cos().mean(0), angle.sin().mean(0)).clamp(0.05, 1)
            scale[:, site.first : site.end] = (-2 * length.log()).sqrt()
        return scale.clamp(min=torch.finfo(scale.dtype).tiny ** 0.5)

    def draws_at(self, u: Tensor, arguments: Arguments) -> "tuple[Draws, list[_Substitution]]":
        """Run both programs with the values at u, shape [chains, batch, D]."""
        substitutions = []

        def substitute(chain: int | None) -> Messenger:
            substitution = _Substitution(self._sites, u if chain is None else u[chain])
            substitutions.append(substitution)
            return substitution

        return self.pair.draw(arguments, len(u), around_guide=substitute), substitutions

    def _log_densities(self, u: Tensor, arguments: Arguments) -> tuple[Tensor, Tensor]:
        """Return log f_0 and log f_1 at u, each of shape [chains, batch]."""
        draws, substitutions = self.draws_at(u, arguments)
        for substitution, run in zip(substitutions, draws.runs, strict=True):
            substitution.set_log_probs(*run)
        log_q = draws.log_q(lambda site: not isinstance(base(site["fn"]), Delta))
        log_p = draws.log_p() - draws.log_q(lambda site: isinstance(base(site["fn"]), Delta))
        log_dets = [substitution.log_det for substitution in substitutions]
        if draws.batch_dims:
            log_det = log_dets[0]
        else:
            log_det = torch.stack([log_det.expand_as(log_q[0]) for log_det in log_dets])
        return log_q + log_det, log_p + log_det

    def _gather(self, value: Callable[[str, poutine.Trace], Tensor], draws: Draws) -> Tensor:
        """Return the u of the values of all sites, with the distributions of their traces."""
        runs = []
        for _, trace in draws.runs:
            parts = []
            for name, site in self._sites.items():
                node = trace.nodes[name]
                u = site.coordinates.of(node["fn"], value(name, trace))
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


class _FirstValues(Messenger):
    """Gives discrete sites the first value of their support, without a draw.

    Args:
        names: the names of the sites.
    """

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.names and not msg["done"]:
            msg["value"] = msg["fn"].enumerate_support()[0]
            msg["done"] = True


class _Substitution(Messenger):
    """Gives the sites of a guide the values z(u), and sums the log-densities of the change.

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
        part, axis = self._part(site, msg["fn"])
        msg["value"], log_det = site.coordinates.value(msg["fn"], part)
        msg["done"] = True
        kept = {*range(self.u.dim() - 2)} | ({axis} if axis is not None else set())
        others = [dim for dim in range(log_det.dim()) if dim not in kept]
        log_det = log_det.sum(others) if others else log_det
        self.log_det = self.log_det + (log_det if axis is not None else log_det.unsqueeze(-1))

    def set_log_probs(self, *traces: poutine.Trace) -> None:
        """Set the log-probabilities of discrete sites, with gradients by the weights of values."""
        for name, site in self.sites.items():
            if not isinstance(site.coordinates, Values):
                continue
            part, _ = self._part(site, traces[-1].nodes[name]["fn"])
            for node in (trace.nodes[name] for trace in traces if name in trace.nodes):
                log_prob = site.coordinates.log_prob(node["fn"], node["value"], part)
                node["unscaled_log_prob"] = log_prob
                node["log_prob"] = scale_and_mask(log_prob, node["scale"], node["mask"])

    def _part(self, site: _Site, fn: Any) -> tuple[Tensor, int | None]:
        """Return the coordinates of a site, and their dimension of the examples, if there is one.

        Args:
            site: the site.
            fn: its distribution in the guide.
        """
        chains = self.u.dim() - 2
        part = self.u[..., site.first : site.end].reshape(*self.u.shape[:-1], *site.shape)
        if site.dim is None:
            return part.squeeze(chains), None
        axis = len(fn.batch_shape) + site.dim
        return part.movedim(chains, axis), axis


def _gradient(log: Tensor, u: Tensor) -> Tensor:
    """Return the gradient of log-densities, zero where they do not depend on u."""
    if not log.requires_grad:
        return torch.zeros_like(u)
    (gradient,) = torch.autograd.grad(log.sum(), u, retain_graph=True, materialize_grads=True)
    return gradient


def prior_of(model: Program) -> Program:
    """Return a program that draws a model's latent sites from its prior."""
    return poutine.block(model, hide_fn=_is_observed_sample)


def _is_observed_sample(msg: dict[str, Any]) -> bool:
    return msg["type"] == "sample" and msg["is_observed"]
