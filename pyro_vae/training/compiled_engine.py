"""The engine that takes each step as one compiled graph."""

import warnings
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.objectives import Objective
from pyro_vae.programs.compiling import CannotCompile, Graph, layout, tensors_in
from pyro_vae.programs.observed_values import ObservedValues
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.training.eager_engine import EagerEngine, Precision, Program
from pyro_vae.training.engine import Data, Observe, as_arguments, unchanged


class _Step(NamedTuple):
    """A compiled step."""

    graph: Graph
    states: list[Tensor]  # the tensors of Adam's state that it writes to
    like: Tensor  # one of the parameters
    sentences: list[str]  # what to say of each observed site with values outside the support


class CompiledEngine(EagerEngine):
    """Takes the steps of `EagerEngine`, each as one compiled graph, with the same noise.

    The graph holds `observe`, the loss, its gradients, and Adam. It is compiled for the layout of
    the first batch: its shapes, and the values of arguments that are not tensors. Other batches,
    such as a smaller one at the end of an epoch, are run eagerly, with the same optimiser;
    `evaluate_loss` and all steps of objectives that learn are run eagerly, too. The learning rate
    is the only setting of the optimiser that may change between steps.

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
        model: Program,
        guide: Program,
        objective: Objective,
        lr: float = 1e-3,
        precision: Precision = "float32",
        *,
        fall_back: bool = False,
    ) -> None:
        super().__init__(model, guide, objective, lr, precision)
        self.fall_back = fall_back
        # They are keyed by the observe function, the number of threads, and the parameters.
        self._steps: dict[Hashable, _Step] = {}
        self._layout: Hashable = None  # that of the first batch

    def step(self, x: Data, observe: Observe = unchanged) -> float:
        """Take a gradient step; see `EagerEngine`.

        Raises:
            InputError: as in `EagerEngine`; if the step cannot be compiled, and `fall_back` is
                false.
        """
        try:
            if self._layout is None:
                self._layout = layout(x)
            if self._layout != layout(x) or self.objective.learns:
                return super().step(x, observe)
            tensors, key = tensors_in(x), self._key(observe)
            if key not in self._steps:
                with preserve_rng_state(next(iter(tensors), None)):
                    self.check(observe(x))  # runs Pyro's checks: tracing skips them
                trained = self._trained_now()
                if not trained:
                    return super().step(x, observe)
                key = self._key(observe)
                self._steps[key] = self._compile(x, trained, observe)
            step = self._steps[key]
            sizes = self._step_sizes(step.states[::3], step.like)
            loss, valid, inside = step.graph((*tensors, sizes, *step.states))
            if not valid:
                raise InputError(step.sentences[inside.tolist().index(False)])
            return loss.item()
        except CannotCompile as error:
            if not self.fall_back:
                raise InputError(
                    f"the step cannot be compiled, {error}: use the eager engine", "engine"
                ) from error
            warnings.warn(f"the eager engine is used instead: {error}", stacklevel=2)
            self._layout = ()  # that of no batch: do not try again
            return super().step(x, observe)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._steps.clear()  # they hold the optimiser's old tensors

    def _trained_now(self) -> list[Tensor]:
        """Return the parameters that a step changes: callbacks hold others fixed."""
        return [parameter for parameter in self.trained if parameter.requires_grad]

    def _key(self, observe: Observe) -> Hashable:
        """Return what a compiled step is for, or None if the parameters are not known yet."""
        self.parameters.notice_replaced()
        if self.parameters.changed:
            return None
        return observe, torch.get_num_threads(), *map(id, self._trained_now())

    def _compile(self, x: Data, trained: list[Tensor], observe: Observe) -> "_Step":
        """Return the compiled step."""
        states = [state for parameter in trained for state in self._adam_state(parameter)]
        sizes = self._step_sizes(states[::3], trained[0])
        values = ObservedValues(refuse=False)
        with self._running(training=True):
            graph = Graph(self._step_function(trained, observe, values), x, sizes, *states)
        return _Step(graph, states, trained[0], values.sentences)

    def _step_function(
        self, trained: list[Tensor], observe: Observe, values: ObservedValues
    ) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
        """Return a step as a function of examples, `_step_sizes`, and Adam's state.

        It returns the loss, whether all observed values are in their supports, and the same for
        each site. If one is not, parameters and Adam's state keep their values.
        """
        group = self.optimizer.param_groups[0]
        (beta1, beta2), eps = group["betas"], group["eps"]

        def step(x: Data, sizes: Tensor, *states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            with values, self._training_precision(x):
                args, kwargs = as_arguments(observe(x))
                loss = self.objective.differentiable_loss(self.model, self.guide, *args, **kwargs)
            if self.parameters.changed:
                raise CannotCompile("its parameters are not the same in all steps")
            inside = torch.stack(values.inside) if values.inside else sizes.new_ones(1).bool()
            valid = inside.all()
            gradients = torch.autograd.grad(loss, trained, allow_unused=True)
            with torch.no_grad():  # Adam (Kingma & Ba 2015, algorithm 1), as in torch.optim
                rows = zip(states[::3], states[1::3], states[2::3], sizes, strict=True)
                for parameter, gradient, (count, mean, square, (size, correction)) in zip(
                    trained, gradients, rows, strict=True
                ):
                    if gradient is None:
                        continue
                    new_mean = mean.lerp(gradient, 1 - beta1)
                    new_square = (square * beta2).addcmul(gradient, gradient, value=1 - beta2)
                    change = size * new_mean / (new_square.sqrt() * correction + eps)
                    count.add_(valid)
                    mean.copy_(torch.where(valid, new_mean, mean))
                    square.copy_(torch.where(valid, new_square, square))
                    parameter.sub_(torch.where(valid, change, 0.0))
            return loss, valid, inside

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

    def _adam_state(self, parameter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the optimiser's count of steps and running means of gradients and their squares.

        They are the optimiser's own tensors, not copies.
        """
        state = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state["step"], state["exp_avg"], state["exp_avg_sq"]
