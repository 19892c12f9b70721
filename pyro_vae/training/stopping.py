"""When training ends before its last epoch: early stopping, and a budget of time."""

import contextlib
import math
import re
import time
from collections.abc import Iterator
from typing import Any

from pyro_vae import checkpoint
from pyro_vae.errors import InputError, check_range
from pyro_vae.programs import ranks
from pyro_vae.training.callbacks import Callback, Training, Validate

UNITS = {"": 1, "s": 1, "min": 60, "h": 3600}  # in seconds


class EarlyStopping(Callback):
    """Ends training when the best validation bound is a number of epochs old.

    Only epochs that are validated end training. It comes after `Validate` in the list of callbacks.
    All epochs in the history count, also those from before a training was interrupted.

    Args:
        patience: that number of epochs.

    Raises:
        InputError: if it is less than 1.
    """

    def __init__(self, patience: int) -> None:
        check_range("patience", patience, 1, math.inf)
        self.patience = patience

    def start(self, training: Training) -> None:
        """End a training that is resumed, if its end was reached.

        Raises:
            InputError: if there is no `Validate` among the callbacks.
        """
        if not any(isinstance(callback, Validate) for callback in training.callbacks):
            raise InputError("early stopping needs a Validate among the callbacks", "patience")
        self._end_if_over(training)

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        """Look at the column `validation_bound`, if there is one."""
        self._end_if_over(training)

    def _end_if_over(self, training: Training) -> None:
        bounds = {
            row["epoch"]: row["validation_bound"]
            for row in training.history
            if "validation_bound" in row
        }
        if training.epoch not in bounds:
            return
        best = max(bounds, key=lambda epoch: bounds[epoch])  # the first of those that are equal
        age = training.epoch - best
        if age >= self.patience:
            training.end_reason = (
                f"no validation bound in {age} epoch{'s' * (age > 1)} is above that of epoch {best}"
            )


class Budget(Callback):
    """Ends training after an amount of time, measured by a clock on the wall.

    All that happens in training counts, validation and compiling included; so does the time that an
    interrupted training had used by its last checkpoint. The last epoch ends at the step in which
    the time is over, and is validated and saved like any other.

    The schedules follow the time: `Training.progress` is at least the share of the time that is
    used. A training with a budget can therefore not be repeated bit for bit.

    It is the first in the list of callbacks.

    Args:
        seconds: the time.

    Raises:
        InputError: if it is not positive.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 < seconds < math.inf:
            raise InputError(f"a budget has to be positive, but is {seconds} s", "budget")
        self.seconds = seconds
        self._before = 0.0  # the seconds used before this process
        self._started: float | None = None  # when this process began to train

    @property
    def used(self) -> float:
        """The seconds that are used so far."""
        now = 0.0 if self._started is None else time.monotonic() - self._started
        return self._before + now

    def start(self, training: Training) -> None:
        """Start the clock."""
        self._started = time.monotonic()
        self._look_at_clock(training)

    def around_epoch(self, training: Training) -> contextlib.AbstractContextManager[None]:
        """Look at the clock before the epoch, but not before the rest of one.

        One process of several may pause in an epoch; all have to look at the clock equally often.
        """
        if training.place is None:
            self._look_at_clock(training)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def around_step(self, training: Training) -> Iterator[None]:
        """Look at the clock before and after the step."""
        self._look_at_clock(training)
        yield
        self._look_at_clock(training)

    def _look_at_clock(self, training: Training) -> None:
        share = ranks.from_first(self.used / self.seconds)
        training.progress = max(training.progress, min(share, 1.0))
        if share >= 1:
            training.end_reason = f"the budget of {self.seconds:g} s is used"

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds that are used."""
        return {"used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._before = checkpoint.typed(state, "used", float)


def seconds_of(time_span: str) -> float:
    """Return the number of seconds in a text such as "90s", "10min" or "1.5h".

    Raises:
        InputError: if the text is not of this form, or the number is not positive.
    """
    found = re.fullmatch(rf"([0-9.]+) *({'|'.join(UNITS)})", time_span.strip())
    with contextlib.suppress(ValueError):
        if found and float(found[1]) > 0:
            return float(found[1]) * UNITS[found[2]]
    raise InputError(
        f"a budget has to be a time such as 90s, 10min or 1.5h, but is '{time_span}'", "budget"
    )
