"""The base class of all objectives."""

from abc import abstractmethod
from typing import Any, ClassVar

import pyro.infer
import torch
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.errors import InputError
from pyro_vae.objectives.draws import TrainingDraws
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at_once
from pyro_vae.programs.pair import Pair
from pyro_vae.programs.traces import Program


class Objective(pyro.infer.ELBO):
    """A training objective. It may change in the course of training.

    Args:
        num_particles: the number of draws of z for each x.

    Attributes:
        learns: whether a training step changes the objective itself. The compiled engine cannot
            take such steps, because one graph stands for all of them.

    Raises:
        InputError: if num_particles < 1.
    """

    learns: ClassVar[bool] = False

    def __init__(self, num_particles: int) -> None:
        if num_particles < 1:
            raise InputError(
                f"num_particles has to be at least 1, and {num_particles} is not", "num_particles"
            )
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        self._pair: Pair | None = None  # the programs of the last draw

    @property
    def num_draws(self) -> int:
        """The number of draws of z for each x in all, over all groups of particles."""
        return self.num_particles

    def anneal(self, epoch: float) -> None:
        """Set the objective's schedule to its state after `epoch` epochs; most have no schedule."""

    def bound(self, log_w: Tensor) -> Tensor:
        """Return the bound on log p(x) that is used to choose between models.

        Args:
            log_w: log-weights in nats, shape [K, batch].

        Returns:
            Nats, shape [batch]. Their expectation is not above log p(x).
        """
        return bounds.iwae(log_w)

    @abstractmethod
    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the training loss, summed over the examples, to be differentiated.

        Args:
            model: a Pyro program.
            guide: a Pyro program, the model's guide.
            args: what both are called with.
            kwargs: the same, by name.
        """

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the negative of `bound`, summed over the examples."""
        with torch.no_grad():
            return (
                -self.bound(self.draw(model, guide, Arguments(*args, **kwargs)).log_w).sum().item()
            )

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the training loss, and add its gradients to those of the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """Return the part of the objective that training has changed; for most it is empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""

    def draw(
        self, model: Program, guide: Program, arguments: Arguments, *, path: bool = True
    ) -> TrainingDraws:
        """Draw from the guide, and compute the log-probabilities under both programs.

        The first draw from a pair of programs runs them several times, to find out how they may be
        run.

        Args:
            model: a Pyro program.
            guide: a Pyro program, the model's guide.
            arguments: what both are called with.
            path: whether gradients through z reach the guide.
        """
        pair = self._pair
        if pair is None or pair.model is not model or pair.guide is not guide:
            pair = self._pair = look_at_once(model, guide, arguments)
        return TrainingDraws(pair, arguments, self.num_draws, path=path)

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError("objectives work on all draws at once, not on a single trace")
