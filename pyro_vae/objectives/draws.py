"""Draws from the guide, weighed by both programs, and the gradients that are made of them.

Every gradient estimator here is three weights for each draw k of each example:

    model:  sum_k a_k grad_theta log p(x, z_k)
    guide:  sum_k b_k (d log w_k / d z_k) (d z_k / d phi)  +  sum_k s_k grad_phi log q(z_k | x)

The first sum over phi goes along the path from phi through z; in the second, the score, z is held
fixed. Plain reparameterisation has s = -b. The score has mean zero where s is constant, and
sticking the landing (Roeder, Wu & Duvenaud 2017) leaves it out; where s depends on the draws, it
can be turned into more of the path (DReG, Tucker et al. 2019).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.traces import (
    PARTICLES,
    Program,
    log_prob_per_example,
    per_example,
    sample_sites,
    traces,
    with_values,
)

Site = dict[str, Any]


class Draws:
    """K draws of the latent variables of each example.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`.
        x: the data, shape [batch, *event].
        count: K.
        nesting: how many dimensions the programs' plates take; of no matter for a single draw,
            for which they are run as they are.
        path: whether gradients through z reach the guide; `surrogate` may then weigh them.

    Attributes:
        model: the trace of the model.
        guide: the trace of the guide.
        log_p: log p(x, z), nats, shape [K, batch].
        log_q: log q(z|x), the same.

    Raises:
        InputError: if a site has a scale of its own, which would make the loss no bound.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        x: Tensor,
        count: int,
        nesting: int,
        *,
        path: bool = True,
    ) -> None:
        if count > 1:
            particles = pyro.plate(PARTICLES, count, dim=-1 - nesting)
            model, guide = particles(model), particles(guide)
        self.batch_dims = nesting + 1 if count > 1 else 0
        self._program, self._x = guide, x
        self._ratio: list[Tensor] = []  # b / a, once it is known
        tap = partial(_tap, self._ratio, self.batch_dims) if path else Tensor.detach
        self.model, self.guide = traces(model, guide, x, tap)
        for name, site in [*sample_sites(self.model), *sample_sites(self.guide)]:
            if isinstance(site["scale"], Tensor) or site["scale"] != 1:
                raise InputError(
                    f"site '{name}' has a scale, by poutine.scale or a subsampled plate: "
                    "objectives weigh all sites and examples alike"
                )
        self.log_p = self.sum(self.model)
        self.log_q = self.sum(self.guide)

    @property
    def log_w(self) -> Tensor:
        """The log-weights, nats, shape [K, batch]."""
        return self.log_p - self.log_q

    def sum(self, trace: poutine.Trace, counts: Callable[[Site], bool] | None = None) -> Tensor:
        """Return log-probabilities, summed over sites, shape [K, batch]."""
        counted = log_prob_per_example(
            trace, "data", self.batch_dims, counts or (lambda site: True)
        )
        return counted if self.batch_dims else counted.unsqueeze(0)

    def reduced(self, values: Tensor, site: Site) -> Tensor:
        """Return what a site has for each draw, summed over all but K and batch: [K, batch]."""
        values = scale_and_mask(values, mask=site["mask"])
        counted = per_example(values, site["name"], site, "data", self.batch_dims)
        return counted if self.batch_dims else counted.unsqueeze(0)

    def unpathed(self) -> list[str]:
        """Return the names of the guide's sites that are not reparameterised."""
        return [name for name, site in sample_sites(self.guide) if not site["fn"].has_rsample]

    def score(self) -> Tensor:
        """Return log q(z|x) with z held fixed, shape [K, batch], from the guide run once more.

        For an autoregressive flow that takes a pass for each dimension of z.
        """
        held = poutine.replay(self._program, trace=with_values(self.guide, Tensor.detach))
        return self.sum(poutine.trace(held).get_trace(self._x))

    def surrogate(
        self, to_model: Tensor, to_path: Tensor | None, to_score: Tensor | float | None
    ) -> Tensor:
        """Return a number whose gradient is the estimate that the weights make; see above.

        Weights are of the order of one, or less. What those below the square of the rounding error
        would add is lost in rounding: they are taken as zero, since numbers too small for their
        exponent, which they would soon lead to, slow matrix products down several times.

        Args:
            to_model: a, shape [K, batch], not negative, and without gradient.
            to_path: b, the same, of any sign; None if there is no path.
            to_score: s; None for -b, that of plain reparameterisation, which costs nothing more.
        """
        least = torch.finfo(to_model.dtype).eps ** 2
        if to_path is None or to_path is to_model:
            to_model = _zeroed(to_model, least)
            to_path = None if to_path is None else to_model
        else:
            to_model, to_path = to_model.clamp(min=least), _zeroed(to_path, least)
            self._ratio.append(to_path / to_model)  # a times b / a is b
        if isinstance(to_score, Tensor):
            to_score = _zeroed(to_score, least)
        total = (to_model * self.log_p).sum()
        if to_path is not None:
            total = total - (to_path * self.log_q).sum()
            if to_score is None:
                return total
            to_score = to_score + to_path  # takes away the score that comes with log_q
        if to_score is None:
            return total
        return total + (to_score * self.score()).sum()


def _zeroed(weights: Tensor, least: float) -> Tensor:
    return weights.where(weights.abs() >= least, 0.0)


def _tap(ratio: list[Tensor], batch_dims: int, z: Tensor) -> Tensor:
    """Pass z on to the model; its gradient is weighed on the way back.

    The hook does not know the draws: they would keep each other in memory.
    """
    if not z.requires_grad:
        return z
    passed = z.view_as(z)
    passed.register_hook(partial(_weigh, ratio, batch_dims))
    return passed


def _weigh(ratio: list[Tensor], batch_dims: int, gradient: Tensor) -> Tensor:
    for weights in ratio:
        weights = weights if batch_dims else weights[0]
        gradient = gradient * weights.reshape(
            weights.shape + (1,) * (gradient.dim() - weights.dim())
        )
    return gradient
