"""Logs of metrics: every number once, also where training was interrupted."""

import csv
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from small_training import make_engine, train

from pyro_vae import InputError
from pyro_vae.training import Callback, TensorBoard, Training, WandB, metric_logs


def metrics(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return rows


class Stop(Callback):
    """Interrupts training after an epoch, when its row was sent and before it is saved."""

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        if training.epoch == 2:
            raise KeyboardInterrupt


def test_tensorboard_shows_each_number_of_metrics_csv_once(tmp_path: Path) -> None:
    train(make_engine(), 1, tmp_path)  # without a log: it is caught up on
    with pytest.raises(KeyboardInterrupt):
        train(make_engine(), 3, tmp_path, TensorBoard(tmp_path), Stop())
    train(make_engine(), 3, tmp_path, TensorBoard(tmp_path))
    train(make_engine(), 3, tmp_path, TensorBoard(tmp_path))  # nothing is left to do

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    rows = metrics(tmp_path)
    assert len(rows) == 3
    assert set(shown.Tags()["scalars"]) == {*rows[0]} - {"epoch"}
    for name in shown.Tags()["scalars"]:
        scalars = shown.Scalars(name)
        assert [each.step for each in scalars] == [1, 2, 3]
        assert [each.value for each in scalars] == pytest.approx([row[name] for row in rows])


class FakeRun:
    """A run of Weights & Biases: as there, an earlier step than the last one is not taken."""

    def __init__(self) -> None:
        self.logged: dict[int, dict[str, float]] = {}
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        if step >= max(self.logged, default=0):
            self.logged.setdefault(step, {}).update(values)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `wandb.init` is asked for, with the run that it returns."""
    wandb: Any = types.ModuleType("wandb")
    wandb.__spec__ = ModuleSpec("wandb", None)
    wandb.Error = type("Error", (Exception,), {})
    asked: list[dict[str, Any]] = []

    def init(**arguments: Any) -> FakeRun:
        if arguments["config"].get("refused"):
            raise wandb.Error("api_key not configured")
        earlier = [each["run"] for each in asked if each["id"] == arguments["id"]]
        asked.append({**arguments, "run": earlier[0] if earlier else FakeRun()})
        return asked[-1]["run"]

    wandb.init = init
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return asked


def test_wandb_goes_on_in_the_same_run(tmp_path: Path, opened: list[dict[str, Any]]) -> None:
    train(make_engine(), 1, tmp_path, WandB(tmp_path, {"lr": 0.01}))
    with pytest.raises(KeyboardInterrupt):
        train(make_engine(), 3, tmp_path, WandB(tmp_path, {}), Stop())
    train(make_engine(), 3, tmp_path, WandB(tmp_path, {}))
    assert len(opened) == 3 and len({each["id"] for each in opened}) == 1
    assert opened[0]["config"] == {"lr": 0.01} and opened[0]["name"] == tmp_path.name
    run = opened[0]["run"]
    assert run.finished
    assert run.logged == {
        row["epoch"]: pytest.approx({k: v for k, v in row.items() if k != "epoch"})
        for row in metrics(tmp_path)
    }
    assert [*run.logged] == [1, 2, 3]


def test_a_refusal_of_wandb_says_what_to_do(tmp_path: Path, opened: list[dict[str, Any]]) -> None:
    said = "wandb: api_key not configured: run wandb login, or set WANDB_MODE=offline"
    with pytest.raises(InputError, match=said):
        train(make_engine(), 1, tmp_path, WandB(tmp_path, {"refused": True}))
    assert not opened


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_logs, "find_spec", lambda name: None)
    for log in (TensorBoard(tmp_path), WandB(tmp_path, {})):
        said = f"{log.package} is not installed: run pip install {log.package}"
        with pytest.raises(InputError, match=said) as refused:
            train(make_engine(), 1, tmp_path, log)
        assert refused.value.parameter == "log"
    assert not list(tmp_path.iterdir())
