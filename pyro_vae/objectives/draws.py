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

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.objectives.score_function import is_reparameterised
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.pair import Draws, Pair
from pyro_vae.programs.traces import is_latent, is_observed, sample_sites


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
        if missing_dims < 0:  # a number, in a run of its own, outside of all plates
            return gradient * self.factor.reshape(gradient.shape)
        return gradient * self.factor.reshape(self.factor.shape + (1,) * missing_dims)


class TrainingDraws:
    """K draws of the latent variables of each example, with weights for their gradients.

    Args:
        pair: the model and the guide.
        arguments: what both are called with.
        count: K.
        path: whether gradients through z reach the guide; `surrogate` may then weight them.
        site_scales: whether the log-probabilities of each site are multiplied by its scale, as in
            `pyro.infer.Trace_ELBO`. Otherwise all sites must have the same scale, and `scaled`
            multiplies by it: then each example has this weight.

    Attributes:
        pair: the model and the guide.
        draws: the draws.
        log_p: log p(x, z) in nats, shape [K, batch].
        log_q: log q(z|x) in nats, shape [K, batch].

    Raises:
        InputError: if a site has a scale of its own, without `site_scales`: the loss would not be a
            bound.
    """

    def __init__(
        self,
        pair: Pair,
        arguments: Arguments,
        count: int,
        *,
        path: bool = True,
        site_scales: bool = False,
    ) -> None:
        self.pair = pair
        self._path_weights: list[PathWeights] = []

        def into_model(number: int | None) -> Callable[[Tensor], Tensor]:
            if not path:
                return Tensor.detach
            self._path_weights.append(PathWeights())
            return self._path_weights[-1].pass_on

        self.draws = pair.draw(
            arguments, count, change=into_model, always_a_dimension=False, scaled=site_scales
        )
        self._scale = 1.0 if site_scales else _common_scale(self.draws)
        self.log_p = self.draws.log_p()
        self.log_q = self.draws.log_q()

    def scaled(self, total: Tensor) -> Tensor:
        """Return a sum over the examples, multiplied by the scale that all sites have."""
        unscaled = not isinstance(self._scale, Tensor) and self._scale == 1
        return total if unscaled else self._scale * total

    @property
    def log_w(self) -> Tensor:
        """The log-weights log p(x, z) - log q(z|x) in nats, shape [K, batch]."""
        return self.log_p - self.log_q

    @property
    def log_likelihood(self) -> Tensor:
        """Log p(x|z) in nats, shape [K, batch]."""
        return self.draws.log_p(is_observed)

    @property
    def log_prior(self) -> Tensor:
        """Log p(z) in nats, shape [K, batch]."""
        return self.draws.log_p(is_latent)

    def not_reparameterised(self) -> list[str]:
        """Return the names of the guide's sites that are not reparameterised."""
        return [
            name
            for name, site in sample_sites(self.draws.runs[0][1])
            if not is_reparameterised(site)
        ]

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
        return self.draws.log_q_with(Tensor.detach)

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
            if self.draws.batch_dims:
                self._path_weights[0].factor = factor
            else:
                for weights, of_draw in zip(self._path_weights, factor, strict=True):
                    weights.factor = of_draw
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


def _common_scale(draws: Draws) -> Tensor | float:
    """Return the scale of all sites.

    Raises:
        InputError: if sites have different scales.
    """
    scale: Tensor | float | None = None
    for site in (site for model in (True, False) for site in draws.sites(model)):
        own = site["scale"]
        scale = own if scale is None else scale
        single = all(torch.as_tensor(each).numel() == 1 for each in (own, scale))
        if not single or bool(own != scale):
            raise InputError(
                f"site '{site['name']}' has a scale of its own, by poutine.scale or a subsampled "
                "plate. This objective is not a mean of log-weights, and with a scale inside its "
                "logarithm it is no bound: use the objective ELBO, or give all sites one scale",
                "objective",
            )
    return 1.0 if scale is None else scale


def _without_tiny(weights: Tensor, smallest: float) -> Tensor:
    """Return weights, with zero in place of those below `smallest`."""
    return weights.where(weights.abs() >= smallest, 0.0)
