"""Checkpoints: a training that is interrupted and resumed ends where it would have ended."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyro_vae import checkpoint
from pyro_vae.errors import InputError
from pyro_vae.programs import ranks
from pyro_vae.training.callbacks import Callback, History, Training
from pyro_vae.training.engine import Engine


class Checkpoint(Callback):
    """Saves the training after each epoch, and resumes it from the folder if it was interrupted.

    The folder gets `checkpoint.pt`, which holds all that resuming needs; `metrics.csv`, a row for
    each epoch; and, if there is a column `validation_bound`, `best.pt`, the parameters of the epoch
    with the best one.

    It has to be the last callback, since it saves the states of the others.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best: float | None = None  # the best validation bound so far, in nats
        self._steps = 0  # the number of steps at the last checkpoint

    def resume(self, training: Training) -> None:
        """Restore the engine, the callbacks and the history from `checkpoint.pt`, if it exists.

        Raises:
            InputError: if this is not the last callback, or the file cannot be used.
        """
        if training.callbacks[-1] is not self:
            raise InputError(
                "Checkpoint saves the states of the other callbacks: make it the last one"
            )
        path = self.folder / "checkpoint.pt"
        if path.exists():
            training.history = resume(training.engine, self.folder, training.callbacks)
            training.last_checkpoint = path
            # Older checkpoints do not hold the number of steps: their batches had one size.
            by_size = len(training.history) * math.ceil(len(training.train) / training.batch_size)
            training.step = self._steps or by_size

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        """Write the three files; `checkpoint.pt` is the last, since it says that all is saved.

        Of several processes that train together, the first one writes them.
        """
        if not ranks.is_first():
            return
        engine = training.engine
        of_engine = engine.state_dict()
        bound = row.get("validation_bound")
        if bound is not None and (self.best is None or bound >= self.best):
            self.best = bound
            best = {"model": engine.model.state_dict(), "guide": engine.guide.state_dict()}
            if "parameters" in of_engine:  # those that are not parameters of modules
                best["parameters"] = of_engine["parameters"]
            checkpoint.save(self.folder / "best.pt", {**best, "epoch": training.epoch})
        checkpoint.write(self.folder / "metrics.csv", _table(training.history).encode())
        self._steps = training.step
        state = {
            "engine": of_engine,
            "history": training.history,
            "callbacks": {type(each).__name__: each.state_dict() for each in training.callbacks},
        }
        training.last_checkpoint = self.folder / "checkpoint.pt"
        checkpoint.save(training.last_checkpoint, state)

    def state_dict(self) -> dict[str, Any]:
        """Return the best validation bound so far, and the number of steps."""
        return {"best": self.best, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best = state["best"]
        self._steps = state.get("steps", 0)


def resume(engine: Engine, folder: Path, callbacks: Sequence[Callback] = ()) -> History:
    """Restore an engine, and callbacks, from the checkpoint in a folder.

    If the training began without a callback, the checkpoint has no state for it. Such a callback
    stays as it is.

    Args:
        engine: an engine for the same model, guide and objective.
        folder: the folder of a `Checkpoint`.
        callbacks: those whose states are to be restored.

    Returns:
        The history: a row for each epoch so far.

    Raises:
        InputError: if the checkpoint cannot be read, or belongs to another model or objective.
    """
    path = folder / "checkpoint.pt"
    state = checkpoint.load(path)
    try:
        engine.load_state_dict(state["engine"])
        history: History = list(state["history"])
        states = state["callbacks"] if "callbacks" in state else _states_from_rows(history)
        for callback in callbacks:
            if type(callback).__name__ in states:
                callback.load_state_dict(states[type(callback).__name__])
        return history
    except InputError:  # it has a sentence of its own
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} does not fit: it was saved with another model, guide or objective"
        ) from error


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
