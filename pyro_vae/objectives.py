"""Training objectives, as Pyro ELBO subclasses.

As `pyro.infer.SVI` calls them: `loss_and_grads` is what is trained, and may be annealed; `loss` is
what is measured, and is always the negative of a proper lower bound on log p(x), so that models can
be chosen by it whatever they were trained with. Both are sums over the examples, in nats.
"""

from typing import Any, ClassVar

import pyro.infer
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae import bounds
from pyro_vae.bounds.weights import Program, plate_nesting, sample_sites
from pyro_vae.errors import InputError


class Objective(pyro.infer.ELBO):
    """A training objective, which may change in the course of training.

    Attributes:
        learns: whether a step changes the objective itself, so that no trace of one step can stand
            for all of them.
    """

    learns: ClassVar[bool] = False

    def anneal(self, epoch: float) -> None:
        """Move to where the objective's schedule is after `epoch` epochs; most have none."""


class _WeighLatents(Messenger):
    """Multiply the log-probabilities of latent sites, in model and guide: the KL, that is."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.weight


class _RequireRsample(Messenger):
    """Refuse latent sites that are not reparameterised."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        counts = not (msg["is_observed"] or pyro.poutine.util.site_is_subsample(msg))
        if counts and not msg["fn"].has_rsample:
            raise InputError(
                f"site '{msg['name']}' of the guide is not reparameterised, as IWAE's gradient "
                "requires: take --objective ELBO"
            )


class _WeighsKL(Objective):
    """The annealed weight of the KL, for the two ELBOs below."""

    def __init__(self, beta: float, warmup: float, num_particles: int) -> None:
        for name, value in (("beta", beta), ("warmup", warmup)):
            if not 0 <= value <= 1e6:
                raise InputError(f"{name} has to be between 0 and 1e6, and {value:g} is not")
        if num_particles < 1:
            raise InputError(f"num_particles has to be at least 1, and {num_particles} is not")
        super().__init__(num_particles=num_particles, vectorize_particles=num_particles > 1)
        self.beta = beta
        self.warmup = warmup
        self.kl_weight = torch.tensor(beta, dtype=torch.float32)
        self.anneal(0)

    def anneal(self, epoch: float) -> None:
        """Set the KL's weight to beta min(1, epoch / warmup)."""
        done = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        self.kl_weight.fill_(self.beta * done)

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the weighted loss, and leave its gradients in the parameters."""
        return super().loss_and_grads(*self._weigh(model, guide), *args, **kwargs)

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the weighted loss, to be differentiated."""
        return super().differentiable_loss(*self._weigh(model, guide), *args, **kwargs)

    def _weigh(self, model: Program, guide: Program) -> tuple[Program, Program]:
        if self.beta == 1 and not self.warmup:  # else it may change, or have changed
            return model, guide
        weigh = _WeighLatents(self.kl_weight)
        return weigh(model), weigh(guide)


class ELBO(_WeighsKL, pyro.infer.Trace_ELBO):
    """E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), the KL by Monte Carlo.

    With beta = 1, `pyro.infer.Trace_ELBO` (Kingma & Welling 2014, equation 2). A bound on log p(x)
    for beta >= 1 only; `loss` measures it at beta = 1.

    Args:
        num_particles: how many z are drawn for each x; they are averaged.
        beta: the weight of the KL (Higgins et al. 2017).
        warmup: the number of epochs over which the weight rises linearly from 0 to beta (Bowman et
            al. 2016), so that the code is used before it is paid for.
    """

    def __init__(self, num_particles: int = 1, beta: float = 1.0, warmup: float = 0.0) -> None:
        super().__init__(beta, warmup, num_particles)


class AnalyticELBO(_WeighsKL, pyro.infer.TraceMeanField_ELBO):
    """E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), the KL in closed form.

    Refuses pairs of posterior and prior that have none, where `pyro.infer.TraceMeanField_ELBO`
    would fall back on Monte Carlo without a word.

    Args:
        num_particles: how many z are drawn for each x; they are averaged.
        beta: the weight of the KL (Higgins et al. 2017).
        warmup: the number of epochs over which the weight rises linearly from 0 to beta (Bowman et
            al. 2016), so that the code is used before it is paid for.

    Raises:
        InputError: in the first step, if no closed form is registered.
    """

    def __init__(self, num_particles: int = 1, beta: float = 1.0, warmup: float = 0.0) -> None:
        super().__init__(beta, warmup, num_particles)
        self._known: set[tuple[type, type]] = set()  # pairs that have a closed form

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        model_trace, guide_trace = super()._get_trace(model, guide, args, kwargs)
        for name, site in sample_sites(guide_trace):
            if name in model_trace.nodes:
                self._require_closed_form(name, site["fn"], model_trace.nodes[name]["fn"])
        return model_trace, guide_trace

    def _require_closed_form(self, name: str, posterior: Any, prior: Any) -> None:
        q, p = (type(getattr(d, "base_dist", d)) for d in (posterior, prior))
        if (q, p) not in self._known:
            try:
                kl_divergence(posterior, prior)
            except NotImplementedError as error:
                raise InputError(
                    f"site '{name}': KL({q.__name__} || {p.__name__}) has no closed form: "
                    "take --objective ELBO"
                ) from error
            self._known.add((q, p))


class IWAE(Objective):
    """The importance-weighted bound with K draws (Burda, Grosse & Salakhutdinov 2016, equation 8).

    A bound on log p(x), tighter than the ELBO, and equal to it at K = 1. Compare it with others at
    the same K only. Its gradients are by reparameterisation (equation 14); the encoder's share of
    them loses its signal as K grows, as 1 / sqrt(K) (Rainforth et al. 2018).

    Args:
        num_particles: K.

    Raises:
        InputError: in the first step, if the guide has a site that is not reparameterised.
    """

    def __init__(self, num_particles: int = 5) -> None:
        if num_particles < 1:
            raise InputError(f"num_particles has to be at least 1, and {num_particles} is not")
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        self._pair: tuple[Program, Program] | None = None  # whose nesting is known
        self._nesting = 0

    def differentiable_loss(self, model: Program, guide: Program, x: Tensor) -> Tensor:
        """Return -IWAE_K, summed over the examples, to be differentiated."""
        return self._loss(model, guide, _RequireRsample()(guide), x)

    def _loss(self, model: Program, guide: Program, drawn_from: Program, x: Tensor) -> Tensor:
        if self._pair != (model, guide):
            self._pair, self._nesting = (model, guide), plate_nesting(model, guide, x)
        log_w = bounds.log_weights(
            model, drawn_from, x, self.num_particles, max_plate_nesting=self._nesting
        )
        return -bounds.iwae(log_w).sum()

    def loss(self, model: Program, guide: Program, x: Tensor) -> float:
        """Return -IWAE_K, summed over the examples."""
        with torch.no_grad():
            return self._loss(model, guide, guide, x).item()

    def loss_and_grads(self, model: Program, guide: Program, x: Tensor) -> float:
        """Return -IWAE_K, and leave its gradients in the parameters."""
        loss = self.differentiable_loss(model, guide, x)
        loss.backward()
        return loss.item()

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError("IWAE works on log-weights, not on a single trace")
