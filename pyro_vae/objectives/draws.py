"""Draws from the guide, their log-probabilities under both programs, and gradient estimates.

Every gradient estimator of this package gives three weights to each draw z_k of each example:

    model, theta:  sum_k a_k grad_theta log p(x, z_k)
    guide, phi:    sum_k b_k (d log w_k / d z_k) (d z_k / d phi) + sum_k s_k grad_phi log q(z_k|x)

with w_k = p(x, z_k) / q(z_k | x). The guide's first sum is the path gradient: it reaches phi
through z_k. The guide's second sum is the score: it holds z_k fixed. Plain
reparameterisation has s = -b. Where s is constant, the score has mean zero; sticking the landing
leaves it out (Roeder, Wu & Duvenaud 2017). Where s depends on the draws, the score can be rewritten
as a path gradient (DReG, Tucker et al. 2019).
"""

from collections.abc import Callable
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


class PathWeights:
    """The factor of the path gradient of each draw.

    Values of z pass through it on their way from the guide into the model. On the way back, the
    gradient with respect to z is multiplied by `factor`. The factor depends on the log-weights, so
    it is known only after the model has run: it is set once, before the gradient is computed.

    It has no reference to the draws. A reference would be a cycle that keeps them in memory.

    Attributes:
        factor: one for each draw, shape [K, batch], or [batch] if there is no dimension for the
            draws; None leaves the gradient unchanged.
    """

    def __init__(self) -> None:
        self.factor: Tensor | None = None

    def pass_on(self, z: Tensor) -> Tensor:
        """Return z, such that its gradient will be multiplied by the factor."""
        if not z.requires_grad:
            return z
        passed = z.view_as(z)
        passed.register_hook(self._multiply)
        return passed

    def _multiply(self, gradient: Tensor) -> Tensor:
        if self.factor is None:
            return gradient
        missing_dims = gradient.dim() - self.factor.dim()
        return gradient * self.factor.reshape(self.factor.shape + (1,) * missing_dims)


class Draws:
    """K draws of the latent variables of each example.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`.
        x: the data, shape [batch, *event].
        count: K.
        nesting: the number of dimensions of the programs' plates. It is not used for a single
            draw, because the programs then run without a plate for the draws.
        path: whether gradients through z reach the guide; `surrogate` may then weight them.

    Attributes:
        nesting: as in the arguments.
        model: the trace of the model.
        guide: the trace of the guide.
        log_p: log p(x, z) in nats, shape [K, batch].
        log_q: log q(z|x) in nats, shape [K, batch].

    Raises:
        InputError: if a site has a scale of its own: the loss would not be a bound.
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
        self.nesting = nesting
        self.batch_dims = nesting + 1 if count > 1 else 0
        self._program, self._x = guide, x
        self._path_weights = PathWeights()
        into_model = self._path_weights.pass_on if path else Tensor.detach
        self.model, self.guide = traces(model, guide, x, into_model)
        for name, site in [*sample_sites(self.model), *sample_sites(self.guide)]:
            if isinstance(site["scale"], Tensor) or site["scale"] != 1:
                raise InputError(
                    f"site '{name}' has a scale, by poutine.scale or a subsampled plate: "
                    "objectives need the same weight, 1, for all sites and examples"
                )
        self.log_p = self.log_prob(self.model)
        self.log_q = self.log_prob(self.guide)

    @property
    def log_w(self) -> Tensor:
        """The log-weights log p(x, z) - log q(z|x) in nats, shape [K, batch]."""
        return self.log_p - self.log_q

    def log_prob(
        self, trace: poutine.Trace, counts: Callable[[Site], bool] | None = None
    ) -> Tensor:
        """Return the log-probabilities of a trace, summed over its sites, shape [K, batch].

        Args:
            trace: the trace of the model or of the guide.
            counts: whether a site is part of the sum; by default all are.
        """
        summed = log_prob_per_example(trace, "data", self.batch_dims, counts or (lambda site: True))
        return self._with_draws_dimension(summed)

    def sum_of_site(self, values: Tensor, site: Site) -> Tensor:
        """Return the values of a site, summed over all dimensions but the draws and the data.

        Args:
            values: one for each element of the site's batch shape, for example its KL.
            site: the site, of a trace.

        Returns:
            Shape [K, batch].
        """
        values = scale_and_mask(values, mask=site["mask"])
        summed = per_example(values, site["name"], site, "data", self.batch_dims)
        return self._with_draws_dimension(summed)

    def _with_draws_dimension(self, values: Tensor) -> Tensor:
        return values if self.batch_dims else values.unsqueeze(0)

    def not_reparameterised(self) -> list[str]:
        """Return the names of the guide's sites that are not reparameterised."""
        return [name for name, site in sample_sites(self.guide) if not site["fn"].has_rsample]

    def require_reparameterised(self, user: str, advice: str, parameter: str) -> None:
        """Refuse guides with a site that is not reparameterised.

        Args:
            user: the name of what needs reparameterised sites, for the message.
            advice: what to do, for the message.
            parameter: the name of the argument to change.

        Raises:
            InputError: if there is such a site.
        """
        names = self.not_reparameterised()
        if names:
            raise InputError(
                f"site '{names[0]}' of the guide is not reparameterised, and {user} needs "
                f"reparameterised sites: {advice}",
                parameter,
            )

    def score(self) -> Tensor:
        """Return log q(z|x) with z held fixed, shape [K, batch].

        The guide runs once more. In this run an autoregressive flow needs a pass for each dimension
        of z.
        """
        fixed = poutine.replay(self._program, trace=with_values(self.guide, Tensor.detach))
        return self.log_prob(poutine.trace(fixed).get_trace(self._x))

    def surrogate(
        self,
        model_weights: Tensor,
        path_weights: Tensor | None,
        score_weights: Tensor | float | None,
    ) -> Tensor:
        """Return a number whose gradient is the estimate that the weights describe.

        The module's docstring defines the weights. They are at most of the order of one. Weights
        below the square of the rounding error are set to zero: rounding would lose their
        contribution, and they soon lead to subnormal numbers, which make matrix products several
        times slower.

        Args:
            model_weights: a, shape [K, batch], not negative, and without gradient.
            path_weights: b, the same, of any sign; None if no gradient goes through z.
            score_weights: s; None for -b, plain reparameterisation, which needs no second run of
                the guide.
        """
        smallest = torch.finfo(model_weights.dtype).eps ** 2
        if path_weights is None or path_weights is model_weights:
            model_weights = _without_tiny(model_weights, smallest)
            path_weights = None if path_weights is None else model_weights
        else:
            model_weights = model_weights.clamp(min=smallest)
            path_weights = _without_tiny(path_weights, smallest)
            # The gradient that reaches z from log_p has the factor a: a times b / a is b.
            factor = path_weights / model_weights
            self._path_weights.factor = factor if self.batch_dims else factor[0]
        if isinstance(score_weights, Tensor):
            score_weights = _without_tiny(score_weights, smallest)
        total = (model_weights * self.log_p).sum()
        if path_weights is not None:
            total = total - (path_weights * self.log_q).sum()
            if score_weights is None:
                return total
            score_weights = score_weights + path_weights  # cancels the score within log_q
        if score_weights is None:
            return total
        return total + (score_weights * self.score()).sum()


def _without_tiny(weights: Tensor, smallest: float) -> Tensor:
    """Return weights, with zero in place of those below `smallest`."""
    return weights.where(weights.abs() >= smallest, 0.0)
