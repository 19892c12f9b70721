"""An objective that trains with the KL at a given value."""

from typing import Any

import torch
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.errors import check_range
from pyro_vae.objectives.objective import Objective
from pyro_vae.programs import ranks
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.traces import Program


class TargetKL(Objective):
    """The best reconstruction at a given KL: maximise E_q[log p(x|z)] subject to KL = target.

    The KL's weight beta is the Lagrange multiplier of the constraint. It moves after each step,

        beta <- beta exp(rate (KL / target - 1)),

    with the exponent limited to [-rate, rate]. This is GECO's update (Rezende & Viola 2018,
    algorithm 1), with the constraint on the KL, as in ControlVAE (Shao et al. 2020). The training
    objective is a bound on log p(x) only while beta >= 1; models are chosen by the ELBO. The KL is
    estimated by Monte Carlo.

    Args:
        target: value of the KL to reach, in nats per example.
        num_particles: number of draws of z for each x; the loss is their mean.
        rate: speed of the multiplier; the exponent of one step is between -rate and rate.

    Raises:
        InputError: if an option is out of its range; in the first step, if the guide has a site
            that is not reparameterised.
    """

    learns = True

    def __init__(
        self,
        target: float = 20.0,
        num_particles: int = 1,
        rate: float = 0.01,
        **pyro_options: Any,
    ) -> None:
        super().__init__(num_particles, pyro_options)
        self.target = check_range("target", target, 1e-3, 1e6)
        self.rate = check_range("rate", rate, 1e-6, 1)
        self.kl_weight = torch.tensor(1.0)

    def bound(self, log_w: Tensor) -> Tensor:
        """Return the ELBO in nats, shape [batch]."""
        return bounds.elbo(log_w)

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the weighted loss, summed over the examples, to be differentiated."""
        return self._loss_and_kl(model, guide, Arguments(*args, **kwargs))[0]

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the training loss, add its gradients to the parameters', and move the weight."""
        loss, kl = self._loss_and_kl(model, guide, Arguments(*args, **kwargs))
        value = self.backward(loss)
        kl = ranks.mean_over_batch(kl)
        excess = (kl / self.target - 1).clamp(-1, 1).nan_to_num(0.0)
        self.kl_weight.mul_((self.rate * excess).exp().to(self.kl_weight)).clamp_(1e-6, 1e6)
        return value

    def _loss_and_kl(
        self, model: Program, guide: Program, arguments: Arguments
    ) -> tuple[Tensor, Tensor]:
        """Return the loss, and the mean KL of an example in nats, without gradient."""
        draws = self.draw(model, guide, arguments)
        draws.require_reparameterised("TargetKL", "use the objective ELBO", "objective")
        kl = (draws.log_q - draws.log_prior).mean(0)
        log_likelihood = draws.log_likelihood.mean(0)
        loss = self.kl_weight * kl.sum() - log_likelihood.sum()
        return draws.scaled(loss), kl.detach().mean()

    def state_dict(self) -> dict[str, Any]:
        """Return the multiplier."""
        return {"kl_weight": self.kl_weight.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the multiplier."""
        self.kl_weight.copy_(state["kl_weight"])
