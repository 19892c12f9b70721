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
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.training.eager_engine import EagerEngine, Precision
from pyro_vae.training.engine import Observe, unchanged


class CompiledEngine(EagerEngine):
    """Takes the steps of `EagerEngine`, each as one compiled graph, with the same noise.

    The graph holds `observe`, the loss, its gradients, and Adam. It is compiled for the size of the
    first batch. Smaller batches, such as the last one of an epoch, are run eagerly, with the same
    optimiser; `evaluate_loss` and all steps of objectives that learn are run eagerly, too. The
    learning rate is the only setting of the optimiser that may change between steps.

    Args:
        model: see `EagerEngine`, as for all arguments but the last.
        guide: the model's guide.
        objective: the training objective.
        lr: the learning rate of Adam.
        precision: the precision of matrix products in training.
        fall_back: whether to run eagerly, with a warning, if the step cannot be compiled.
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
        # Compiled steps, each with the tensors of Adam's state that it writes to. They are keyed by
        # the observe function, the number of threads, the batch's layout, and the parameters.
        self._graphs: dict[Any, tuple[Graph, list[Tensor]]] = {}
        self._compiled_shape: torch.Size | None = None

    def step(self, x: Tensor, observe: Observe = unchanged) -> float:
        """Take a gradient step; see `EagerEngine`.

        Raises:
            InputError: if the step cannot be compiled, and `fall_back` is false.
        """
        if self._compiled_shape is None:
            self._compiled_shape = x.shape
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        trained = [parameter for parameter in trained if parameter.requires_grad]
        if x.shape != self._compiled_shape or self.objective.learns or not trained:
            return super().step(x, observe)
        layout = (x.dtype, x.device, x.stride())
        key = (observe, torch.get_num_threads(), layout, *map(id, trained))
        try:
            if key not in self._graphs:
                self._graphs[key] = self._compile(x, trained, observe)
            graph, states = self._graphs[key]
            return graph((x, self._step_sizes(states[::3], trained[0]), *states)).item()
        except CannotCompile as error:
            if not self.fall_back:
                raise InputError(
                    f"the step cannot be compiled, {error}: use the eager engine", "engine"
                ) from error
            warnings.warn(f"the eager engine is used instead: {error}", stacklevel=2)
            self._compiled_shape = torch.Size()  # the shape of no batch: do not try again
            return super().step(x, observe)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._graphs.clear()  # they hold the optimiser's old tensors

    def _compile(
        self, x: Tensor, trained: list[nn.Parameter], observe: Observe
    ) -> tuple[Graph, list[Tensor]]:
        """Return the compiled step, and the tensors of Adam's state that it writes to."""
        with preserve_rng_state(x):
            self.check(observe(x[:2]))  # runs Pyro's checks: tracing skips them
        states = [state for parameter in trained for state in self._adam_state(parameter)]
        step = Compiled(self._step_function(trained, observe))
        with self._own_store(training=True):
            return step.prepare(x, self._step_sizes(states[::3], trained[0]), *states), states

    def _step_function(
        self, trained: list[nn.Parameter], observe: Observe
    ) -> Callable[..., Tensor]:
        """Return a step as a function of examples, `_step_sizes`, and Adam's state."""
        group = self.optimizer.param_groups[0]
        (beta1, beta2), eps = group["betas"], group["eps"]

        def step(
            x: Tensor,
            sizes: Tensor,
            *states: Tensor,
        ) -> Tensor:
            with pyro.poutine.trace(param_only=True) as captured, self._training_precision():
                loss = self.objective.differentiable_loss(self.model, self.guide, observe(x))
            sites = captured.trace.nodes.values()
            self._pyro_optimizer.refuse_others({site["value"].unconstrained() for site in sites})
            gradients = torch.autograd.grad(loss, trained, allow_unused=True)
            with torch.no_grad():  # Adam (Kingma & Ba 2015, algorithm 1), as in torch.optim
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

    def _step_sizes(self, counts: list[Tensor], like: Tensor) -> Tensor:
        """Return, for each parameter, the size of its next step and the correction of its square.

        They are computed outside the graph, which would compute them for each element again, in
        double precision.

        Args:
            counts: how many steps Adam has taken for each parameter.
            like: a tensor with the type and the device of the result.

        Returns:
            Shape [parameters, 2].
        """
        group = self.optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        rows = [
            (group["lr"] / (1 - beta1 ** (count + 1)), (1 - beta2 ** (count + 1)) ** -0.5)
            for count in torch.stack(counts).tolist()
        ]
        return torch.tensor(rows, dtype=like.dtype, device=like.device)

    def _adam_state(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor, Tensor]:
        """Return the optimiser's count of steps and running means of gradients and their squares.

        They are the optimiser's own tensors, not copies.
        """
        state = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state["step"], state["exp_avg"], state["exp_avg_sq"]
