"""Callbacks: what happens in the course of training beside the steps themselves."""

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae import checkpoint, diagnostics
from pyro_vae.data import Rows
from pyro_vae.errors import DivergenceError, InputError, check_range
from pyro_vae.objectives import ELBO, IWAE, Objective
from pyro_vae.programs import ranks
from pyro_vae.programs.parameters import OwnParameters
from pyro_vae.programs.random_streams import preserve_rng_state, stream_seed
from pyro_vae.training.divergence import explain
from pyro_vae.training.engine import Engine, Observe
from pyro_vae.training.interruption import Place

History = list[dict[str, Any]]


@dataclass
class Training:
    """Where a training is, for callbacks to read.

    Attributes:
        engine: the engine that takes the steps.
        train: stored training examples, shape [N, *event].
        observe: a function that turns stored examples into what the likelihood sees.
        epochs: the number of the last epoch; None if only callbacks end the training.
        batch_size: the number of examples in a step; the last step of an epoch may have fewer. A
            callback may change it before an epoch.
        seed: the seed of the order of the examples, and of all noise in training.
        callbacks: all callbacks, in their order.
        epoch: the number of the current epoch, from 1; before it, the number of finished epochs.
        step: the number of the current step, from 1, counted over all epochs.
        progress: the share of training that was done before the current step, from 0 to 1: of the
            epochs, or of the budget of time, if that is more.
        end_reason: why training ends before its last epoch, a sentence without a full stop. A
            callback that sets it ends the training after the current step.
        history: a row for each finished epoch. While `after_epoch` runs, the last is that of the
            current epoch.
        last_checkpoint: the file to resume from, once there is one.
        saved_at: which place it is of, such as "epoch 3".
        place: where the current epoch is, between two of its steps; None between epochs.
        bound_before: the validation bound before training, in nats; None if it is not known.
        pause: whether training is to pause after the current step; see `Callback.during_epoch`. A
            callback sets it.
    """

    engine: Engine
    train: Tensor | Rows
    observe: Observe
    epochs: int | None
    batch_size: int
    seed: int
    callbacks: Sequence["Callback"]
    epoch: int = 0
    step: int = 0
    progress: float = 0.0
    end_reason: str | None = None
    history: History = field(default_factory=list)
    last_checkpoint: Path | None = None
    saved_at: str = ""
    place: Place | None = None
    bound_before: float | None = None
    pause: bool = False

    @property
    def is_over(self) -> bool:
        """Whether no epoch follows the current one."""
        return self.end_reason is not None or self.epoch == self.epochs

    def diverged(self, what: str, value: float, where: str, why: str = "") -> DivergenceError:
        """Return the error to raise if a number is not finite.

        Args:
            what: the name of the number, such as "loss".
            value: the number.
            where: the step or the epoch in which it was computed.
            why: half a sentence; see `divergence.explain`.
        """
        if self.last_checkpoint is None:
            kept = "there is no checkpoint from before it"
        else:
            kept = f"the last good checkpoint, of {self.saved_at}, is {self.last_checkpoint}"
        return DivergenceError(
            f"the {what} became {value} in {where}{why and f': {why}'}; {kept}: use a smaller "
            "learning rate"
        )


class Callback:
    """Something that happens in the course of training. Subclass it and override what you need.

    Training may be interrupted between any two steps, and resumed there. So `state_dict` returns
    what later steps of the same epoch depend on, too.

    Every epoch draws its noise from its own random stream, made from the seed and the epoch's
    number. `start` and `after_epoch` are free to draw random numbers: they cannot change the noise
    of an epoch. What `around_epoch` and `around_step` draw comes from the epoch's own stream, and
    is the same again in a training that was interrupted and resumed.
    """

    def check(self, engine: Engine) -> None:
        """Raise an `InputError` if this callback does not go together with the engine."""

    def resume(self, training: Training) -> None:
        """Bring an interrupted training back to where it stopped. Only `Checkpoint` does so."""

    def start(self, training: Training) -> None:
        """Do something before the first epoch, or, in a resumed training, before the next one."""

    def around_epoch(self, training: Training) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the steps of an epoch are taken.

        If training pauses in the epoch, the context is left, and another one is entered for the
        rest of the steps: in the same process, or where an interrupted training is resumed.
        """
        return contextlib.nullcontext()

    def around_step(self, training: Training) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the engine takes the step number `training.step`."""
        return contextlib.nullcontext()

    def during_epoch(self, training: Training) -> None:
        """Do something where training pauses in an epoch, at `Training.place`.

        It pauses if a callback asks for it, and where the user or the system ends it.
        """

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        """Do something after an epoch.

        Args:
            training: where the training is.
            row: the epoch's row of `metrics.csv`. Callbacks may add columns to it.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what later steps depend on: tensors, numbers, strings, and lists of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in a training that is resumed."""


class Validate(Callback):
    """Estimates a bound on log p(x) of validation examples, as `validation_bound`.

    The bound is a mean over examples, in nats. The noise is the same after every epoch, so that
    epochs are compared fairly. A bound that is not finite raises a `DivergenceError`.

    Args:
        validation: examples as the likelihood sees them, shape [M, *event].
        every: the number of epochs from one estimate to the next. The last epoch always has one.
        by: the bound: `objective`, the one that the training objective names; `ELBO`; or `IWAE_K`
            with a number K of draws, such as `IWAE_50`.
        before: whether the bound is also estimated before training, as `Training.bound_before`.

    Raises:
        InputError: if there are no examples, `every` is less than 1, or there is no such bound.
    """

    def __init__(
        self, validation: Tensor, every: int = 1, by: str = "objective", before: bool = False
    ) -> None:
        if len(validation) == 0:
            raise InputError("there are no validation examples: the bound needs at least one")
        check_range("every", every, 1, math.inf)
        self.validation = validation
        self.every = every
        self.bound = bound_named(by)
        self.before = before
        self._before: float | None = None

    def start(self, training: Training) -> None:
        """Estimate the bound before training, if this is asked for."""
        if self.before and training.step == 0:
            with preserve_rng_state(training.train):
                self._before = self._estimate(training)
        training.bound_before = self._before

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        """Add the column `validation_bound`, if it is time for it."""
        if training.epoch % self.every and not training.is_over:
            return
        bound = self._estimate(training)
        if not math.isfinite(bound):
            x = self.validation[:1000]
            numbers = torch.arange(len(x))
            engine = training.engine
            why = explain(engine.model, engine.guide, x, numbers, "validation")
            raise training.diverged("validation bound", bound, f"epoch {training.epoch}", why)
        row["validation_bound"] = bound

    def state_dict(self) -> dict[str, Any]:
        """Return the bound before training."""
        return {"before": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; older checkpoints do not hold it."""
        self._before = checkpoint.typed(state, "before", float, None, default=None)

    def _estimate(self, training: Training) -> float:
        torch.manual_seed(stream_seed(training.seed, 0))
        return ranks.from_first(-self._loss(training.engine) / len(self.validation))

    def _loss(self, engine: Engine) -> float:
        """Return the negative of the bound, summed over the examples."""
        if self.bound is None:
            return sum(engine.evaluate_loss(x) for x in self.validation.split(1000))
        engine.model.eval()  # the engine's next step puts them back into training mode
        engine.guide.eval()
        # Larger batches take longer: they do not fit into the cache of a processor.
        batches = self.validation.split(max(1, 1000 // self.bound.num_draws))
        with OwnParameters(engine.model, engine.guide).scope():
            return sum(self.bound.loss(engine.model, engine.guide, x) for x in batches)


def bound_named(name: str) -> Objective | None:
    """Return the objective whose bound has this name; None for `objective`.

    Raises:
        InputError: if it is neither `objective` nor `ELBO` nor `IWAE_K`.
    """
    if name == "objective":
        return None
    if name == "ELBO":
        return ELBO()
    draws = re.fullmatch(r"IWAE_([1-9]\d*)", name)
    if draws is None:
        raise InputError(
            f"'{name}' is not a bound to validate by: choose objective, ELBO, or IWAE_K with a "
            "number K of draws, such as IWAE_50",
            "validate_by",
        )
    return IWAE(int(draws[1]))


class Diagnose(Callback):
    """Diagnoses the latent code, on at most 500 validation examples, every few epochs.

    It adds the columns `kl` and `mutual_information`, in nats, and `active_units`.

    Args:
        validation: examples as the likelihood sees them, shape [M, *event].
        every: the number of epochs from one diagnosis to the next.

    Raises:
        InputError: if there are fewer than two examples, or `every` is less than 1.
    """

    def __init__(self, validation: Tensor, every: int = 5) -> None:
        check_range("every", every, 1, math.inf)
        self.validation = enough_to_diagnose(validation)
        self.every = every

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        """Add the columns, if it is time for a diagnosis."""
        if training.epoch % self.every == 0:
            row |= diagnose(training.engine, self.validation)


def enough_to_diagnose(validation: Tensor) -> Tensor:
    """Return validation examples.

    Raises:
        InputError: if there are too few to diagnose the latent code on.
    """
    if len(validation) < 2:
        raise InputError(
            "one validation example is too little to diagnose the latent code: give two or more"
        )
    return validation


def diagnose(engine: Engine, validation: Tensor) -> dict[str, float]:
    """Diagnose the latent code on the first 500 validation examples, which is cheap."""
    engine.model.eval()  # the engine's next step puts them back into training mode
    engine.guide.eval()
    with OwnParameters(engine.model, engine.guide).scope():
        diagnosis = diagnostics.diagnose(engine.model, engine.guide, validation[:500])
    return {
        "kl": diagnosis.information.rate.mean().item(),
        "mutual_information": diagnosis.information.mutual_information.mean().item(),
        "active_units": diagnosis.active,
    }
