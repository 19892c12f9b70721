"""Objectives that weight several draws against each other.

With w_k = p(x, z_k) / q(z_k | x), IWAE_K = log 1/K sum_k w_k, and the ELBO is its case K = 1. Each
objective that combines these bounds has three gradients for the guide, chosen by `gradient`:

- `plain`: the bound's own gradient, by reparameterisation. For IWAE its signal-to-noise ratio falls
  as 1 / sqrt(K) (Rainforth et al. 2018).
- `stl`, sticking the landing: the gradient without the score of q (Roeder, Wu & Duvenaud 2017). It
  has no noise where q is the exact posterior. For K > 1 it is biased (Tucker et al. 2019,
  section 3).
- `dreg`, doubly reparameterised: the score, whose mean is not zero here, is reparameterised once
  more (Tucker et al. 2019, equation 8). It has the bias of `plain` (which may be zero), less
  noise, and a signal-to-noise ratio that does not fall with K.

`stl` and `dreg` run the guide twice. An autoregressive flow is slow to score values that it did not
just draw: its second run needs a pass for each dimension. The model's gradient is always that of
the bound.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from pyro_vae import bounds
from pyro_vae.errors import InputError, check_range
from pyro_vae.objectives.objective import Objective
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.traces import Program

Gradient = Literal["plain", "stl", "dreg"]


class Weights(NamedTuple):
    """The weights of the draws in a gradient, each [K, batch]; `objectives.draws` defines a, b."""

    model: Tensor  # a
    path: Tensor  # b, plain
    path_doubly: Tensor  # b, doubly reparameterised


class _ImportanceWeighted(Objective):
    """An objective that is a function of log-weights, with a choice of gradients.

    A subclass defines `weights`, and `value` if its objective is not its `bound`.

    Raises:
        InputError: in the first step, if the guide has a site that is not reparameterised.
    """

    def __init__(
        self, num_particles: int, gradient: Gradient, pyro_options: Mapping[str, Any]
    ) -> None:
        super().__init__(num_particles, pyro_options)
        self.gradient = gradient

    @abstractmethod
    def weights(self, log_w: Tensor) -> Weights:
        """Return the weights of the draws.

        Args:
            log_w: log-weights in nats, shape [K, batch].
        """

    def value(self, log_w: Tensor) -> Tensor:
        """Return the objective in nats, shape [batch].

        If the model and the guide have different objectives, this is the model's objective.
        """
        return self.bound(log_w)

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the negative of the objective, summed over the examples."""
        draws = self.draw(model, guide, Arguments(*args, **kwargs))
        draws.require_reparameterised(
            f"{type(self).__name__}'s gradient",
            "use the objective ELBO, CUBO, TVO or RWS",
            "objective",
        )
        log_w = draws.log_w.detach()
        weights = self.weights(log_w)
        path_weights = weights.path_doubly if self.gradient == "dreg" else weights.path
        score_weights = None if self.gradient == "plain" else 0.0
        is_plain = path_weights is weights.model and score_weights is None
        if draws.pair.nesting > 1 and not is_plain:
            raise InputError(
                f"{type(self).__name__}'s gradient {self.gradient} needs programs with no plate "
                "other than the data's: use the objective IWAE with the gradient plain",
                "objective",
            )
        gain = draws.surrogate(weights.model, path_weights, score_weights)
        return draws.scaled(gain.detach() - gain - self.value(log_w).sum())


class IWAE(_ImportanceWeighted):
    """The importance-weighted bound with K draws (Burda, Grosse & Salakhutdinov 2016, equation 8).

    A bound on log p(x), tighter than the ELBO, and equal to it at K = 1. Models can be chosen by
    it, at the same K.

    Args:
        num_particles: number K of draws of z for each x.
        gradient: gradient for the guide: plain, stl (sticking the landing) or dreg (doubly
            reparameterised).
    """

    def __init__(
        self, num_particles: int = 5, gradient: Gradient = "plain", **pyro_options: Any
    ) -> None:
        super().__init__(num_particles, gradient, pyro_options)

    def weights(self, log_w: Tensor) -> Weights:
        """Return w_k / sum_j w_j, and its square."""
        w = log_w.softmax(0)
        return Weights(w, w, w.square())


class MIWAE(_ImportanceWeighted):
    """IWAE_K, averaged over M groups of draws (Rainforth et al. 2018, section 4).

    A bound on log p(x), in expectation the same as IWAE_K, with gradients averaged over M estimates
    of it. Models are chosen by IWAE_MK.

    Args:
        num_particles: number K of draws in a group.
        groups: number M of groups.
        gradient: gradient for the guide: plain, stl (sticking the landing) or dreg (doubly
            reparameterised).
    """

    def __init__(
        self,
        num_particles: int = 5,
        groups: int = 2,
        gradient: Gradient = "plain",
        **pyro_options: Any,
    ) -> None:
        super().__init__(num_particles, gradient, pyro_options)
        self.groups = int(check_range("groups", groups, 1, 1e6))

    @property
    def num_draws(self) -> int:
        """The number MK of draws of z for each x."""
        return self.groups * self.num_particles

    def value(self, log_w: Tensor) -> Tensor:
        """Return the mean over groups of IWAE_K."""
        return bounds.iwae(self._grouped(log_w)).mean(0)

    def weights(self, log_w: Tensor) -> Weights:
        """Return IWAE_K's weights within each group, divided by M."""
        w = self._grouped(log_w).softmax(0)
        plain, doubly = ((v / self.groups).transpose(0, 1).reshape_as(log_w) for v in (w, w * w))
        return Weights(plain, plain, doubly)

    def _grouped(self, log_w: Tensor) -> Tensor:
        """Return log-weights of shape [K, M, batch]."""
        return log_w.reshape(self.groups, -1, log_w.shape[1]).transpose(0, 1)


class PIWAE(MIWAE):
    """IWAE_MK for the model, MIWAE with M groups of K for the guide (Rainforth et al. 2018).

    The model trains on the tighter bound, and the guide on the one whose gradient has the better
    signal-to-noise ratio. IWAE_MK is a bound on log p(x), and models can be chosen by it.

    Args:
        num_particles: number K of draws in a group.
        groups: number M of groups.
        gradient: gradient for the guide: plain, stl (sticking the landing) or dreg (doubly
            reparameterised).
    """

    def value(self, log_w: Tensor) -> Tensor:
        """Return IWAE_MK."""
        return bounds.iwae(log_w)

    def weights(self, log_w: Tensor) -> Weights:
        """Return IWAE_MK's weights for the model, and MIWAE's for the guide."""
        return super().weights(log_w)._replace(model=log_w.softmax(0))


class CIWAE(_ImportanceWeighted):
    """beta ELBO + (1 - beta) IWAE_K (Rainforth et al. 2018, equation 13).

    A bound on log p(x) between the two. Models are chosen by IWAE_K.

    Args:
        num_particles: number K of draws of z for each x.
        beta: share of the ELBO, in [0, 1].
        gradient: gradient for the guide: plain, stl (sticking the landing) or dreg (doubly
            reparameterised).
    """

    def __init__(
        self,
        num_particles: int = 5,
        beta: float = 0.5,
        gradient: Gradient = "plain",
        **pyro_options: Any,
    ) -> None:
        super().__init__(num_particles, gradient, pyro_options)
        self.beta = check_range("beta", beta, 0, 1)

    def value(self, log_w: Tensor) -> Tensor:
        """Return beta ELBO + (1 - beta) IWAE_K."""
        return self.beta * bounds.elbo(log_w) + (1 - self.beta) * bounds.iwae(log_w)

    def weights(self, log_w: Tensor) -> Weights:
        """Return the same combination of the weights of both."""
        w, even = log_w.softmax(0), self.beta / len(log_w)
        plain = even + (1 - self.beta) * w
        return Weights(plain, plain, even + (1 - self.beta) * w.square())


class Renyi(_ImportanceWeighted):
    """The variational Renyi bound (Li & Turner 2016, equation 6), from K draws.

        1 / (1 - alpha)  log  1/K sum_k w_k^(1 - alpha)

    With alpha = 1 it is the ELBO, with alpha = 0 IWAE_K. For all alpha >= 0 it is a lower bound on
    IWAE_K (power means), and so on log p(x). For alpha < 0 it is a bound on neither side: its limit
    in K is above log p(x), and its bias at finite K is downwards. Models are chosen by IWAE_K.

    Args:
        num_particles: number K of draws of z for each x.
        alpha: order of the divergence.
        gradient: gradient for the guide: plain, stl (sticking the landing) or dreg (doubly
            reparameterised).
    """

    def __init__(
        self,
        num_particles: int = 5,
        alpha: float = 0.5,
        gradient: Gradient = "plain",
        **pyro_options: Any,
    ) -> None:
        super().__init__(num_particles, gradient, pyro_options)
        self.alpha = check_range("alpha", alpha, -100, 100)

    def value(self, log_w: Tensor) -> Tensor:
        """Return the variational Renyi bound."""
        if self.alpha == 1:
            return bounds.elbo(log_w)
        return bounds.iwae((1 - self.alpha) * log_w) / (1 - self.alpha)

    def weights(self, log_w: Tensor) -> Weights:
        """Return v = w^(1 - alpha), normalised; for DReG, alpha v + (1 - alpha) v^2."""
        v = ((1 - self.alpha) * log_w).softmax(0)
        return Weights(v, v, self.alpha * v + (1 - self.alpha) * v.square())


class CUBO(Objective):
    """The chi upper bound for the guide (Dieng et al. 2017, equation 4), IWAE_K for the model.

        CUBO_n = 1/n log E_q[w^n] >= log p(x)

    The guide minimises the upper bound, and with it the chi^n divergence of p(z|x) from q(z|x). The
    fitted q tends to be too wide, rather than too narrow. The model cannot be trained by an upper
    bound; it maximises IWAE_K, a lower bound. Models are chosen by IWAE_K, which is also the
    reported loss.

    The guide's gradient is (1 - n) / n E_q[w^n grad log q] / E_q[w^n], with weights normalised over
    K draws: consistent, with a bias of the order of 1/K. It does not go through z, so discrete
    codes can be trained. (The K-draw estimate of the bound itself cannot be minimised: it is too
    low, it is lowest where q is far from p, and with one draw it is the ELBO.)

    Args:
        num_particles: number K of draws of z for each x, at least two.
        order: order n of the divergence, above 1.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, num_particles: int = 10, order: float = 2.0, **pyro_options: Any) -> None:
        super().__init__(num_particles, pyro_options)
        if num_particles < 2:
            raise InputError(
                f"CUBO needs two particles or more, and num_particles is {num_particles}",
                "num_particles",
            )
        self.order = check_range("order", order, 1.001, 100)

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return -IWAE_K, summed over the examples, with the gradients of both objectives."""
        draws = self.draw(model, guide, Arguments(*args, **kwargs), path=False)
        log_w = draws.log_w.detach()
        score_weights = (self.order - 1) / self.order * (self.order * log_w).softmax(0)
        gain = draws.surrogate(log_w.softmax(0), None, score_weights)
        return draws.scaled(gain.detach() - gain - bounds.iwae(log_w).sum())
