"""Callbacks that send the rows of `metrics.csv` to a viewer of experiments."""

import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pyro_vae import checkpoint
from pyro_vae.errors import InputError
from pyro_vae.programs import ranks
from pyro_vae.training.callbacks import Callback, Training
from pyro_vae.training.engine import Engine


class MetricLog(Callback):
    """Sends the numbers of each epoch to a viewer, once. Subclass it and override `write`.

    Place it after the callbacks that add columns, and before `Checkpoint`. In a resumed training it
    goes on after the last epoch of the checkpoint. Of several processes, the first one sends.

    Args:
        folder: an existing folder, in which the viewer's files are.
    """

    package = ""  # to be installed

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent = 0  # the number of the last epoch that was sent

    def check(self, engine: Engine) -> None:
        """Raise an `InputError` if the viewer's package is not installed."""
        if find_spec(self.package) is None:
            raise InputError(
                f"the package {self.package} is not installed: run pip install {self.package}",
                "log",
            )

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        """Send this epoch's row, and those of earlier epochs that were trained without a log."""
        if ranks.is_first():
            self.write(training, training.history[self.sent :])
        self.sent = training.epoch

    def write(self, training: Training, rows: Sequence[dict[str, Any]]) -> None:
        """Send rows of `metrics.csv`.

        Args:
            training: where the training is.
            rows: one for each epoch, in their order.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the last epoch that was sent."""
        return {"sent": self.sent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.sent = checkpoint.typed(state, "sent", int)
        if self.sent < 0:
            raise ValueError(f"{self.sent} epochs were sent")


class TensorBoard(MetricLog):
    """Writes scalars for TensorBoard, into the folder `tensorboard` of the run.

    If training was killed after an epoch and before its checkpoint, the epoch is trained and
    written again; TensorBoard shows the later one only.

    Args:
        folder: the run's folder.
    """

    package = "tensorboard"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._writer: Any = None

    def write(self, training: Training, rows: Sequence[dict[str, Any]]) -> None:
        """Write a scalar for each number, at the number of its epoch."""
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(
                str(self.folder / "tensorboard"), purge_step=rows[0]["epoch"]
            )
        for row in rows:
            for name, value in numbers(row).items():
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()
        if training.is_over:
            self._writer.close()
            self._writer = None


class WandB(MetricLog):
    """Logs to Weights & Biases; a training that is resumed goes on in the same run there.

    Args:
        folder: the run's folder, whose name the run has there.
        options: what is shown as the run's configuration.
    """

    package = "wandb"

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        super().__init__(folder)
        self.options = options
        self.id = uuid.uuid4().hex[:8]  # of the run there; no random numbers of PyTorch are used
        self._run: Any = None

    def start(self, training: Training) -> None:
        """Open the run there, unless training is over.

        Raises:
            InputError: if Weights & Biases refuses, because nobody has logged in for instance.
        """
        if ranks.is_first() and not training.is_over:
            self._open()

    def _open(self) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project="pyro_vae",
                id=self.id,
                name=self.folder.name,
                dir=str(self.folder),
                config=self.options,
                resume="allow",
            )
        except wandb.Error as error:
            raise InputError(
                f"wandb: {error}: run wandb login, or set WANDB_MODE=offline", "log"
            ) from error

    def write(self, training: Training, rows: Sequence[dict[str, Any]]) -> None:
        """Log the numbers at the number of their epoch. Epochs that are there are left alone."""
        if self._run is None:  # an epoch that was begun is finished, be training over or not
            self._open()
        for row in rows:
            self._run.log(numbers(row), step=row["epoch"])
        if training.is_over:
            self._run.finish()
            self._run = None

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the last epoch that was sent, and the run's name there."""
        return {**super().state_dict(), "id": self.id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.id = checkpoint.typed(state, "id", str)


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of an epoch's row by their columns, without that of the epoch."""
    return {
        name: value
        for name, value in row.items()
        if name != "epoch" and isinstance(value, int | float)
    }
