"""The reference engine: every step is a step of `pyro.infer.SVI`."""

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any, Literal

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.objectives import Objective
from pyro_vae.training.engine import Observe, unchanged

Precision = Literal["float32", "bfloat16"]


class _SharedOptimizer(PyroOptim):
    """One torch optimiser for all parameters. `PyroOptim` makes one optimiser per parameter."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(type(optimizer), {})
        self.optimizer = optimizer
        self.parameters = {
            parameter for group in optimizer.param_groups for parameter in group["params"]
        }

    def __call__(self, params: set[Tensor], *args: Any, **kwargs: Any) -> None:
        self.refuse_others(params)
        self.optimizer.step()

    def refuse_others(self, params: set[Tensor]) -> None:
        """Refuse parameters that the optimiser does not train."""
        if params - self.parameters:
            raise InputError(
                "the programs have a pyro.param that is not a parameter of their modules, so it "
                "would not be trained or saved: make it a torch.nn.Parameter"
            )


class EagerEngine:
    """Runs model and guide anew in every step, by `pyro.infer.SVI` with Adam.

    Each engine has its own Pyro parameter store, so several engines can coexist in one process.

    Args:
        model: a Pyro program that is a module and registers its parameters with Pyro.
        guide: the same kind of program, the model's guide.
        objective: the training objective.
        lr: the learning rate of Adam.
        precision: the precision of matrix products in training. All other operations have the
            precision of the parameters.
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
        # A parameter that both programs have is in the list once, and the order stays.
        shared = dict.fromkeys([*model.parameters(), *guide.parameters()])
        parameters = [parameter for parameter in shared if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=lr)
        self._pyro_optimizer = _SharedOptimizer(self.optimizer)
        self._svi = SVI(model, guide, self._pyro_optimizer, loss=objective)
        self._store: dict[str, Any] = {"params": {}, "constraints": {}}
        self._validated_by_pyro = False

    def step(self, x: Tensor, observe: Observe = unchanged) -> float:
        """Take a gradient step.

        Args:
            x: a batch of stored examples, shape [batch, *event].
            observe: a function that turns stored examples into what the likelihood sees.

        Returns:
            The objective before the step, summed over the batch, in nats.

        Raises:
            InputError: if the programs have a `pyro.param` that is not a parameter of their
                modules.
        """
        with self._own_store(training=True), self._training_precision():
            return self._svi.step(observe(x))

    def evaluate_loss(self, x: Tensor) -> float:
        """Estimate the negative of the objective's bound on log p(x).

        The KL has its full weight in this bound, whatever weight the objective's schedule gives it.

        Args:
            x: a batch of examples as the likelihood sees them, shape [batch, *event].

        Returns:
            Nats, summed over the batch.
        """
        with self._own_store(training=False):
            return self._svi.evaluate_loss(x)

    def check(self, x: Tensor) -> None:
        """Run the programs as in a step and as in an evaluation, once each, and change nothing.

        Args:
            x: a batch of examples as the likelihood sees them, shape [batch, *event].

        Raises:
            InputError: if the programs and the objective do not go together.
        """
        buffers = [*self.model.buffers(), *self.guide.buffers()]
        before = [buffer.clone() for buffer in buffers]
        with self._own_store(training=True), self._training_precision():
            loss = self.objective.differentiable_loss(self.model, self.guide, x)
        self._validated_by_pyro = False  # Pyro's checks are made in evaluation mode too
        self.evaluate_loss(x)
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        if not math.isfinite(loss.item()):
            raise InputError(
                f"the loss is {loss.item():g} before the first step: some part of the model, or "
                "the objective, has an argument that does not suit the data"
            )

    @contextlib.contextmanager
    def _own_store(self, training: bool) -> Iterator[None]:
        """Put the programs into a mode, and use the engine's own parameter store.

        Pyro's checks are on the first time only.
        """
        for module in (self.model, self.guide):
            if module.training != training:
                module.train(training)
        validation: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self._validated_by_pyro:
            validation = pyro.validation_enabled(False)
        with pyro.get_param_store().scope(self._store), validation:
            yield
        self._validated_by_pyro = True

    def _training_precision(self) -> contextlib.AbstractContextManager[None]:
        """Compute matrix products in the precision of training."""
        device = next(iter(self._pyro_optimizer.parameters)).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the model, the guide, the optimiser and the objective."""
        return {
            "model": self.model.state_dict(),
            "guide": self.guide.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.guide.load_state_dict(state["guide"])
        # torch would share the tensors of the state with the optimiser: copy them.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.objective.load_state_dict(state["objective"])
