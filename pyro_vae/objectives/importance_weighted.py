"""Objectives that weigh several draws against each other.

For each there are three gradients of the guide to choose from, `gradient`:

- `plain`: the bound's own, by reparameterisation. Of IWAE its signal-to-noise falls as
  1 / sqrt(K) (Rainforth et al. 2018).
- `stl`, sticking the landing: without the score of q (Roeder, Wu & Duvenaud 2017). No noise is left
  where q is the exact posterior. For K > 1 it is biased (Tucker et al. 2019, section 3).
- `dreg`, doubly reparameterised: the score, which here has no mean of zero, is reparameterised once
  more (Tucker et al. 2019, equation 8). As unbiased as `plain`, with less noise, and a
  signal-to-noise that does not fall with K.

The last two run the guide twice; autoregressive flows, which are slow to score what they did not
draw just now, take a pass for each dimension then. The model's gradient is always its own.
"""

from abc import abstractmethod
from typing import Literal, NamedTuple

from torch import Tensor

from pyro_vae import bounds
from pyro_vae.errors import InputError, check_range
from pyro_vae.objectives.objective import Objective
from pyro_vae.programs.traces import Program

Gradient = Literal["plain", "stl", "dreg"]


class Weights(NamedTuple):
    """The weights of the draws in a gradient, [K, batch] each; see `objectives.draws`."""

    model: Tensor  # a
    path: Tensor  # b, plain
    path_doubly: Tensor  # b, doubly reparameterised


class _Importance(Objective):
    """An objective made of log-weights, with a choice of gradients.

    Raises:
        InputError: in the first step, if the guide has a site that is not reparameterised.
    """

    def __init__(self, num_particles: int, gradient: Gradient) -> None:
        super().__init__(num_particles)
        self.gradient = gradient

    @abstractmethod
    def weights(self, log_w: Tensor) -> Weights:
        """Return the weights of the draws; log_w has shape [K, batch], in nats."""

    def trained(self, log_w: Tensor) -> Tensor:
        """Return what is trained, or what is if the model is, nats, shape [batch]."""
        return self.bound(log_w)

    def differentiable_loss(self, model: Program, guide: Program, x: Tensor) -> Tensor:
        """Return the negative of what is trained, summed over the examples."""
        draws = self.draw(model, guide, x)
        for name in draws.unpathed():
            raise InputError(
                f"site '{name}' of the guide is not reparameterised, as {type(self).__name__}'s "
                "gradient requires: take --objective ELBO, CUBO, TVO or RWS"
            )
        log_w = draws.log_w.detach()
        weights = self.weights(log_w)
        through = weights.path_doubly if self.gradient == "dreg" else weights.path
        score = None if self.gradient == "plain" else 0.0
        if self._nesting > 1 and (through is not weights.model or score is not None):
            raise InputError(
                f"{type(self).__name__}'s gradient {self.gradient} is for programs with no plate "
                "but that of the data: take IWAE, and the gradient plain"
            )
        gain = draws.surrogate(weights.model, through, score)
        return gain.detach() - gain - self.trained(log_w).sum()


class IWAE(_Importance):
    """The importance-weighted bound with K draws (Burda, Grosse & Salakhutdinov 2016, equation 8).

    A bound on log p(x), tighter than the ELBO, and equal to it at K = 1. Models can be chosen by
    it, at the same K.

    Args:
        num_particles: K.
        gradient: of the guide; see `objectives.importance`.
    """

    def __init__(self, num_particles: int = 5, gradient: Gradient = "plain") -> None:
        super().__init__(num_particles, gradient)

    def weights(self, log_w: Tensor) -> Weights:
        """Return w_k / sum_j w_j, and its square."""
        w = log_w.softmax(0)
        return Weights(w, w, w.square())


class MIWAE(_Importance):
    """IWAE_K, averaged over M groups of draws (Rainforth et al. 2018, section 4).

    A bound on log p(x), the same as IWAE_K, with gradients averaged over M estimates of it; what
    models are chosen by is IWAE_MK.

    Args:
        num_particles: K, the draws in a group.
        groups: M.
        gradient: of the guide; see `objectives.importance`.
    """

    def __init__(
        self, num_particles: int = 5, groups: int = 2, gradient: Gradient = "plain"
    ) -> None:
        super().__init__(_total(num_particles, groups), gradient)
        self.groups = groups

    def trained(self, log_w: Tensor) -> Tensor:
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

    The model trains on the tighter bound, the guide on the one with the better signal. IWAE_MK is a
    bound on log p(x), and models can be chosen by it.

    Args:
        num_particles: K, the draws in a group.
        groups: M.
        gradient: of the guide; see `objectives.importance`.
    """

    def trained(self, log_w: Tensor) -> Tensor:
        """Return IWAE_MK."""
        return bounds.iwae(log_w)

    def weights(self, log_w: Tensor) -> Weights:
        """Return IWAE_MK's weights for the model, and MIWAE's for the guide."""
        return super().weights(log_w)._replace(model=log_w.softmax(0))


class CIWAE(_Importance):
    """beta ELBO + (1 - beta) IWAE_K (Rainforth et al. 2018, equation 13).

    A bound on log p(x) between the two; what models are chosen by is IWAE_K.

    Args:
        num_particles: K.
        beta: in [0, 1].
        gradient: of the guide; see `objectives.importance`.
    """

    def __init__(
        self, num_particles: int = 5, beta: float = 0.5, gradient: Gradient = "plain"
    ) -> None:
        super().__init__(num_particles, gradient)
        self.beta = check_range("beta", beta, 0, 1)

    def trained(self, log_w: Tensor) -> Tensor:
        """Return the combination."""
        return self.beta * bounds.elbo(log_w) + (1 - self.beta) * bounds.iwae(log_w)

    def weights(self, log_w: Tensor) -> Weights:
        """Return the same combination of the weights of both."""
        w, even = log_w.softmax(0), self.beta / len(log_w)
        plain = even + (1 - self.beta) * w
        return Weights(plain, plain, even + (1 - self.beta) * w.square())


class Renyi(_Importance):
    """The variational Renyi bound (Li & Turner 2016, equation 6), from K draws.

        1 / (1 - alpha)  log  1/K sum_k w_k^(1 - alpha)

    With alpha = 1 the ELBO, with alpha = 0 IWAE_K, of which it is a bound for all alpha >= 0 (power
    means), and so of log p(x). For alpha < 0 it is no bound, on either side: its limit is above
    log p(x), and K draws bias it downwards. What models are chosen by is IWAE_K.

    Args:
        num_particles: K.
        alpha: the order of the divergence.
        gradient: of the guide; see `objectives.importance`.
    """

    def __init__(
        self, num_particles: int = 5, alpha: float = 0.5, gradient: Gradient = "plain"
    ) -> None:
        super().__init__(num_particles, gradient)
        self.alpha = check_range("alpha", alpha, -100, 100)

    def trained(self, log_w: Tensor) -> Tensor:
        """Return the variational Renyi bound."""
        if self.alpha == 1:
            return bounds.elbo(log_w)
        return bounds.iwae((1 - self.alpha) * log_w) / (1 - self.alpha)

    def weights(self, log_w: Tensor) -> Weights:
        """Return w^(1 - alpha), normalised, and for DReG alpha w + (1 - alpha) w^2 of these."""
        w = ((1 - self.alpha) * log_w).softmax(0)
        return Weights(w, w, self.alpha * w + (1 - self.alpha) * w.square())


class CUBO(Objective):
    """The chi upper bound for the guide (Dieng et al. 2017, equation 4), IWAE_K for the model.

        CUBO_n = 1/n log E_q[w^n] >= log p(x)

    The guide minimises the upper bound, and with it the chi^n divergence of p(z|x) from q(z|x): it
    comes out rather too wide than too narrow. The model cannot be trained by an upper bound; IWAE_K
    is a lower one, what models are chosen by, and the loss that is reported.

    The guide's gradient is (1 - n) / n E_q[w^n grad log q] / E_q[w^n], with weights normalised over
    K draws: consistent, and biased in the order of 1/K. It does not go through z, so discrete codes
    will do. (The K-draw estimate of the bound itself, too low, is not what can be minimised: it is
    lowest where q is far from p, and with one draw it is the ELBO.)

    Args:
        num_particles: K, two at least.
        order: n, above 1.

    Raises:
        InputError: if an option makes no sense.
    """

    def __init__(self, num_particles: int = 10, order: float = 2.0) -> None:
        super().__init__(num_particles)
        if num_particles < 2:
            raise InputError(f"CUBO needs two particles or more, and {num_particles} is not")
        self.order = check_range("order", order, 1.001, 100)

    def differentiable_loss(self, model: Program, guide: Program, x: Tensor) -> Tensor:
        """Return -IWAE_K, summed over the examples, with the gradients of both objectives."""
        draws = self.draw(model, guide, x, path=False)
        log_w = draws.log_w.detach()
        to_score = (self.order - 1) / self.order * (self.order * log_w).softmax(0)
        gain = draws.surrogate(log_w.softmax(0), None, to_score)
        return gain.detach() - gain - bounds.iwae(log_w).sum()


def _total(num_particles: int, groups: int) -> int:
    if groups < 1:
        raise InputError(f"groups has to be at least 1, and {groups} is not")
    return num_particles * groups
