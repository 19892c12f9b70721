"""Where annealing begins and where it ends, as densities in coordinates that HMC can move.

    log f_0(u) = log q(z | x) + log |dz/du|,    log f_1(u) = log p(x, z) + log |dz/du|,   z = z(u)

u is unconstrained: a positive z is exp(u), and so on, by PyTorch's registered bijections. The
Jacobian is in both, so that f_1 / f_0 is the importance weight, in whatever coordinates. All that a
guide samples is laid out in one tensor, [chains, examples, D]. Points (`Delta`) are functions of
the rest, as in Pyro's autoguides: their log-density belongs to the target.
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
from pyro_vae.programs.random_streams import undisturbed
from pyro_vae.programs.traces import (
    PARTICLES,
    Program,
    log_prob_per_example,
    plate_nesting,
    sample_sites,
    traces,
)


class Point(NamedTuple):
    """A point u, and what is known of the two densities there.

    Attributes:
        u: shape [chains, batch, D].
        log_q: log f_0, in nats, shape [chains, batch].
        log_p: log f_1, the same.
        grad_q: the gradient of log f_0, as u.
        grad_p: that of log f_1.
    """

    u: Tensor
    log_q: Tensor
    log_p: Tensor
    grad_q: Tensor
    grad_p: Tensor


@dataclass(frozen=True)
class _Site:
    """Where a site's coordinates are: u[:, :, start:stop], as [chains, batch, *shape]."""

    start: int
    stop: int
    shape: torch.Size
    axis: int  # of the data plate in the site's values


class Densities:
    """log q(z|x) and log p(x, z) of a Pyro model and guide, and their gradients.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`, whose sites are all continuous.
        x: some examples, to see how the programs are laid out.
        plate: the name of the data plate.

    Raises:
        InputError: if a site is discrete, or is somewhere that has no unconstrained coordinates.
        ValueError: if a site is not in the data plate, or model and guide do not match.
    """

    def __init__(self, model: Program, guide: Program, x: Tensor, plate: str = "data") -> None:
        self.model = model
        self.guide = guide
        self.plate = plate
        self.nesting = plate_nesting(model, guide, x)
        self._sites: dict[str, _Site] = {}
        start = 0
        with torch.no_grad(), undisturbed(x):
            guide_trace, _ = self._run(2, x)
        for name, node in sample_sites(guide_trace):
            if isinstance(node["fn"], Delta):
                continue
            u = _coordinates(name, node["fn"]).inv(node["value"])
            axis = self.nesting + 1 + _plate_dim(node, plate)
            shape = u.movedim(axis, 1).shape[2:]
            self._sites[name] = _Site(start, start + shape.numel(), shape, axis)
            start += shape.numel()
        self.dims = start
        with undisturbed(x):
            self._log_densities(self.draw(2, x), x)  # Pyro's checks, once

    def draw(self, num_chains: int, x: Tensor) -> Tensor:
        """Draw u from f_0, shape [num_chains, batch, D]."""
        with torch.no_grad():
            trace, _ = self._run(num_chains, x)
            return self._gather(lambda name: trace.nodes[name]["value"], trace)

    def at(self, latents: dict[str, Tensor], num_chains: int, x: Tensor) -> Tensor:
        """Return the u of given values of the latent sites, the same for all chains.

        Raises:
            InputError: if the guide makes its latent sites of auxiliary ones, which cannot be told.
        """
        for name in self._sites:
            if name not in latents:
                raise InputError(f"no value of the guide's auxiliary site '{name}' is known")
        with torch.no_grad():
            trace, _ = self._run(num_chains, x)
            drawn = {name: trace.nodes[name]["value"].shape for name in self._sites}
            given = {name: latents[name].reshape(s[1:]).expand(s) for name, s in drawn.items()}
            return self._gather(given.__getitem__, trace)

    def point(self, u: Tensor, x: Tensor) -> Point:
        """Return the two log-densities at u, and their gradients.

        Where HMC went astray they are not finite, about which Pyro is not asked.
        """
        with torch.enable_grad(), pyro.validation_enabled(False):
            u = u.detach().requires_grad_()
            log_q, log_p = self._log_densities(u, x)
            (grad_q,) = torch.autograd.grad(log_q.sum(), u, retain_graph=True)
            (grad_p,) = torch.autograd.grad(log_p.sum(), u)
        return Point(u.detach(), log_q.detach(), log_p.detach(), grad_q, grad_p)

    def _log_densities(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        put = _Put(self._sites, u)
        guide_trace, model_trace = self._run(len(u), x, put)
        points = guide_trace.copy()
        for name, node in list(guide_trace.nodes.items()):
            if node["type"] == "sample":
                other = guide_trace if isinstance(node["fn"], Delta) else points
                other.remove_node(name)
        dims = self.nesting + 1
        log_q = log_prob_per_example(guide_trace, self.plate, dims)
        log_p = log_prob_per_example(model_trace, self.plate, dims)
        log_p = log_p - log_prob_per_example(points, self.plate, dims)
        return log_q + put.log_det, log_p + put.log_det

    def _run(
        self, num_chains: int, x: Tensor, put: Messenger | None = None
    ) -> tuple[poutine.Trace, poutine.Trace]:
        particles = pyro.plate(PARTICLES, num_chains, dim=-1 - self.nesting)
        guide = particles(self.guide)
        model_trace, guide_trace = traces(particles(self.model), put(guide) if put else guide, x)
        return guide_trace, model_trace

    def _gather(self, value: Callable[[str], Tensor], trace: poutine.Trace) -> Tensor:
        parts = []
        for name, site in self._sites.items():
            u = _coordinates(name, trace.nodes[name]["fn"]).inv(value(name)).movedim(site.axis, 1)
            parts.append(u.reshape(*u.shape[:2], -1))
        return torch.cat(parts, 2)


class _Put(Messenger):
    """Give a guide's sites the values that u stands for."""

    def __init__(self, sites: dict[str, _Site], u: Tensor) -> None:
        super().__init__()
        self.sites = sites
        self.u = u
        self.log_det = torch.zeros(())  # of the Jacobian dz/du, [chains, batch]

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        site = self.sites.get(msg["name"])
        if site is None:
            return
        part = self.u[:, :, site.start : site.stop].reshape(*self.u.shape[:2], *site.shape)
        part = part.movedim(1, site.axis)
        transform = _coordinates(msg["name"], msg["fn"])
        msg["value"] = transform(part)
        msg["done"] = True
        log_det = transform.log_abs_det_jacobian(part, msg["value"])
        others = [dim for dim in range(log_det.dim()) if dim not in (0, site.axis)]
        self.log_det = self.log_det + (log_det.sum(others) if others else log_det)


def prior_of(model: Program) -> Program:
    """Return a program that draws a model's latent sites from its prior."""
    return poutine.block(model, hide_fn=lambda msg: msg["type"] == "sample" and msg["is_observed"])


def simulate(model: Program, x: Tensor, plate: str = "data") -> tuple[dict[str, Tensor], Tensor]:
    """Draw latent sites and data from a model: z is an exact draw from p(z|x), for its own x.

    Args:
        model: a Pyro program, called as `model(x)`, which observes x at one site, as it is.
        x: how many examples to draw, of what shape and type; such values as the model takes.
        plate: the name of the data plate.

    Returns:
        The latent sites, and the data, shaped as x.

    Raises:
        InputError: if the model does not observe x at one site.
    """
    with torch.no_grad():
        observed = [
            name
            for name, node in sample_sites(poutine.trace(model).get_trace(x))
            if node["is_observed"]
        ]
        trace = poutine.trace(poutine.uncondition(model)).get_trace(x)
    if len(observed) != 1 or trace.nodes[observed[0]]["value"].shape != x.shape:
        raise InputError(
            f"data can be simulated from a model that observes x at one site, and this one has "
            f"{', '.join(observed) or 'none'}"
        )
    latents = {n: node["value"] for n, node in sample_sites(trace) if n != observed[0]}
    return latents, trace.nodes[observed[0]]["value"].to(x.dtype)


def _coordinates(name: str, fn: Any) -> Transform:
    support = fn.support
    if support.is_discrete:
        raise InputError(f"site '{name}' is discrete, and HMC moves continuous variables only")
    try:
        return biject_to(support)
    except NotImplementedError as error:
        raise InputError(
            f"site '{name}' is in {support}, for which there are no unconstrained coordinates"
        ) from error


def _plate_dim(node: dict[str, Any], plate: str) -> int:
    return next(f.dim for f in node["cond_indep_stack"] if f.vectorized and f.name == plate)
