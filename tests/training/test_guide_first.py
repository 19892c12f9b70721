"""Training the guide first: its steps, when it ends, and resuming it."""

import csv
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import VALIDATION, Recorder, equal, make_engine, parameters, train
from torch import Tensor

from pyro_vae import VAE, checkpoint, likelihoods, posteriors, priors
from pyro_vae.objectives import ELBO
from pyro_vae.training import (
    Diagnose,
    EagerEngine,
    GuideFirst,
    History,
    Observe,
    Validate,
    guide_first,
    resume,
)


def guided(epochs: int, folder: Path | None = None) -> tuple[EagerEngine, History]:
    """Train the guide first, and diagnose every second epoch."""
    engine = make_engine()
    others = (GuideFirst(VALIDATION, 3), Diagnose(VALIDATION, 2))
    return engine, train(engine, epochs, folder, *others, batch_size=3)


@functools.cache
def guided_without_interruption() -> tuple[list[Tensor], History]:
    engine, history = guided(3)
    return parameters(engine), history


def test_resuming_is_exact_where_the_guide_goes_first(tmp_path: Path) -> None:
    """What an epoch does depends on measurements in the epochs before it."""
    whole, history = guided_without_interruption()
    guided(1, tmp_path)
    parts, resumed = guided(3, tmp_path)
    assert equal(parameters(parts), whole)
    assert resumed == history
    diagnosed = {"kl", "mutual_information", "active_units"}
    assert [diagnosed <= row.keys() for row in history] == [False, True, False]
    assert history[0]["guide_steps"] > 0
    with (tmp_path / "metrics.csv").open() as file:
        assert next(csv.reader(file)) == [
            *("epoch", "train_loss", "validation_bound", "guide_steps", "lagging", "led_to"),
            *("kl", "mutual_information", "active_units"),
        ]


def change_checkpoint(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    state = checkpoint.load(folder / "checkpoint.pt")
    change(state)
    checkpoint.save(folder / "checkpoint.pt", state)


def test_resuming_reads_the_states_of_callbacks_and_not_the_rows(tmp_path: Path) -> None:
    whole, history = guided_without_interruption()
    guided(2, tmp_path)

    def without_columns(state: dict[str, Any]) -> None:
        names = ("epoch", "train_loss")  # which every row has
        state["history"] = [{name: row[name] for name in names} for row in state["history"]]
        state["callbacks"]["Checkpoint"]["best"] = 0.0

    change_checkpoint(tmp_path, without_columns)
    best = (tmp_path / "best.pt").read_bytes()
    parts, resumed = guided(3, tmp_path)
    assert resumed[-1] == history[-1] and equal(parameters(parts), whole)
    assert (tmp_path / "best.pt").read_bytes() == best  # 0 nats was the best bound


@pytest.mark.parametrize("lagging", [True, False])
def test_checkpoints_without_states_of_callbacks_are_resumed(tmp_path: Path, lagging: bool) -> None:
    """As written by older versions: an engine, and a history whose rows say what is needed."""

    def as_old(state: dict[str, Any]) -> None:
        state["history"][-1].update(lagging=lagging, led_to=0.25, validation_bound=0.0)
        del state["callbacks"]

    guided(1, tmp_path)
    change_checkpoint(tmp_path, as_old)
    assert checkpoint.load(tmp_path / "checkpoint.pt").keys() == {"engine", "history"}
    restored = GuideFirst(VALIDATION, 3)
    assert len(resume(make_engine(), tmp_path, [Validate(VALIDATION), restored]).history) == 1
    assert restored.state_dict() == {
        "lagging": lagging,
        "mutual_information": 0.25,
        "over": not lagging,
        "guide_steps": 0,
    }
    best = (tmp_path / "best.pt").read_bytes()
    _, history = guided(2, tmp_path)
    assert (history[1]["guide_steps"] > 0) == lagging
    assert lagging or history[1]["led_to"] == 0.25
    assert (tmp_path / "best.pt").read_bytes() == best  # 0 nats was the best bound
    assert checkpoint.load(tmp_path / "checkpoint.pt")["callbacks"]["Checkpoint"]["best"] == 0.0


def test_the_guide_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide takes its steps before each step of the model; each changes only its own."""
    engine = make_engine()
    moved = []
    step = engine.step

    def watched(x: Tensor, observe: Observe) -> float:
        before = [
            [p.detach().clone() for p in m.parameters()] for m in (engine.model, engine.guide)
        ]
        loss = step(x, observe)
        after = [list(m.parameters()) for m in (engine.model, engine.guide)]
        moved.append(tuple(not equal(b, a) for b, a in zip(before, after, strict=True)))
        return loss

    monkeypatch.setattr(engine, "step", watched)
    history = train(engine, 1, None, GuideFirst(VALIDATION, 3))
    assert moved == [(False, True), (False, True), (False, True), (True, False)] * 4
    assert history[0]["guide_steps"] == 12 and history[0]["lagging"]
    assert all(p.requires_grad for p in engine.model.parameters())


def test_the_guide_goes_first_until_the_information_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured every 50 steps of the model, however short an epoch is."""
    measured = iter([1.0, 2.0, 2.5, 2.4])
    monkeypatch.setattr(guide_first, "diagnose", lambda *_: {"mutual_information": next(measured)})
    # 19 steps an epoch: measured after 50, 100, 150, and 200, in epoch 11
    history = train(Recorder(), 12, None, GuideFirst(VALIDATION, 1), batch_size=5)
    assert [row["lagging"] for row in history] == [True] * 10 + [False] * 2
    information = [row["led_to"] for row in history]
    assert information == [None] * 2 + [1.0] * 3 + [2.0] * 2 + [2.5] * 3 + [2.4] * 2
    assert [row["guide_steps"] for row in history] == [19] * 10 + [9, 0]


def test_the_information_may_grow_again_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the guide goes first in the next epoch is decided by the last measurement."""
    measured = iter([1.0, 0.5, 0.6, 0.4, 0.3])
    monkeypatch.setattr(guide_first, "diagnose", lambda *_: {"mutual_information": next(measured)})
    # 95 steps an epoch: measured at 50; at 100 and 150; at 200 and 250
    history = train(Recorder(), 4, None, GuideFirst(VALIDATION, 1), batch_size=1)
    assert [row["lagging"] for row in history] == [True, True, False, False]
    assert [row["guide_steps"] for row in history] == [95, 95 - 50, 9, 0]


def test_the_guide_stops_when_it_has_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for losses, steps in (([3.0], 20), ([3.0] * 10 + [2.0] * 10 + [2.5], 30)):
        engine = make_engine()
        given = iter(losses + losses[-1:] * 100)
        monkeypatch.setattr(engine, "step", lambda *_, given=given: next(given))
        history = train(engine, 1, None, GuideFirst(VALIDATION, 100), batch_size=95)
        assert history[0]["guide_steps"] == steps


def test_the_guide_steps_alone_where_the_prior_is_made_of_it() -> None:
    """The pseudo-inputs of a VampPrior belong to the model, its posterior to the guide."""
    vae = VAE(
        priors.Vamp(2, components=3), likelihoods.Bernoulli(2, [4, 3]), posteriors.Normal([4, 3], 2)
    )
    engine = EagerEngine(vae.model, vae.guide, ELBO(), lr=1e-2)
    pseudo_inputs = vae.prior.pseudo_inputs.detach().clone()
    encoder = vae.posterior.encoder.bias.detach().clone()
    with guide_first.fixed(
        p for p in vae.model.parameters() if p not in set(vae.guide.parameters())
    ):
        engine.step(VALIDATION)
    assert torch.equal(vae.prior.pseudo_inputs, pseudo_inputs)
    assert not torch.equal(vae.posterior.encoder.bias, encoder)
    encoder = vae.posterior.encoder.bias.detach().clone()
    with guide_first.fixed(vae.guide.parameters()):
        engine.step(VALIDATION)
    assert not torch.equal(vae.prior.pseudo_inputs, pseudo_inputs)
    assert torch.equal(vae.posterior.encoder.bias, encoder)
