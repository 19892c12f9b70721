"""Checkpoints: a training that is interrupted and resumed ends where it would have ended."""

import contextlib
import csv
import io
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae import checkpoint
from pyro_vae.errors import InputError
from pyro_vae.programs import ranks
from pyro_vae.training.callbacks import Callback, History, Training
from pyro_vae.training.engine import Engine
from pyro_vae.training.interruption import Place

NAME = "checkpoint.pt"


@dataclass(frozen=True)
class Resumed:
    """Where a checkpoint resumes a training.

    Attributes:
        history: a row for each epoch that was finished.
        place: where the epoch after them is; None if it has not begun.
        note: a sentence about a newer checkpoint that is damaged; "" if there is none.
        about: what `Checkpoint` was told about the training; "" if nothing.
    """

    history: History
    place: Place | None = None
    note: str = ""
    about: str = ""


class Checkpoint(Callback):
    """Saves the training, and resumes it from the folder if it was interrupted.

    It saves after each epoch, within an epoch when the last checkpoint is some minutes old, and
    where the training is interrupted by a signal.

    The folder gets `checkpoint.pt`, which holds all that resuming needs; `metrics.csv`, a row for
    each epoch; and, if there is a column `validation_bound`, `best.pt`, the parameters of the epoch
    with the best one. The folder `previous` keeps the checkpoint before, and the `best.pt` before:
    if the newest checkpoint is damaged, training is resumed from there.

    It has to be the last callback, since it saves the states of the others.

    Args:
        folder: an existing folder.
        minutes: the time from one checkpoint to the next within an epoch.
        about: a text that the checkpoints hold, such as the options of a run.

    Raises:
        InputError: if `minutes` is not positive.
    """

    def __init__(self, folder: Path, minutes: float = 10.0, about: str = "") -> None:
        if not minutes > 0:
            raise InputError(f"the time between checkpoints is {minutes} min: choose more than 0")
        self.folder = folder
        self.minutes = minutes
        self.about = about
        self.best: float | None = None  # the best validation bound so far, in nats
        self._best_epoch: int | None = None  # that of `best.pt`
        self._steps = 0  # the number of steps at the last checkpoint
        self._saved = time.monotonic()  # when the last one was written

    def resume(self, training: Training) -> None:
        """Restore the engine, the callbacks and the history, if the folder has a checkpoint.

        Raises:
            InputError: if this is not the last callback, or the file cannot be used.
        """
        if training.callbacks[-1] is not self:
            raise InputError(
                "Checkpoint saves the states of the other callbacks: make it the last one"
            )
        if has_checkpoint(self.folder):
            resumed = resume(training.engine, self.folder, training.callbacks)
            if resumed.note:
                warnings.warn(resumed.note, stacklevel=3)
            training.history, training.place = resumed.history, resumed.place
            training.last_checkpoint = self.folder / NAME
            training.saved_at = _place_in_words(len(resumed.history), resumed.place)
            # Older checkpoints do not hold the number of steps: their batches had one size.
            by_size = len(training.history) * math.ceil(len(training.train) / training.batch_size)
            training.step = self._steps or by_size

    @contextlib.contextmanager
    def around_step(self, training: Training) -> Iterator[None]:
        """Let training pause after the step if it is time for a checkpoint."""
        yield
        if ranks.is_first():
            training.pause |= time.monotonic() - self._saved > 60 * self.minutes

    def during_epoch(self, training: Training) -> None:
        """Write `checkpoint.pt`; of several processes, the first one does."""
        if ranks.is_first():
            self._save(training, training.place)

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        """Write the three files; `checkpoint.pt` is the last, since it says that all is saved.

        Of several processes that train together, the first one writes them.
        """
        if not ranks.is_first():
            return
        engine = training.engine
        bound = row.get("validation_bound")
        if bound is not None and (self.best is None or bound >= self.best):
            self.best, self._best_epoch = bound, training.epoch
            best = {"model": engine.model.state_dict(), "guide": engine.guide.state_dict()}
            parameters = engine.state_dict().get("parameters")
            if parameters is not None:  # those that are not parameters of modules
                best["parameters"] = parameters
            state = {**best, "epoch": training.epoch, "bound": bound}
            state["bound_before"] = training.bound_before
            checkpoint.save(self.folder / "best.pt", state, keep_previous=True)
        table = _table(training.history).encode()
        checkpoint.write(self.folder / "metrics.csv", table, lasting=False)  # remade on resuming
        self._save(training, None)

    def _save(self, training: Training, place: Place | None) -> None:
        """Write `checkpoint.pt`.

        Args:
            training: where the training is.
            place: the place in the epoch; None at its end.
        """
        programs = training.engine.model, training.engine.guide
        if not all(p.isfinite().all() for each in programs for p in each.parameters()):
            return  # the last good checkpoint stays; the next loss tells
        self._steps = training.step
        states = callback_states(training.callbacks)
        if place is not None and place.callbacks is not None:
            mine = type(self).__name__
            states = place.callbacks | {mine: place.callbacks[mine] | {"steps": self._steps}}
        state = {"engine": training.engine.state_dict(), "history": training.history}
        if place is not None:
            state["place"] = place.state_dict()
        if self.about:
            state["about"] = self.about
        path = self.folder / NAME
        checkpoint.save(path, {**state, "callbacks": states}, keep_previous=True)
        training.last_checkpoint = path
        training.saved_at = _place_in_words(len(training.history), place)
        self._saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the best validation bound so far, its epoch, and the number of steps."""
        return {"best": self.best, "best_epoch": self._best_epoch, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best = checkpoint.typed(state, "best", float, None)
        self._best_epoch = checkpoint.typed(state, "best_epoch", int, None, default=None)
        self._steps = checkpoint.typed(state, "steps", int, default=0)


def callback_states(callbacks: Sequence[Callback]) -> dict[str, dict[str, Any]]:
    """Return the states of callbacks, by the names of their classes."""
    return {type(each).__name__: each.state_dict() for each in callbacks}


def _place_in_words(epochs: int, place: Place | None) -> str:
    if place is None:
        return f"epoch {epochs}"
    return f"step {place.steps} of epoch {epochs + 1}"


def has_checkpoint(folder: Path) -> bool:
    """Return whether training can be resumed from a folder."""
    return (folder / NAME).exists() or (folder / checkpoint.PREVIOUS / NAME).exists()


def resume(engine: Engine, folder: Path, callbacks: Sequence[Callback] = ()) -> Resumed:
    """Restore an engine, and callbacks, from the checkpoint in a folder.

    If the newest checkpoint is damaged, the one before takes its place. `best.pt` and `metrics.csv`
    are brought to the same epoch. If the training began without a callback, the checkpoint has no
    state for it. Such a callback stays as it is.

    Args:
        engine: an engine for the same model, guide and objective.
        folder: the folder of a `Checkpoint`.
        callbacks: those whose states are to be restored.

    Raises:
        InputError: if the checkpoint cannot be read, or belongs to another model or objective.
    """
    path = folder / NAME
    state, note = _newest(folder)
    try:
        engine.load_state_dict(state["engine"])
        history = _rows(state["history"])
        states = state["callbacks"] if "callbacks" in state else _states_from_rows(history)
        for callback in callbacks:
            if type(callback).__name__ in states:
                callback.load_state_dict(states[type(callback).__name__])
        place = Place.from_state(state["place"]) if "place" in state else None
        about = checkpoint.typed(state, "about", str, default="")
        table, saved = _table(history), states.get("Checkpoint", {})
        best_epoch = checkpoint.typed(saved, "best_epoch", int, None, default=None)
    except InputError:  # it has a sentence of its own
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} does not fit: it was saved with another model, guide or objective"
        ) from error
    if ranks.is_first():
        _restore_best(folder, best_epoch)
        checkpoint.write(folder / "metrics.csv", table.encode(), lasting=False)
    return Resumed(history, place, note, about)


def _rows(history: Any) -> History:
    """Return the history of a checkpoint, a list with a row for each epoch.

    Raises:
        TypeError: if it is something else.
    """
    numbers = ("epoch", "train_loss", "validation_bound")
    if not isinstance(history, list):
        raise TypeError("the history is not a list")
    for epoch, row in enumerate(history, start=1):
        if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
            raise TypeError("a row of the history is not a mapping")
        if not all(isinstance(row[name], int | float) for name in numbers if name in row):
            raise TypeError("a row of the history has something else than numbers")
        if not all(isinstance(value, int | float | str | None) for value in row.values()):
            raise TypeError("a row of the history has something else than numbers and texts")
        if row["epoch"] != epoch or "train_loss" not in row:
            raise TypeError("a row of the history belongs to another epoch")
    return history


def _newest(folder: Path) -> tuple[dict[str, Any], str]:
    """Read the newest checkpoint that is not damaged, and let it be `checkpoint.pt`.

    Returns:
        The checkpoint, and a sentence if it is not the newest.
    """
    path, before = folder / NAME, folder / checkpoint.PREVIOUS / NAME
    try:
        return checkpoint.load(path), ""
    except InputError:
        if not before.exists():
            raise
        state = checkpoint.load(before)
        if ranks.is_first():
            checkpoint.write(path, before.read_bytes())
        return state, f"{path} is missing or damaged: training goes on from the one before it"


def _restore_best(folder: Path, epoch: int | None) -> None:
    """Let `best.pt` be of a checkpoint's best epoch: it is newer if no checkpoint followed it."""
    path, before = folder / "best.pt", folder / checkpoint.PREVIOUS / "best.pt"
    if epoch is None or not before.exists():  # older checkpoints do not hold the epoch
        return
    with contextlib.suppress(InputError):
        if checkpoint.load(path).get("epoch") == epoch:
            return
    with contextlib.suppress(InputError):  # `best.pt` is refused when it is read
        if checkpoint.load(before).get("epoch") == epoch:
            checkpoint.write(path, before.read_bytes())


def _states_from_rows(history: History) -> dict[str, dict[str, Any]]:
    """Return the states of callbacks for a checkpoint that does not hold them.

    Old checkpoints, saved before callbacks existed, hold only an engine and a history. For them,
    the states of the callbacks are read from the rows of the history.
    """
    best = max(row["validation_bound"] for row in history)
    states: dict[str, dict[str, Any]] = {"Checkpoint": {"best": best}}
    last = history[-1]
    if "lagging" in last:
        states["GuideFirst"] = {"lagging": last["lagging"], "mutual_information": last["led_to"]}
    return states


def _table(history: History) -> str:
    """Return a history as CSV. Not every row has all columns."""
    table = io.StringIO()
    columns = dict.fromkeys(name for row in history for name in row)
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return table.getvalue()
