"""Averages of the parameters over steps, which are evaluated and kept in place of the last ones."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pyro_vae import checkpoint
from pyro_vae.errors import InputError, check_range
from pyro_vae.training.callbacks import Callback, Training
from pyro_vae.training.engine import Engine


class Averaging(Callback, ABC):
    """Averages the parameters over the steps of training.

    While an epoch's steps are taken, model and guide have the parameters that are trained. Between
    epochs, and after the last one, they have the average. So the average is what is validated,
    diagnosed, and saved as the model. The trained parameters are in the state of this callback.

    Buffers are not averaged. They stay as training left them, so networks whose evaluation depends
    on batch statistics of the trained parameters are refused.

    To add a kind of average, override `weight`.

    Args:
        begins: the progress of training, from 0 to 1, at which the average begins. Before it, the
            parameters themselves take the place of the average.
    """

    def __init__(self, begins: float = 0.0) -> None:
        self.begins = begins
        self.count = 0  # the number of steps in the average
        self._others: list[Tensor] = []  # the average in an epoch, the trained values outside it
        self._trained: list[Tensor] = []  # the parameters in an epoch; steps need them at once

    @abstractmethod
    def weight(self, count: int) -> float:
        """Return the weight of the newest parameters in an average of `count` steps, from 1."""

    def check(self, engine: Engine) -> None:
        """Refuse batch normalisation.

        Raises:
            InputError: if a module of model or guide has running batch statistics.
        """
        for module in (*engine.model.modules(), *engine.guide.modules()):
            if "BatchNorm" in type(module).__name__:  # torch's and Pyro's
                raise InputError(
                    f"{type(module).__name__} has batch statistics, which do not fit averaged "
                    "parameters: leave out averaging, or use a network without them",
                    "average",
                )

    def start(self, training: Training) -> None:
        """Refuse programs with parameters that are not those of their modules.

        Raises:
            InputError: if `pyro.param` made some.
        """
        if "parameters" in training.engine.state_dict():
            raise InputError(
                "the programs have a pyro.param, and only parameters of modules are averaged: make "
                "it a torch.nn.Parameter",
                "average",
            )

    @contextlib.contextmanager
    def around_epoch(self, training: Training) -> Iterator[None]:
        """Give the programs their trained parameters, and the average at the end."""
        parameters = _parameters(training.engine)
        if not self._others:
            self._others = [parameter.detach().clone() for parameter in parameters]
        shapes = [getattr(other, "shape", None) for other in self._others]
        if shapes != [parameter.shape for parameter in parameters]:
            raise InputError("the parameters in the checkpoint are those of another model")
        self._others = [
            other.to(p.device) for other, p in zip(self._others, parameters, strict=True)
        ]
        self._trained = parameters
        self._exchange(parameters)
        try:
            yield
        finally:
            self._exchange(parameters)

    @contextlib.contextmanager
    def around_step(self, training: Training) -> Iterator[None]:
        """Put the parameters after the step into the average."""
        yield
        self.count = 0 if training.progress < self.begins else self.count + 1
        weight = self.weight(self.count) if self.count else 1.0
        with torch.no_grad():
            for average, parameter in zip(self._others, self._trained, strict=True):
                average.lerp_(parameter, weight)

    def _exchange(self, parameters: list[Tensor]) -> None:
        """Exchange values in place: engines, and compiled steps, hold the tensors."""
        with torch.no_grad():
            for parameter, other in zip(parameters, self._others, strict=True):
                value = parameter.detach().clone()
                parameter.copy_(other)
                other.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the trained parameters, and the number of steps in the average."""
        return {"count": self.count, "trained": self._others}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.count = checkpoint.typed(state, "count", int)
        self._others = list(checkpoint.typed(state, "trained", list))


class EMA(Averaging):
    """An exponential moving average: each step has a weight of 1 - decay.

    In the first steps the average is that of all steps so far, until that is the shorter memory.

    Args:
        decay: how much of the average is kept in a step.

    Raises:
        InputError: if it is not between 0 and 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = check_range("decay", decay, 0, 1)

    def weight(self, count: int) -> float:
        """Return 1 - decay, or 1 / count if that is larger."""
        return max(1 - self.decay, 1 / count)


class TailMean(Averaging):
    """The mean over the last steps of training; before them, the parameters themselves.

    Args:
        share: the share of training over which the mean is taken.

    Raises:
        InputError: if it is not between 0 and 1.
    """

    def __init__(self, share: float = 0.25) -> None:
        super().__init__(begins=1 - check_range("share", share, 0, 1))

    def weight(self, count: int) -> float:
        """Return 1 / count."""
        return 1 / count


def _parameters(engine: Engine) -> list[Tensor]:
    """Return the parameters of model and guide, each once."""
    return list(dict.fromkeys([*engine.model.parameters(), *engine.guide.parameters()]))
