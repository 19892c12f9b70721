"""When training ends, and by which bound: early stopping, budgets, validation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import IMAGES, VALIDATION, Rates, equal, make_engine, parameters, show, train
from torch import Tensor

from pyro_vae import InputError, checkpoint
from pyro_vae.objectives import ELBO, IWAE
from pyro_vae.programs.random_streams import stream_seed
from pyro_vae.training import (
    Budget,
    Checkpoint,
    Constant,
    Cosine,
    EarlyStopping,
    History,
    Observe,
    Validate,
    fit,
    stopping,
)


def stopped(
    monkeypatch: pytest.MonkeyPatch,
    bounds: list[float],
    folder: Path,
    patience: int,
    every: int = 1,
    epochs: int | None = 9,
) -> History:
    engine = make_engine()
    values = iter([0.0, *bounds])  # the first call is made before training
    monkeypatch.setattr(engine, "evaluate_loss", lambda x: -next(values) * len(x))
    callbacks = [Validate(VALIDATION, every), EarlyStopping(patience), Checkpoint(folder)]
    return fit(
        engine, IMAGES, show, epochs=epochs, batch_size=50, callbacks=callbacks, progress=False
    )


def test_the_progress_bar_counts_whole_examples(capsys: pytest.CaptureFixture[str]) -> None:
    fit(make_engine(), IMAGES, show, epochs=20, batch_size=50, progress=True)
    total = 20 * len(IMAGES)
    assert total >= 1000 and f"| {total:,}/{total:,} [" in capsys.readouterr().err


def test_training_ends_when_the_best_bound_is_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bounds = [1.0, 3.0, 2.0, 4.0, 4.0, 3.0, 9.0]  # equal is not better
    history = stopped(monkeypatch, bounds, tmp_path, 2)
    assert [row["validation_bound"] for row in history] == bounds[:6]
    assert stopped(monkeypatch, [], tmp_path, 2) == history  # nothing is left to do
    # More patience is more epochs, up to the number of epochs.
    assert len(stopped(monkeypatch, [*bounds[6:], 8.0, 8.0], tmp_path, 3)) == 9


@pytest.mark.parametrize("patience", [1, 3, 4])
def test_patience_is_counted_in_epochs(
    patience: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Training ends in an epoch that is validated, though its patience may end before."""
    bounds = [3.0, 2.0, 2.5]
    history = stopped(monkeypatch, bounds, tmp_path, patience, every=2, epochs=None)
    expected = [None, 3.0, None, 2.0, None, 2.5][: 4 if patience == 1 else 6]
    assert [row.get("validation_bound") for row in history] == expected
    assert checkpoint.load(tmp_path / "best.pt")["epoch"] == 2


def test_patience_that_is_given_late_counts_all_epochs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The best epoch so far is that of the history, not the first after the training was resumed.

    So it is if a callback has no state in the checkpoint, as in those of other versions.
    """
    stopped(monkeypatch, [1.0, 5.0, 2.0], tmp_path, 9, epochs=3)
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    state["callbacks"].pop("EarlyStopping", None)
    checkpoint.save(tmp_path / "checkpoint.pt", state)
    assert len(stopped(monkeypatch, [3.0, 4.0, 4.5], tmp_path, 3)) == 5
    assert len(stopped(monkeypatch, [], tmp_path, 2)) == 5  # it is over already


def test_the_last_epoch_is_validated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    history = stopped(monkeypatch, [3.0, 2.0], tmp_path, 9, every=4, epochs=5)
    assert ["validation_bound" in row for row in history] == [False] * 3 + [True] * 2


def test_early_stopping_needs_validation() -> None:
    with pytest.raises(InputError, match="needs a Validate"):
        fit(make_engine(), IMAGES, show, epochs=1, callbacks=[EarlyStopping(1)], batch_size=9)
    with pytest.raises(InputError, match="patience has to be between 1"):
        EarlyStopping(0)


@pytest.mark.parametrize(("name", "objective"), [("IWAE_20", IWAE(20)), ("ELBO", ELBO())])
def test_validation_by_a_bound_that_is_named(name: str, objective: Any) -> None:
    engine = make_engine()
    callbacks = [Validate(VALIDATION, by=name)]
    history = fit(
        engine, IMAGES, show, epochs=2, batch_size=50, callbacks=callbacks, progress=False
    )
    engine.model.eval(), engine.guide.eval()
    torch.manual_seed(stream_seed(0, 0))
    expected = -objective.loss(engine.model, engine.guide, VALIDATION) / len(VALIDATION)
    assert history[-1]["validation_bound"] == expected
    assert history[-1]["validation_bound"] != history[0]["validation_bound"]


def test_large_numbers_of_draws_are_made_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(IWAE, "loss", lambda self, model, guide, x: sizes.append(len(x)) or 1.0)
    callbacks = [Validate(VALIDATION, by="IWAE_400")]
    fit(make_engine(), IMAGES, show, epochs=1, batch_size=50, callbacks=callbacks, progress=False)
    assert sizes == [2] * (len(VALIDATION) // 2)


@pytest.mark.parametrize("name", ["", "iwae_5", "IWAE", "IWAE_0", "IWAE_5x", "ELBO_2"])
def test_bounds_that_there_are_not(name: str) -> None:
    with pytest.raises(InputError, match="is not a bound to validate by") as error:
        Validate(VALIDATION, by=name)
    assert error.value.parameter == "validate_by"
    with pytest.raises(InputError, match="every has to be between 1"):
        Validate(VALIDATION, every=0)


class Clocked(Rates):
    """An engine whose steps take a second each, by a clock that nothing else moves.

    The KL has a warm-up over half of training.
    """

    now = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.objective = ELBO(warmup_share=0.5)

    def step(self, x: Tensor, observe: Observe) -> float:
        type(self).now += 1.0
        return super().step(x, observe)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stopping.time, "monotonic", lambda: Clocked.now)
    yield


def budgeted(folder: Path, seconds: float, epochs: int | None = None) -> tuple[Clocked, History]:
    engine = Clocked()
    callbacks = [Budget(seconds), Cosine(1.0), Validate(VALIDATION, 100), Checkpoint(folder)]
    history = fit(
        engine,
        torch.ones(40, 1),
        epochs=epochs,
        batch_size=10,
        callbacks=callbacks,
        progress=False,
    )
    return engine, history


@pytest.mark.usefixtures("clock")
def test_a_budget_ends_training_and_stretches_the_schedule(tmp_path: Path) -> None:
    engine, history = budgeted(tmp_path, 10)
    assert len(engine.batches) == 10 and len(history) == 3  # 4 steps are an epoch
    assert [row["train_loss"] for row in history] == [1.0] * 3  # a mean over what was seen
    assert "validation_bound" in history[-1]
    assert engine.rates == pytest.approx([Cosine(1.0).factor(i / 10) for i in range(10)])
    assert engine.weights == pytest.approx([min(i / 5, 1.0) for i in range(10)])
    again, same = budgeted(tmp_path, 10)
    assert not again.batches and same == history
    # The time that was used stays used.
    longer, more = budgeted(tmp_path, 16)
    assert len(longer.batches) == 6 and len(more) == 5
    assert longer.rates == pytest.approx([Cosine(1.0).factor(i / 16) for i in range(10, 16)])
    assert longer.weights == pytest.approx([1.0] * 6)


@pytest.mark.usefixtures("clock")
def test_epochs_end_training_before_the_budget(tmp_path: Path) -> None:
    engine, history = budgeted(tmp_path, 100, epochs=2)
    assert len(history) == 2
    assert engine.rates == pytest.approx([Cosine(1.0).factor(i / 8) for i in range(8)])
    assert engine.weights == pytest.approx([min(i / 4, 1.0) for i in range(8)])


def test_a_budget_by_the_clock_on_the_wall() -> None:
    """Training lasts as long as it says, up to one step and the validation."""
    started = stopping.time.monotonic()
    callbacks = [Budget(0.5), Constant(1e-3), Validate(VALIDATION)]
    fit(make_engine(), IMAGES, show, epochs=None, callbacks=callbacks, progress=False, batch_size=9)
    assert 0.5 <= stopping.time.monotonic() - started


def test_times() -> None:
    for text, seconds in (
        ("90s", 90.0),
        ("90", 90.0),
        ("10min", 600.0),
        ("1.5h", 5400.0),
        (" 2 h ", 7200.0),
    ):
        assert stopping.seconds_of(text) == seconds
    for text in ("", "s", "-3s", "0s", "1e3s", "10m", "1.2.3s", "infs", "1h 30min"):
        with pytest.raises(InputError, match="a budget has to be a time such as") as error:
            stopping.seconds_of(text)
        assert error.value.parameter == "budget"
    with pytest.raises(InputError, match="a budget has to be positive"):
        Budget(0.0)


def test_a_budget_that_is_not_used_up_changes_nothing() -> None:
    plain, budget = make_engine(), make_engine()
    assert train(plain, 2) == train(budget, 2, None, Budget(1e9))
    assert equal(parameters(plain), parameters(budget))


def test_pauses_ask_the_first_process_for_the_time_no_more_often(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first process alone pauses: the others would wait for an exchange that never comes."""
    asked = []
    for minutes in (1e9, 1e-9):
        asked.append(0)

        def from_first(value: Any) -> Any:
            asked[-1] += 1
            return value

        monkeypatch.setattr(stopping.ranks, "from_first", from_first)
        folder = tmp_path / str(minutes)
        folder.mkdir()
        train(make_engine(), 2, None, Budget(1e9), Checkpoint(folder, minutes))
    assert asked[0] == asked[1] > 0
