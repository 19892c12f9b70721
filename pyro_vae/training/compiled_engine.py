"""The engine that takes each step as one compiled graph."""

import warnings
from collections.abc import Hashable, Sequence
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae import checkpoint
from pyro_vae.errors import InputError
from pyro_vae.objectives import Objective
from pyro_vae.programs import ranks
from pyro_vae.programs.compiling import CannotCompile, Graph, layout, tensors_in
from pyro_vae.programs.observed_values import ObservedValues
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.ranks import Share
from pyro_vae.training.eager_engine import EagerEngine, Precision, Program
from pyro_vae.training.engine import Data, Observe, as_arguments, unchanged
from pyro_vae.training.optimizers import Optimizer, clipped

Moments = Sequence[Sequence[Tensor]]  # the optimiser's moments of each parameter


class _Step(NamedTuple):
    """A compiled step.

    If several processes take it together, it is two graphs: the first has the loss and the
    gradients, which are added up over the processes, and `update` has the optimiser.
    """

    graph: Graph
    update: Graph | None
    moments: list[Tensor]  # those of the optimiser's state, which it writes to
    counts: list[Tensor]  # the optimiser's number of steps of each parameter, on the CPU
    changed: list[bool]  # whether it changes each parameter: those without a gradient it does not
    like: Tensor  # one of the parameters
    sentences: list[str]  # what to say of each observed site with values outside the support


class CompiledEngine(EagerEngine):
    """Takes the steps of `EagerEngine`, each as one compiled graph, with the same noise.

    The graph holds `observe`, the loss, its gradients, and the optimiser. It is compiled for the
    layout of the first batch: its shapes, and the values of arguments that are not tensors. It is
    compiled again for each batch that is larger than all before. Other batches, such as a smaller
    one at the end of an epoch, are run eagerly, with the same optimiser; `evaluate_loss` and all
    steps of objectives that learn are run eagerly, too. The learning rate is the only setting of
    the optimiser that may change between steps.

    Args:
        model: see `EagerEngine`, as for all arguments but the last.
        guide: the model's guide.
        objective: the training objective.
        lr: the learning rate.
        precision: the precision of matrix products in training.
        optimizer: the optimiser; `Adam()` by default.
        clip_norm: the largest norm of the gradient.
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
        optimizer: Optimizer | None = None,
        clip_norm: float | None = None,
        fall_back: bool = False,
    ) -> None:
        super().__init__(
            model, guide, objective, lr, precision, optimizer=optimizer, clip_norm=clip_norm
        )
        self.fall_back = fall_back
        # They are keyed by the observe function, the number of threads, and the parameters.
        self._steps: dict[Hashable, _Step] = {}
        self._layout: Hashable = None  # that of the largest batch so far
        self._size = 0  # the number of elements in it
        self._fell_back = False

    def step(self, x: Data, observe: Observe = unchanged, share: Share | None = None) -> float:
        """Take a gradient step; see `EagerEngine`.

        Raises:
            InputError: as in `EagerEngine`; if the step cannot be compiled, and `fall_back` is
                false.
        """
        try:
            if self._fell_back or self.objective.learns or not self._is_largest(x, share):
                return super().step(x, observe, share)
            tensors, key = tensors_in(x), self._key(observe)
            if key not in self._steps:
                with preserve_rng_state(next(iter(tensors), None)):
                    self.check(observe(x))  # runs Pyro's checks: tracing skips them
                trained = self._trained_now()
                if not trained:
                    return super().step(x, observe, share)
                key = self._key(observe)
                self._steps[key] = self._compile(x, trained, observe, share)
            step = self._steps[key]
            factors = self._factors(step.counts, step.like)
            if step.update is None:
                loss, valid, inside = step.graph((*tensors, factors, *step.moments))
            else:
                with self._noise.stream(observe, share, step.like):
                    sums, valid, inside = step.graph(tensors)
            if not (valid or inside.all()):  # a loss that is not finite is returned
                raise InputError(step.sentences[inside.tolist().index(False)])
            if step.update is not None:
                ranks.add_up([sums])
                step.update((sums, factors, *step.moments))
                loss, valid = sums[-1], sums[-1].isfinite()
            if valid:
                for count in compress(step.counts, step.changed):
                    count += 1
            return loss.item()
        except CannotCompile as error:
            if not self.fall_back:
                raise InputError(
                    f"the step cannot be compiled, {error}: use the eager engine", "engine"
                ) from error
            warnings.warn(f"the eager engine is used instead: {error}", stacklevel=2)
            self._fell_back = True
            return super().step(x, observe, share)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of `EagerEngine`, and the size of the largest batch so far."""
        return {**super().state_dict(), "largest_batch": self._size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._steps.clear()  # they hold the optimiser's old tensors
        self._layout, self._size = None, checkpoint.typed(state, "largest_batch", int, default=0)

    def _is_largest(self, x: Data, share: Share | None = None) -> bool:
        """Return whether a batch has the layout of the largest one so far.

        This does not depend on where in the training an interrupted one was resumed: a checkpoint
        holds that size.
        """
        # All processes have to decide alike, also where their shares do not grow alike.
        size = sum(tensor.numel() for tensor in tensors_in(x))
        if share:
            size = size // (share.last - share.first) * share.whole
        if size > self._size or (self._layout is None and size == self._size):
            self._layout, self._size = (layout(x), share), size
            self._steps.clear()
        return self._layout == (layout(x), share)

    def _trained_now(self) -> list[Tensor]:
        """Return the parameters that a step changes: callbacks hold others fixed."""
        return [parameter for parameter in self.trained if parameter.requires_grad]

    def _key(self, observe: Observe) -> Hashable:
        """Return what a compiled step is for, or None if the parameters are not known yet."""
        self.parameters.notice_replaced()
        if self.parameters.changed:
            return None
        return observe, torch.get_num_threads(), *map(id, self._trained_now())

    def _compile(
        self, x: Data, trained: list[Tensor], observe: Observe, share: Share | None
    ) -> "_Step":
        """Return the compiled step."""
        counts = [self._state_of(parameter)["step"] for parameter in trained]
        moments = [
            [self._state_of(parameter)[name] for name in self.settings.moments]
            for parameter in trained
        ]
        flat_moments = [moment for each in moments for moment in each]
        factors = self._factors(counts, trained[0])
        changed: list[bool] = []
        values = ObservedValues(refuse=False)
        key = self._look_at_noise(x, observe, share)

        def loss_and_gradients(x: Data) -> tuple[Tensor, Sequence[Any], Tensor, Tensor]:
            """Return the loss and its gradients, whether the step is valid, and what is inside.

            The step is valid if the loss is finite and all observed values are inside their
            supports. The last result says for each site whether its values are.
            """
            with self._noise.drawn(key, share), values, self._training_precision(x):
                args, kwargs = as_arguments(observe(x))
                loss = self.objective.differentiable_loss(self.model, self.guide, *args, **kwargs)
            if self.parameters.changed:
                raise CannotCompile("its parameters are not the same in all steps")
            inside = torch.stack(values.inside) if values.inside else factors.new_ones(1).bool()
            valid = inside.all() & loss.isfinite()
            gradients = torch.autograd.grad(loss, trained, allow_unused=True)
            changed[:] = [gradient is not None for gradient in gradients]
            return loss, gradients, valid, inside

        def step(x: Data, factors: Tensor, moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
            loss, gradients, valid, inside = loss_and_gradients(x)
            self._update(trained, gradients, valid, factors, moments)
            return loss, valid, inside

        def flat_gradients(x: Data) -> tuple[Tensor, Tensor, Tensor]:
            assert share is not None
            loss, gradients, valid, inside = loss_and_gradients(x)
            flat = [each.reshape(-1) for each in gradients if each is not None]
            return torch.cat([*flat, loss.reshape(1)]) * share.counts, valid, inside

        def update(sums: Tensor, factors: Tensor, moments: Moments) -> Tensor:
            parts = iter(sums.split([*(p.numel() for p in compress(trained, changed)), 1]))
            gradients = [
                next(parts).view_as(p) if has else None
                for p, has in zip(trained, changed, strict=True)
            ]
            self._update(trained, gradients, sums[-1].isfinite(), factors, moments)
            return sums[-1]

        with self._running(training=True):
            if share is None:
                first, second = Graph(step, x, factors, moments), None
            else:
                first = Graph(flat_gradients, x)
                sizes = [parameter.numel() for parameter in compress(trained, changed)]
                second = Graph(update, trained[0].new_zeros(sum(sizes) + 1), factors, moments)
        return _Step(first, second, flat_moments, counts, changed, trained[0], values.sentences)

    def _update(
        self,
        trained: list[Tensor],
        gradients: Sequence[Any],
        valid: Tensor,
        factors: Tensor,
        moments: Moments,
    ) -> None:
        """Update the parameters and the optimiser's moments, if the step is valid.

        Args:
            trained: the parameters.
            gradients: a tensor for each, or None.
            valid: whether it is.
            factors: what `_factors` returned.
            moments: the optimiser's moments of each parameter.
        """
        with torch.no_grad():
            if self.clip_norm is not None:
                gradients = clipped(gradients, self.clip_norm)
            for parameter, gradient, numbers, old in zip(
                trained, gradients, factors, moments, strict=True
            ):
                if gradient is None:
                    continue
                change, new = self.settings.update(parameter, gradient, old, numbers)
                for moment, value in zip(old, new, strict=True):
                    moment.copy_(torch.where(valid, value, moment))
                parameter.sub_(torch.where(valid, change, 0.0))

    def _factors(self, counts: list[Tensor], like: Tensor) -> Tensor:
        """Return the factors of the next step of each parameter; see `Optimizer.factors`.

        They are computed outside the graph, which would compute them for each element again, in
        double precision.

        Args:
            counts: the number of steps of each parameter.
            like: a tensor with the type and the device of the result.

        Returns:
            Shape [parameters, factors].
        """
        rows = [self.settings.factors(self.lr, count + 1) for count in torch.stack(counts).tolist()]
        return torch.tensor(rows, dtype=like.dtype, device=like.device)

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the optimiser's count of steps and its moments: its own tensors, not copies."""
        state: dict[str, Tensor] = self.optimizer.state[parameter]
        if not state:
            # torch.optim keeps the count on the CPU, wherever the parameter is.
            state["step"] = torch.zeros((), dtype=torch.float32)
            state |= {name: torch.zeros_like(parameter) for name in self.settings.moments}
        return state
