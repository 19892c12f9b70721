"""An objective that holds the KL where it is wanted."""

from typing import Any

import torch
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.errors import InputError, check_range
from pyro_vae.objectives.objective import Objective
from pyro_vae.programs.traces import Program, is_latent, is_observed


class TargetKL(Objective):
    """The best reconstruction that a given KL will buy: max E_q[log p(x|z)], KL = target.

    The KL's weight is the constraint's Lagrange multiplier, and moves after each step,

        beta <- beta exp(rate (KL / target - 1)),

    the exponent cut at +- rate: GECO's update (Rezende & Viola 2018, algorithm 1), with the
    constraint on the KL, as ControlVAE has it (Shao et al. 2020). What is trained is a bound on
    log p(x) while beta >= 1 only; models are chosen by the ELBO. The KL is by Monte Carlo.

    Args:
        target: of the KL, nats per example.
        num_particles: how many z are drawn for each x; they are averaged.
        rate: of the multiplier's movement, per step.

    Raises:
        InputError: if an option makes no sense; in the first step, if the guide has a site that is
            not reparameterised.
    """

    learns = True

    def __init__(self, target: float = 20.0, num_particles: int = 1, rate: float = 0.01) -> None:
        super().__init__(num_particles)
        self.target = check_range("target", target, 1e-3, 1e6)
        self.rate = check_range("rate", rate, 1e-6, 1)
        self.kl_weight = torch.tensor(1.0)
        self._kl: Tensor | None = None  # per example, in the last step

    def bound(self, log_w: Tensor) -> Tensor:
        """Return the ELBO, nats, shape [batch]."""
        return bounds.elbo(log_w)

    def differentiable_loss(self, model: Program, guide: Program, x: Tensor) -> Tensor:
        """Return the weighted loss, summed over the examples, to be differentiated."""
        draws = self.draw(model, guide, x)
        for name in draws.unpathed():
            raise InputError(
                f"site '{name}' of the guide is not reparameterised, as TargetKL requires: take "
                "--objective ELBO"
            )
        kl = (draws.log_q - draws.sum(draws.model, is_latent)).mean(0)
        self._kl = kl.detach().mean()
        return self.kl_weight * kl.sum() - draws.sum(draws.model, is_observed).mean(0).sum()

    def loss_and_grads(self, model: Program, guide: Program, x: Tensor) -> float:
        """Return what is trained, leave its gradients in the parameters, and move the weight."""
        loss = super().loss_and_grads(model, guide, x)
        if self._kl is not None:
            excess = (self._kl / self.target - 1).clamp(-1, 1).nan_to_num(0.0)
            self.kl_weight.mul_((self.rate * excess).exp().to(self.kl_weight)).clamp_(1e-6, 1e6)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the multiplier."""
        return {"kl_weight": self.kl_weight.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a multiplier."""
        self.kl_weight.copy_(state["kl_weight"])
