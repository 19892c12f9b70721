"""The reference engine: every step is a step of `pyro.infer.SVI`."""

import contextlib
import copy
import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Literal

import pyro
import torch
from pyro.infer import SVI
from pyro.infer.util import zero_grads
from pyro.optim import PyroOptim
from torch import Tensor

from pyro_vae import checkpoint
from pyro_vae.errors import InputError
from pyro_vae.objectives import Objective
from pyro_vae.programs import ranks
from pyro_vae.programs.compiling import tensors_in
from pyro_vae.programs.observed_values import ObservedValues
from pyro_vae.programs.parameters import OwnParameters, as_module, leaves
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.ranks import Share
from pyro_vae.programs.training_mode import state_restored
from pyro_vae.training.engine import Data, Observe, as_arguments, unchanged
from pyro_vae.training.optimizers import Adam, Optimizer
from pyro_vae.training.shared_steps import SharedNoise, add_up_gradients

Precision = Literal["float32", "bfloat16"]
Program = Callable[..., Any]


class _SharedOptimizer(PyroOptim):
    """One torch optimiser for all parameters. `PyroOptim` makes one optimiser per parameter."""

    def __init__(self, engine: "EagerEngine") -> None:
        super().__init__(type(engine.optimizer), {})
        self.engine = engine

    def __call__(self, params: set[Tensor], *args: Any, **kwargs: Any) -> None:
        self.engine.update_trained()
        if not getattr(self.engine.objective, "is_finite", True):
            return  # there are no gradients
        if self.engine.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.engine.trained, self.engine.clip_norm)
        self.engine.optimizer.step()
        # SVI does the same for the parameters that the programs register with Pyro.
        zero_grads([parameter for parameter in self.engine.trained if parameter not in params])


class EagerEngine:
    """Runs model and guide anew in every step, by `pyro.infer.SVI`.

    All parameters that the programs use are trained: those of modules, whether or not they are
    registered with Pyro, and those that `pyro.param` makes, at the first run. Modules keep their
    own parameters, so several engines can coexist in one process. What `pyro.param` makes from a
    value is in Pyro's store by its name, as with `pyro.infer.SVI`, and is trained as it is stored,
    without its constraint.

    Args:
        model: a Pyro program: a module, or any other callable.
        guide: the same kind of program, the model's guide; Pyro's autoguides, too.
        objective: the training objective.
        lr: the learning rate.
        precision: the precision of matrix products in training. All other operations have the
            precision of the parameters.
        optimizer: the optimiser; `Adam()` by default.
        clip_norm: the largest norm of the gradient of the loss, summed over the batch, by all
            parameters together. Larger gradients are scaled down to it. None does not limit it.

    Raises:
        InputError: if model and guide have two parameters that Pyro would take for one, or
            `clip_norm` is not positive.
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
    ) -> None:
        if clip_norm is not None and not clip_norm > 0:
            raise InputError(f"clip_norm has to be positive, but is {clip_norm}", "clip_norm")
        self.model = as_module(model)
        self.guide = as_module(guide)
        self.objective = objective
        self.precision = precision
        self.parameters = OwnParameters(self.model, self.guide)
        self.clip_norm = clip_norm
        self.settings = optimizer or Adam()
        self.optimizer = self.settings.of([{"params": self._to_train({})}], lr)
        self.optimizer.zero_grad()  # gradients of other work are not part of the first step
        self._svi = SVI(
            self.model, self.guide, _SharedOptimizer(self), objective.loss, self._loss_and_grads
        )
        self._noise = SharedNoise()
        self._draws = contextlib.ExitStack()  # the context in which a step draws noise
        self._looked = False
        self._validated_modes: set[bool] = set()

    @property
    def trained(self) -> list[Tensor]:
        """The parameters that the optimiser trains, in its order."""
        return self.optimizer.param_groups[0]["params"]

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.optimizer.param_groups[0]["lr"]

    @lr.setter
    def lr(self, lr: float) -> None:
        self.optimizer.param_groups[0]["lr"] = lr

    def step(self, x: Data, observe: Observe = unchanged, share: Share | None = None) -> float:
        """Take a gradient step.

        Args:
            x: a batch of stored examples, a tensor of shape [batch, *event], or a nest of tensors;
                a tuple holds the positional arguments of the programs.
            observe: a function that turns stored examples into what the likelihood sees.
            share: which rows of a batch x is, if several processes take the step together; x is
                a tensor then.

        Returns:
            The objective before the step, summed over the batch, in nats.

        Raises:
            InputError: if values are outside the support of what observes them; in the first step,
                if the programs use parameters that would not be trained. No parameter has been
                changed then, but buffers, such as running means, may have been.
        """
        if not self._looked:
            with preserve_rng_state(next(iter(tensors_in(x)), None)):
                self._look(observe(x))
        key = self._look_at_noise(x, observe, share)
        with (
            self._running(training=True),
            ObservedValues(),
            self._training_precision(x),
            self._noise.stream(key, share, self._like(x)),
            self._draws,
        ):
            self._draws.enter_context(self._noise.drawn(key, share))
            args, kwargs = as_arguments(observe(x))
            return self._svi.step(*args, **kwargs)

    def _loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the loss of the batch, and add its gradients to those of the parameters."""
        share = ranks.current()
        if share is None or self.objective.learns:
            loss = self.objective.loss_and_grads(model, guide, *args, **kwargs)
        else:
            total = self.objective.differentiable_loss(model, guide, *args, **kwargs)
            self._draws.close()  # the way back draws nothing, and looking for draws takes time
            loss = self.objective.backward(total)
        if share is None:
            return loss
        self.update_trained()
        loss = add_up_gradients(loss, self.trained, share)
        self.objective.is_finite = math.isfinite(loss)
        return loss

    def _look_at_noise(self, x: Data, observe: Observe, share: Share | None) -> Hashable:
        """Find out what noise a step draws, if several processes take it, and return its key."""
        if share is None:
            return None

        def run(batch: Tensor) -> None:
            with (
                state_restored(self.model, self.guide),
                self._running(training=True),
                ObservedValues(),
                self._training_precision(batch),
            ):
                args, kwargs = as_arguments(observe(batch))
                self.objective.differentiable_loss(self.model, self.guide, *args, **kwargs)

        self._noise.look(observe, run, x)
        return observe

    def _like(self, x: Data) -> Tensor:
        """Return a tensor on the device of the programs."""
        return next(iter([*self.trained, *tensors_in(x), torch.empty(0)]))

    def evaluate_loss(self, x: Data) -> float:
        """Estimate the negative of the objective's bound on log p(x).

        The KL has its full weight in this bound, whatever weight the objective's schedule gives it.

        Args:
            x: a batch of examples as the likelihood sees them, of any form that `step` takes.

        Returns:
            Nats, summed over the batch.

        Raises:
            InputError: if values are outside the support of what observes them.
        """
        with self._running(training=False), ObservedValues():
            args, kwargs = as_arguments(x)
            return self._svi.evaluate_loss(*args, **kwargs)

    def check(self, x: Data) -> None:
        """Run the programs as in a step and as in an evaluation, once each, and change nothing.

        Parameters that the programs make when they first run are made.

        Args:
            x: a batch of examples as the likelihood sees them, of any form that `step` takes.

        Raises:
            InputError: if the programs and the objective do not go together.
        """
        self._validated_modes.clear()
        with state_restored(self.model, self.guide):
            loss = self._look(x)
            self.evaluate_loss(x)
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss:g} before the first step: some part of the model, or "
                "the objective, has an argument that does not suit the data"
            )

    def _look(self, x: Data) -> float:
        """Run the programs as in a step, find the parameters that they use, and return the loss.

        Raises:
            InputError: if a parameter would not be trained.
        """
        with (
            state_restored(self.model, self.guide),
            self._running(training=True),
            ObservedValues(),
            self._training_precision(x),
        ):
            args, kwargs = as_arguments(x)
            loss = self.objective.differentiable_loss(self.model, self.guide, *args, **kwargs)
        known = {*self.trained, *tensors_in(x)}
        for leaf in leaves(loss):
            if leaf not in known:
                raise InputError(
                    f"the programs use a parameter of shape {list(leaf.shape)} that would not be "
                    "trained or saved: it is neither a parameter of their modules nor a "
                    "pyro.param. Register its module by pyro.module"
                )
        self._looked = True
        return loss.item()

    @contextlib.contextmanager
    def _running(self, training: bool) -> Iterator[None]:
        """Put the programs into a mode, and let them use their own parameters.

        Pyro's checks are on the first time only, in each mode.
        """
        for module in (self.model, self.guide):
            if module.training != training:
                module.train(training)
        validation: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if training in self._validated_modes:
            validation = pyro.validation_enabled(False)
        with self.parameters.scope(), validation:
            yield
            self.update_trained()
        self._validated_modes.add(training)

    def update_trained(self) -> None:
        """Let the optimiser train all parameters that the programs have used so far."""
        if self.parameters.changed:
            self.trained[:] = self._to_train(self.parameters.others())

    def _to_train(self, others: dict[str, Tensor]) -> list[Tensor]:
        """Return the parameters to train: those of the modules, in their order, and others.

        A parameter that is held fixed for the moment stays in the list, if it is there.
        """
        # A parameter that both programs have is in the list once.
        all_of_them = dict.fromkeys(
            [*self.model.parameters(), *self.guide.parameters(), *others.values()]
        )
        already = set(self.trained) if hasattr(self, "optimizer") else set()
        return [p for p in all_of_them if p.requires_grad or p in already]

    def _training_precision(self, x: Data) -> contextlib.AbstractContextManager[None]:
        """Compute matrix products in the precision of training."""
        device = self._like(x).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the model, the guide, the optimiser and the objective.

        If there are trained parameters that are not those of modules, they are included, without
        their constraints.
        """
        state = {
            "model": self.model.state_dict(),
            "guide": self.guide.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
        }
        others = self._others()
        if others:
            state["parameters"] = {name: value.detach() for name, value in others.items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        The settings of the optimiser are those of this engine, but for the learning rate.

        Raises:
            InputError: if the state has parameters that the programs make when they first run, and
                they have not run yet; or if it is that of an optimiser with other moments, or with
                moments of other shapes.
        """
        moments = {name for each in state["optimizer"]["state"].values() for name in each}
        if moments and moments != {"step", *self.settings.moments}:
            raise InputError(
                f"the state is that of another optimiser: {type(self.settings).__name__} has the "
                f"moments {' and '.join(self.settings.moments)}",
                "optimizer",
            )
        saved, others = state.get("parameters", {}), self._others()
        lazy = saved.keys() != others.keys() or (state["guide"] and not self.guide.state_dict())
        if lazy and not self._looked:
            raise InputError(
                "the programs make parameters when they first run, and have not run yet: call the "
                "engine's check with a batch before its state is restored"
            )
        self.model.load_state_dict(state["model"])
        self.guide.load_state_dict(state["guide"])
        with torch.no_grad():
            for name, value in others.items():
                value.copy_(saved[name])
        group = self.optimizer.param_groups[0]
        settings = {name: group[name] for name in group.keys() - {"params", "lr"}}
        # torch would share the tensors of the state with the optimiser: copy them.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        checkpoint.typed(self.optimizer.param_groups[0], "lr", float)
        for parameter, own in self.optimizer.state.items():  # torch does not look at shapes
            if own["step"].shape != () or not own["step"] >= 0:
                raise InputError("the state of the optimiser has no number of steps", "optimizer")
            for name in self.settings.moments:
                if own[name].shape != parameter.shape:
                    raise InputError(
                        f"the state of the optimiser does not fit: a moment of the shape "
                        f"{list(own[name].shape)} belongs to a parameter of the shape "
                        f"{list(parameter.shape)}",
                        "optimizer",
                    )
        self.optimizer.param_groups[0].update(settings)
        self.objective.load_state_dict(state["objective"])

    def _others(self) -> dict[str, Tensor]:
        """Return the parameters that are trained and not those of modules, by their names."""
        with self.parameters.scope():
            self.update_trained()
            return self.parameters.others()
