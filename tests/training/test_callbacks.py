"""Callbacks: their order, their noise, their states, and what is refused."""

import contextlib
import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import IMAGES, VALIDATION, Recorder, equal, make_engine, parameters, show, train

from pyro_vae import InputError
from pyro_vae.objectives import TargetKL
from pyro_vae.training import (
    Callback,
    Checkpoint,
    Diagnose,
    EagerEngine,
    GuideFirst,
    History,
    Training,
    Validate,
    fit,
)


def test_callbacks_that_are_refused(tmp_path: Path) -> None:
    engine = make_engine()
    learning = EagerEngine(engine.model, engine.guide, TargetKL())
    refused: list[tuple[str, EagerEngine, Callable[[], list[Callback]]]] = [
        ("TargetKL learns in each step", learning, lambda: [GuideFirst(VALIDATION, 1)]),
        ("one validation example is too little", engine, lambda: [GuideFirst(VALIDATION[:1], 1)]),
        ("one validation example is too little", engine, lambda: [Diagnose(VALIDATION[:1])]),
        ("no validation examples", engine, lambda: [Validate(VALIDATION[:0])]),
        ("steps has to be between 1 and", engine, lambda: [GuideFirst(VALIDATION, 0)]),
        ("every has to be between 1 and", engine, lambda: [Diagnose(VALIDATION, 0)]),
        ("2 callbacks of the class Validate", engine, lambda: [Validate(VALIDATION)] * 2),
        ("make it the last one", engine, lambda: [Checkpoint(tmp_path), Validate(VALIDATION)]),
    ]
    before = parameters(engine)
    for said, trained, make in refused:
        with pytest.raises(InputError, match=said):
            fit(trained, IMAGES, show, epochs=1, batch_size=5, callbacks=make(), progress=False)
    assert equal(parameters(engine), before) and not list(tmp_path.iterdir())


class Disturbing(Callback):
    """A callback that draws random numbers wherever it can, and counts its calls."""

    def __init__(self) -> None:
        self.called = 0
        self.started_at: list[int] = []

    def start(self, training: Training) -> None:
        self.started_at.append(len(training.history))
        torch.rand(3)

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        assert training.history[-1] is row and row["epoch"] == training.epoch
        self.called += 1
        row["called"] = self.called
        torch.manual_seed(99)

    def state_dict(self) -> dict[str, Any]:
        return {"called": self.called}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.called = state["called"]


def test_a_callback_of_ones_own(tmp_path: Path) -> None:
    """It adds a column, has a state, and cannot disturb the noise of the epochs."""
    plain = train(make_engine(), 3)
    disturbed = fit(
        make_engine(),
        IMAGES,
        show,
        epochs=3,
        batch_size=30,
        callbacks=[Disturbing(), Validate(VALIDATION)],
        progress=False,
    )
    assert disturbed == [{**row, "called": row["epoch"]} for row in plain]
    train(make_engine(), 1, tmp_path, Disturbing())
    again = Disturbing()
    assert train(make_engine(), 3, tmp_path, again) == disturbed
    assert again.started_at == [1]
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["called"] for row in csv.DictReader(file)] == ["1", "2", "3"]


class Around(Callback):
    def __init__(self, name: str, seen: list[Any]) -> None:
        self.name, self.seen = name, seen

    @contextlib.contextmanager
    def around_step(self, training: Training) -> Iterator[None]:
        self.seen.append((self.name, training.epoch, training.step))
        yield
        self.seen.append(self.name)


class AroundToo(Around):
    pass


def test_callbacks_are_around_each_step_in_their_order() -> None:
    seen: list[Any] = []
    callbacks = [Around("outer", seen), AroundToo("inner", seen)]
    fit(Recorder(), torch.zeros(4, 1), epochs=2, batch_size=3, callbacks=callbacks, progress=False)
    assert seen == [
        each
        for epoch, step in ((1, 1), (1, 2), (2, 3), (2, 4))
        for each in (("outer", epoch, step), ("inner", epoch, step), "inner", "outer")
    ]


def test_a_checkpoint_without_validation(tmp_path: Path) -> None:
    """There is no best epoch then, and training is resumed all the same."""

    def trained(epochs: int, *callbacks: Callback) -> History:
        engine = make_engine()
        return fit(
            engine, IMAGES, show, epochs=epochs, callbacks=callbacks, progress=False, batch_size=30
        )

    trained(1, Checkpoint(tmp_path))
    assert trained(2, Checkpoint(tmp_path)) == trained(2)
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint.pt",
        "metrics.csv",
        "previous",
    }


def test_resuming_with_a_callback_that_was_not_there_before(tmp_path: Path) -> None:
    train(make_engine(), 1, tmp_path)
    history = train(make_engine(), 2, tmp_path, GuideFirst(VALIDATION, 2))
    assert history[1]["guide_steps"] == 8
