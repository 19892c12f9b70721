"""Schedules: callbacks that change the learning rate, or the batch size, in the course of training.

They follow `Training.progress`, the share of training that is done. So they end with the last
epoch, or with the budget of time, if there is one. If a training is resumed with more epochs, or a
larger budget, the same work is a smaller share: a learning rate that had fallen rises again.

To add a schedule of the learning rate, subclass `Schedule`, override `factor`, and name the class
in `pyro_vae/training/__init__.py`. The command line then takes it by its name.
"""

import contextlib
import math
from abc import ABC, abstractmethod

from pyro_vae.errors import InputError, check_range
from pyro_vae.training.callbacks import Callback, Training


class Schedule(Callback, ABC):
    """Sets the learning rate before each step: lr * factor(progress), after a linear warm-up.

    In the list of callbacks it comes after a `Budget`, and before `GuideFirst`, whose steps have
    the learning rate of the step that they precede.

    Args:
        lr: the largest learning rate.
        warmup: the number of steps in which the learning rate rises from 0 to lr.

    Raises:
        InputError: if `lr` is not positive, or `warmup` is negative.
    """

    def __init__(self, lr: float, warmup: int = 0) -> None:
        if not 0 < lr < math.inf:
            raise InputError(f"the learning rate has to be positive, but is {lr}", "lr")
        check_range("warmup", warmup, 0, math.inf)
        self.lr = lr
        self.warmup = warmup

    @abstractmethod
    def factor(self, progress: float) -> float:
        """Return the learning rate as a share of lr.

        Args:
            progress: the share of training that is done, from 0 to 1.
        """

    def around_step(self, training: Training) -> contextlib.AbstractContextManager[None]:
        """Set the learning rate of the step."""
        lr = self.lr * self.factor(training.progress)
        if training.step < self.warmup:
            lr *= training.step / self.warmup
        training.engine.lr = lr
        return contextlib.nullcontext()


class Constant(Schedule):
    """The same learning rate in all steps."""

    def factor(self, progress: float) -> float:
        """Return 1."""
        return 1.0


class Cosine(Schedule):
    """Half a period of a cosine, from lr down to `last` times lr (Loshchilov & Hutter 2017).

    Args:
        last: the learning rate at the end, as a share of lr.

    Raises:
        InputError: as in `Schedule`, or if `last` is not between 0 and 1.
    """

    def __init__(self, lr: float, warmup: int = 0, last: float = 0.0) -> None:
        super().__init__(lr, warmup)
        self.last = check_range("last", last, 0, 1)

    def factor(self, progress: float) -> float:
        """Return last + (1 - last) (1 + cos(pi progress)) / 2."""
        return self.last + (1 - self.last) * (1 + math.cos(math.pi * progress)) / 2


class Stages(Schedule):
    """Stages, each `growth` times as long as the one before, from lr down to `last` times lr.

    The learning rates of the stages are a geometric sequence. The defaults are the schedule of
    Burda et al. 2015: with 3,280 epochs, stage i of 0 .. 7 has 3^i passes and a learning rate of
    lr * 10^(-i/7). With other numbers of epochs it is stretched.

    Args:
        stages: the number of stages.
        growth: the length of a stage as a multiple of that of the one before.
        last: the learning rate of the last stage, as a share of lr.

    Raises:
        InputError: as in `Schedule`, or if there are fewer than two stages, `growth` is not
            positive, or `last` is not between 0 and 1.
    """

    def __init__(
        self, lr: float, warmup: int = 0, stages: int = 8, growth: float = 3.0, last: float = 0.1
    ) -> None:
        super().__init__(lr, warmup)
        check_range("stages", stages, 2, 1000)
        check_range("growth", growth, 1e-3, 1e3)
        lengths = [growth**i for i in range(stages)]
        self.ends = [sum(lengths[: i + 1]) / sum(lengths) for i in range(stages - 1)]
        self.last = check_range("last", last, 0, 1)

    def factor(self, progress: float) -> float:
        """Return last^(i / (stages - 1)) in stage i."""
        stage = sum(progress >= end for end in self.ends)
        return self.last ** (stage / len(self.ends))


class BatchDoubling(Callback):
    """Doubles the batch size a few times, at the starts of epochs (Smith et al. 2018).

    Training is divided into equal parts by its progress, and the batch size is doubled between
    them, up to the number of training examples. It comes after a `Budget` in the list of callbacks.

    Args:
        times: how often the batch size is doubled.

    Raises:
        InputError: if `times` is less than 1, or more than 30.
    """

    def __init__(self, times: int) -> None:
        if not 1 <= times <= 30:
            raise InputError(
                f"the batch size can be doubled 1 to 30 times, but {times} times were asked for",
                "batch_doublings",
            )
        self.times = times
        self.first = 0  # the batch size at the start

    def start(self, training: Training) -> None:
        """Remember the batch size at the start."""
        self.first = training.batch_size

    def around_epoch(self, training: Training) -> contextlib.AbstractContextManager[None]:
        """Set the batch size of the epoch."""
        training.batch_size = self.size(self.first, training.progress, len(training.train))
        return contextlib.nullcontext()

    def size(self, first: int, progress: float, largest: int) -> int:
        """Return the batch size of an epoch.

        Args:
            first: the batch size at the start.
            progress: the share of training that is done before the epoch, from 0 to 1.
            largest: the number of training examples.
        """
        doubled = min(self.times, int((self.times + 1) * progress))
        return min(first * 2**doubled, largest)
