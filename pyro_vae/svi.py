"""Engines: what takes a step of stochastic variational inference.

An engine has `step(x)` and `evaluate_loss(x)`, as `pyro.infer.SVI` does, and a state to save. The
eager one is `pyro.infer.SVI`. The compiled one does the same in one graph: showing the images to
the likelihood, the loss, its gradients, and Adam.
"""

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pyro
import torch
from pyro.infer import SVI
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_vae.bounds.weights import undisturbed
from pyro_vae.compiling import CannotCompile, Compiled, Graph
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


class CompiledEngine(EagerEngine):
    """Takes the steps of `EagerEngine` as one compiled graph each.

    It is compiled for the size of the first batch; smaller ones, the last of an epoch, and losses
    that are only evaluated, are run by the eager engine, which shares the optimiser. The noise is
    the same. Objectives that learn are always run eagerly. Of the optimiser's settings the learning
    rate may change between steps, and nothing else.

    Args:
        model: a Pyro program that is a module and registers its parameters with Pyro.
        guide: the same.
        objective: what is trained.
        lr: the learning rate of Adam.
        precision: of matrix products in training; all else is in the parameters' own.
        fall_back: whether to go on eagerly, with a warning, where compiling is not possible.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        objective: Objective,
        lr: float = 1e-3,
        precision: Precision = "float32",
        *,
        fall_back: bool = False,
    ) -> None:
        super().__init__(model, guide, objective, lr, precision)
        self.fall_back = fall_back
        # By what is trained, how images are shown, and how they lie in memory: a step, and Adam's
        # state that it writes to.
        self._graphs: dict[Any, tuple[Graph, list[Tensor]]] = {}
        self._shape: torch.Size | None = None

    def step(self, x: Tensor, observe: Observe = as_they_are) -> float:
        """Take a gradient step; see `EagerEngine`.

        Raises:
            InputError: if it cannot be compiled, and is not to fall back on the eager engine.
        """
        self._shape = x.shape if self._shape is None else self._shape
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        trained = [parameter for parameter in trained if parameter.requires_grad]
        if x.shape != self._shape or self.objective.learns or not trained:
            return super().step(x, observe)
        layout = (x.dtype, x.device, x.stride())
        key = (observe, torch.get_num_threads(), layout, *map(id, trained))
        try:
            if key not in self._graphs:
                self._graphs[key] = self._compile(x, trained, observe)
            graph, states = self._graphs[key]
            return graph((x, self._sizes(states[::3], trained[0]), *states)).item()
        except CannotCompile as error:
            if not self.fall_back:
                raise InputError(
                    f"the step cannot be compiled, {error}: take --engine eager"
                ) from error
            warnings.warn(f"the eager engine is taken: {error}", stacklevel=2)
            self._shape = torch.Size()  # no batch's
            return super().step(x, observe)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        super().load_state_dict(state)
        self._graphs.clear()  # the optimiser's tensors are others now

    def _compile(
        self, x: Tensor, trained: list[nn.Parameter], observe: Observe
    ) -> tuple[Graph, list[Tensor]]:
        with undisturbed(x):  # Pyro's checks, which no trace makes
            self.check(observe(x[:2]))
        states = [state for parameter in trained for state in self._adam(parameter)]
        step = Compiled(self._whole_step(trained, observe))
        with self._running(training=True):
            return step.prepare(x, self._sizes(states[::3], trained[0]), *states), states

    def _whole_step(self, trained: list[nn.Parameter], observe: Observe) -> Callable[..., Tensor]:
        """Return a step as a function of images, `_sizes`, and Adam's state."""
        group = self.optimizer.param_groups[0]
        (beta1, beta2), eps = group["betas"], group["eps"]

        def step(
            x: Tensor,
            sizes: Tensor,
            *states: Tensor,
        ) -> Tensor:
            with pyro.poutine.trace(param_only=True) as captured, self._lowered():
                loss = self.objective.differentiable_loss(self.model, self.guide, observe(x))
            sites = captured.trace.nodes.values()
            self._optim.require_known({site["value"].unconstrained() for site in sites})
            gradients = torch.autograd.grad(loss, trained, allow_unused=True)
            with torch.no_grad():  # Adam (Kingma & Ba 2015, algorithm 1), as torch.optim has it
                rows = zip(states[::3], states[1::3], states[2::3], sizes, strict=True)
                for parameter, gradient, (count, mean, square, (size, correction)) in zip(
                    trained, gradients, rows, strict=True
                ):
                    if gradient is None:
                        continue
                    count.add_(1)
                    mean.lerp_(gradient, 1 - beta1)
                    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                    parameter.sub_(size * mean / (square.sqrt() * correction + eps))
            return loss

        return step

    def _sizes(self, counts: list[Tensor], like: Tensor) -> Tensor:
        """Return the next step's size for each parameter, and what corrects its mean of squares.

        In the graph they would be computed anew for each element, in double precision.
        """
        group = self.optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        rows = [
            (group["lr"] / (1 - beta1 ** (count + 1)), (1 - beta2 ** (count + 1)) ** -0.5)
            for count in torch.stack(counts).tolist()
        ]
        return torch.tensor(rows, dtype=like.dtype, device=like.device)

    def _adam(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor, Tensor]:
        """Return the optimiser's own count of steps, and running means of gradients and squares."""
        state = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state["step"], state["exp_avg"], state["exp_avg_sq"]
