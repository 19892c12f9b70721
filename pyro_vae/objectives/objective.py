"""The base of all objectives."""

from abc import abstractmethod
from typing import Any, ClassVar

import pyro.infer
import torch
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.errors import InputError
from pyro_vae.objectives.draws import Draws
from pyro_vae.programs.traces import Program, plate_nesting


class Objective(pyro.infer.ELBO):
    """A training objective, which may change in the course of training.

    Args:
        num_particles: how many z are drawn for each x.

    Attributes:
        learns: whether a step changes the objective itself, so that no trace of one step can stand
            for all of them.

    Raises:
        InputError: if num_particles < 1.
    """

    learns: ClassVar[bool] = False

    def __init__(self, num_particles: int) -> None:
        if num_particles < 1:
            raise InputError(f"num_particles has to be at least 1, and {num_particles} is not")
        super().__init__(num_particles=num_particles, vectorize_particles=num_particles > 1)
        self._pair: tuple[Program, Program] | None = None  # whose nesting is known
        self._nesting = 1

    def anneal(self, epoch: float) -> None:
        """Move to where the objective's schedule is after `epoch` epochs; most have none."""

    def bound(self, log_w: Tensor) -> Tensor:
        """Return the bound on log p(x) that models are chosen by.

        Args:
            log_w: log-weights in nats, shape [K, batch].

        Returns:
            Nats, shape [batch]. On average not above log p(x).
        """
        return bounds.iwae(log_w)

    @abstractmethod
    def differentiable_loss(self, model: Program, guide: Program, x: Tensor) -> Tensor:
        """Return what is trained, summed over the examples, to be differentiated.

        Args:
            model: a Pyro program, called as `model(x)`.
            guide: a Pyro program, called as `guide(x)`.
            x: the data, shape [batch, *event].
        """

    def loss(self, model: Program, guide: Program, x: Tensor) -> float:
        """Return the negative of `bound`, summed over the examples."""
        with torch.no_grad():
            return -self.bound(self.draw(model, guide, x).log_w).sum().item()

    def loss_and_grads(self, model: Program, guide: Program, x: Tensor) -> float:
        """Return what is trained, and leave its gradients in the parameters."""
        loss = self.differentiable_loss(model, guide, x)
        if loss.requires_grad:
            loss.backward()
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """Return what training has changed in the objective; of most, nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""

    def draw(self, model: Program, guide: Program, x: Tensor, *, path: bool = True) -> Draws:
        """Draw from the guide, and weigh with both programs."""
        if self._pair != (model, guide):
            self._pair, self._nesting = (model, guide), plate_nesting(model, guide, x)
        return Draws(model, guide, x, self.num_particles, self._nesting, path=path)

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError("objectives work on all draws at once, not on a single trace")
