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
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.traces import (
    PARTICLES,
    Program,
    log_prob_per_example,
    plate_nesting,
    sample_sites,
    traces,
)


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
    axis: int  # the dimension of the data plate in the site's values


class Densities:
    """log q(z|x) and log p(x, z) of a Pyro model and guide, and their gradients.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`, whose sites are all continuous.
        x: some examples, from which the layout of the programs is read.
        plate: the name of the data plate.

    Raises:
        InputError: if a site is discrete, or has a support without unconstrained coordinates.
        ValueError: if a site is not in the data plate, or model and guide do not match.
    """

    def __init__(self, model: Program, guide: Program, x: Tensor, plate: str = "data") -> None:
        self.model = model
        self.guide = guide
        self.plate = plate
        self.nesting = plate_nesting(model, guide, x)
        self._sites: dict[str, _Site] = {}
        first = 0
        with torch.no_grad(), preserve_rng_state(x):
            guide_trace, _ = self._run(2, x)
        for name, node in sample_sites(guide_trace):
            if isinstance(node["fn"], Delta):
                continue
            u = _bijection(name, node["fn"]).inv(node["value"])
            axis = self.nesting + 1 + _plate_dim(node, plate)
            shape = u.movedim(axis, 1).shape[2:]
            self._sites[name] = _Site(first, first + shape.numel(), shape, axis)
            first += shape.numel()
        self.dims = first
        with preserve_rng_state(x):
            self._log_densities(self.draw(2, x), x)  # run once with Pyro's validation

    def draw(self, num_chains: int, x: Tensor) -> Tensor:
        """Draw u from f_0, shape [num_chains, batch, D]."""
        with torch.no_grad():
            trace, _ = self._run(num_chains, x)
            return self._gather(lambda name: trace.nodes[name]["value"], trace)

    def coordinates_of(self, latents: dict[str, Tensor], num_chains: int, x: Tensor) -> Tensor:
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
        with torch.no_grad():
            trace, _ = self._run(num_chains, x)
            shapes = {name: trace.nodes[name]["value"].shape for name in self._sites}
            given = {name: latents[name].reshape(s[1:]).expand(s) for name, s in shapes.items()}
            return self._gather(given.__getitem__, trace)

    def point(self, u: Tensor, x: Tensor) -> Point:
        """Return both log-densities at u, and their gradients.

        Values may be non-finite after a divergent HMC step, so Pyro's validation is off.
        """
        with torch.enable_grad(), pyro.validation_enabled(False):
            u = u.detach().requires_grad_()
            log_q, log_p = self._log_densities(u, x)
            (grad_q,) = torch.autograd.grad(log_q.sum(), u, retain_graph=True)
            (grad_p,) = torch.autograd.grad(log_p.sum(), u)
        return Point(u.detach(), log_q.detach(), log_p.detach(), grad_q, grad_p)

    def _log_densities(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log f_0 and log f_1 at u, each of shape [chains, batch]."""
        substitution = _Substitution(self._sites, u)
        guide_trace, model_trace = self._run(len(u), x, substitution)
        points = guide_trace.copy()
        for name, node in list(guide_trace.nodes.items()):
            if node["type"] == "sample":
                other = guide_trace if isinstance(node["fn"], Delta) else points
                other.remove_node(name)
        dims = self.nesting + 1
        log_q = log_prob_per_example(guide_trace, self.plate, dims)
        log_p = log_prob_per_example(model_trace, self.plate, dims)
        log_p = log_p - log_prob_per_example(points, self.plate, dims)
        return log_q + substitution.log_det, log_p + substitution.log_det

    def _run(
        self, num_chains: int, x: Tensor, substitution: Messenger | None = None
    ) -> tuple[poutine.Trace, poutine.Trace]:
        """Return traces of guide and model, perhaps with values put at the guide's sites."""
        particles = pyro.plate(PARTICLES, num_chains, dim=-1 - self.nesting)
        guide = particles(self.guide)
        if substitution is not None:
            guide = substitution(guide)
        model_trace, guide_trace = traces(particles(self.model), guide, x)
        return guide_trace, model_trace

    def _gather(self, value: Callable[[str], Tensor], trace: poutine.Trace) -> Tensor:
        """Return the u of the values of all sites, with the bijections of a trace."""
        parts = []
        for name, site in self._sites.items():
            u = _bijection(name, trace.nodes[name]["fn"]).inv(value(name)).movedim(site.axis, 1)
            parts.append(u.reshape(*u.shape[:2], -1))
        return torch.cat(parts, 2)


class _Substitution(Messenger):
    """Gives the sites of a guide the values z(u), and sums the Jacobian's log-determinant."""

    def __init__(self, sites: dict[str, _Site], u: Tensor) -> None:
        super().__init__()
        self.sites = sites
        self.u = u
        self.log_det = torch.zeros(())  # of dz/du, shape [chains, batch]

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        site = self.sites.get(msg["name"])
        if site is None:
            return
        part = self.u[:, :, site.first : site.end].reshape(*self.u.shape[:2], *site.shape)
        part = part.movedim(1, site.axis)
        transform = _bijection(msg["name"], msg["fn"])
        msg["value"] = transform(part)
        msg["done"] = True
        log_det = transform.log_abs_det_jacobian(part, msg["value"])
        others = [dim for dim in range(log_det.dim()) if dim not in (0, site.axis)]
        self.log_det = self.log_det + (log_det.sum(others) if others else log_det)


def prior_of(model: Program) -> Program:
    """Return a program that draws a model's latent sites from its prior."""
    return poutine.block(model, hide_fn=_is_observed_sample)


def _is_observed_sample(msg: dict[str, Any]) -> bool:
    return msg["type"] == "sample" and msg["is_observed"]


def simulate(model: Program, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Draw latent sites and data from a model: z is an exact draw from p(z|x) for the drawn x.

    Args:
        model: a Pyro program, called as `model(x)`, which observes x, unchanged, at one site.
        x: a template of the data. It has the number, shape and type of the examples to draw; its
            values can be any that the model accepts.

    Returns:
        The values of the latent sites, and the data, in the shape of x.

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
            "data can be simulated from a model that observes x at one site; the observed sites of "
            f"this one are: {', '.join(observed) or 'none'}",
            "model",
        )
    latents = {n: node["value"] for n, node in sample_sites(trace) if n != observed[0]}
    return latents, trace.nodes[observed[0]]["value"].to(x.dtype)


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


def _plate_dim(node: dict[str, Any], plate: str) -> int:
    return next(f.dim for f in node["cond_indep_stack"] if f.vectorized and f.name == plate)
