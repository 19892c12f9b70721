"""The engine that takes each step as one compiled graph."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.objectives import Objective
from pyro_vae.programs.compiling import CannotCompile, Compiled, Graph
from pyro_vae.programs.random_streams import undisturbed
from pyro_vae.training.engine import EagerEngine, Observe, Precision, as_they_are


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
