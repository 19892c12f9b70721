"""A callback that trains the guide ahead of the model, as long as that helps."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae import checkpoint
from pyro_vae.errors import InputError, check_range
from pyro_vae.programs import ranks
from pyro_vae.training.callbacks import Callback, Training, diagnose, enough_to_diagnose
from pyro_vae.training.engine import Engine
from pyro_vae.training.shared_steps import take_step

MEASURE_EVERY = 50  # steps of the model


class GuideFirst(Callback):
    """Trains the guide alone before each step of the model (He et al. 2019).

    Early in training q(z|x) lags behind the model's p(z|x), and the model learns to ignore z.
    Therefore the guide takes steps alone before each step of the model: until the last ten steps
    were no better than the ten before them, or until the limit is reached. A limit below twenty is
    always reached. Then the model takes its step alone.

    The guide goes first as long as the mutual information of x and z grows. It is measured on
    validation examples every 50 steps of the model. If it did not grow in the last measurement of
    an epoch, the guide never goes first again: from the next epoch on, guide and model take their
    steps together. (The paper measures once an epoch, which has some thousand steps.)

    It adds the columns `guide_steps`, how many steps the guide took alone in the epoch; `lagging`,
    whether the guide goes first in the next epoch; and `led_to`, the last measured mutual
    information, in nats.

    Args:
        validation: examples as the likelihood sees them, shape [M, *event].
        steps: the largest number of steps that the guide takes alone before a step of the model.

    Raises:
        InputError: if there are fewer than two examples, or `steps` is less than 1.
    """

    def __init__(self, validation: Tensor, steps: int) -> None:
        check_range("steps", steps, 1, math.inf)
        self.validation = enough_to_diagnose(validation)
        self.steps = steps
        self.lagging = True
        self.mutual_information: float | None = None  # None until it is measured
        self._over = False  # whether the guide never goes first again
        self._guide_steps = 0  # of this epoch

    def check(self, engine: Engine) -> None:
        """Refuse objectives that learn.

        Raises:
            InputError: if the objective changes in each step.
        """
        if engine.objective.learns:
            raise InputError(
                f"{type(engine.objective).__name__} learns in each step, and steps of the guide "
                "alone would mislead it: use another objective, or do not train the guide first",
                "objective",
            )

    def start(self, training: Training) -> None:
        """Refuse guides that have no parameters of their own.

        Raises:
            InputError: if the guide is a function, whose parameters cannot be told from those of
                the model.
        """
        if not any(True for _ in training.engine.guide.parameters()):
            raise InputError(
                "the guide is not a module with parameters, so it cannot be trained first: make "
                "it a torch.nn.Module, or do not train the guide first"
            )

    @contextlib.contextmanager
    def around_step(self, training: Training) -> Iterator[None]:
        """Take the guide's steps, and hold the guide fixed in the model's step."""
        if self._over:
            yield
            return
        if training.step % MEASURE_EVERY == 0:
            measured = diagnose(training.engine, self.validation)["mutual_information"]
            measured = ranks.from_first(measured)
            before = self.mutual_information
            self.lagging = before is None or measured > before
            self.mutual_information = measured
        if not self.lagging:
            yield
            return
        self._train_guide(training)
        with fixed(training.engine.guide.parameters()):
            yield

    def _train_guide(self, training: Training) -> None:
        """Take steps of the guide alone, each on a batch of examples drawn at random."""
        engine, train = training.engine, training.train
        of_guide = set(engine.guide.parameters())
        losses: list[float] = []
        with fixed(p for p in engine.model.parameters() if p not in of_guide):
            while len(losses) < self.steps:
                batch = torch.randint(len(train), (training.batch_size,), device=train.device)
                losses.append(take_step(engine, train, batch, training.observe))
                rounds, rest = divmod(len(losses), 10)
                if rounds > 1 and not rest and sum(losses[-10:]) >= sum(losses[-20:-10]):
                    break
        self._guide_steps += len(losses)

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        """Add the columns, and decide whether the guide goes first in the next epoch."""
        row["guide_steps"] = self._guide_steps
        row["lagging"] = self.lagging
        row["led_to"] = self.mutual_information
        self._guide_steps = 0
        self._over = not self.lagging

    def state_dict(self) -> dict[str, Any]:
        """Return what the next steps depend on, and the number of the guide's in this epoch."""
        return {
            "lagging": self.lagging,
            "mutual_information": self.mutual_information,
            "over": self._over,
            "guide_steps": self._guide_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.lagging = checkpoint.typed(state, "lagging", bool)
        self.mutual_information = checkpoint.typed(state, "mutual_information", float, None)
        # Older checkpoints do not hold these: they are of the ends of epochs.
        self._over = checkpoint.typed(state, "over", bool, default=not self.lagging)
        self._guide_steps = checkpoint.typed(state, "guide_steps", int, default=0)


@contextlib.contextmanager
def fixed(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Hold parameters fixed. They have no gradient, so Adam leaves them and its means unchanged."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
