"""Engines: what takes a step of stochastic variational inference.

An engine has `step(x)` and `evaluate_loss(x)`, as `pyro.infer.SVI` does, and a state to save. The
eager one is `pyro.infer.SVI`. The compiled one does the same in one graph: showing the images to
the likelihood, the loss, its gradients, and Adam.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.objectives import Objective

Precision = Literal["float32", "bfloat16"]
Observe = Callable[[Tensor], Tensor]


def as_they_are(images: Tensor) -> Tensor:
    """Show images as they are stored."""
    return images


class _OneOptimizer(PyroOptim):
    """One torch optimiser for all parameters, where `PyroOptim` makes one for each tensor."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(type(optimizer), {})
        self.optimizer = optimizer
        self.known = {
            parameter for group in optimizer.param_groups for parameter in group["params"]
        }

    def __call__(self, params: set[Tensor], *args: Any, **kwargs: Any) -> None:
        self.require_known(params)
        self.optimizer.step()

    def require_known(self, params: set[Tensor]) -> None:
        if params - self.known:
            raise InputError(
                "the programs have a pyro.param that is no parameter of their modules, and would "
                "never be trained or saved: make it a torch.nn.Parameter"
            )


class EagerEngine:
    """Runs model and guide anew in every step, as `pyro.infer.SVI` with Adam.

    It keeps a Pyro parameter store of its own, so that engines in one process do not meet.

    Args:
        model: a Pyro program that is a module and registers its parameters with Pyro.
        guide: the same.
        objective: what is trained.
        lr: the learning rate of Adam.
        precision: of matrix products in training; all else is in the parameters' own.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        objective: Objective,
        lr: float = 1e-3,
        precision: Precision = "float32",
    ) -> None:
        self.model = model
        self.guide = guide
        self.objective = objective
        self.precision = precision
        shared = dict.fromkeys([*model.parameters(), *guide.parameters()])  # each once, in order
        parameters = [parameter for parameter in shared if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=lr)
        self._optim = _OneOptimizer(self.optimizer)
        self._svi = SVI(model, guide, self._optim, loss=objective)
        self._store: dict[str, Any] = {"params": {}, "constraints": {}}
        self._checked = False

    def step(self, x: Tensor, observe: Observe = as_they_are) -> float:
        """Take a gradient step.

        Args:
            x: a batch, shape [batch, *event].
            observe: turns it into what the likelihood sees.

        Returns:
            The objective before the step, summed over the batch, in nats.

        Raises:
            InputError: if the programs have a `pyro.param` that is not one of their modules'.
        """
        with self._running(training=True), self._lowered():
            return self._svi.step(observe(x))

    def evaluate_loss(self, x: Tensor) -> float:
        """Estimate the negative of the bound on log p(x) that goes with the objective.

        The KL has its full weight in it, wherever the objective's schedule is.

        Args:
            x: a batch, shape [batch, *event].

        Returns:
            Nats, summed over the batch.
        """
        with self._running(training=False):
            return self._svi.evaluate_loss(x)

    def check(self, x: Tensor) -> None:
        """Run once as in a step, and once as in an evaluation, and change nothing.

        Raises:
            InputError: if the programs and the objective do not go together.
        """
        buffers = [*self.model.buffers(), *self.guide.buffers()]
        before = [buffer.clone() for buffer in buffers]
        with self._running(training=True), self._lowered():
            loss = self.objective.differentiable_loss(self.model, self.guide, x)
        self._checked = False  # nor have Pyro's checks been made in evaluation mode
        self.evaluate_loss(x)
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        if not math.isfinite(loss.item()):
            raise InputError(
                f"the loss is {loss.item():g} before the first step: look at the options"
            )

    @contextlib.contextmanager
    def _running(self, training: bool) -> Iterator[None]:
        """Run in the engine's own parameter store; Pyro's checks are for the first time only."""
        for module in (self.model, self.guide):
            if module.training != training:
                module.train(training)
        unchecked = pyro.validation_enabled(False) if self._checked else contextlib.nullcontext()
        with pyro.get_param_store().scope(self._store), unchecked:
            yield
        self._checked = True

    def _lowered(self) -> contextlib.AbstractContextManager[None]:
        """Compute matrix products in the precision of training."""
        device = next(iter(self._optim.known)).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def state_dict(self) -> dict[str, Any]:
        """Return the state of model, guide, optimiser and objective."""
        return {
            "model": self.model.state_dict(),
            "guide": self.guide.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.guide.load_state_dict(state["guide"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # torch would share it
        self.objective.load_state_dict(state["objective"])
