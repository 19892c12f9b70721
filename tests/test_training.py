"""The training loop and its callbacks: resuming, keeping the best, stopping at NaN."""

import contextlib
import csv
import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_vae import (
    VAE,
    DivergenceError,
    InputError,
    checkpoint,
    likelihoods,
    posteriors,
    priors,
)
from pyro_vae.kinds import Binary
from pyro_vae.objectives import ELBO, IWAE, RWS, TVO, AnalyticELBO, Objective, TargetKL
from pyro_vae.training import (
    Callback,
    Checkpoint,
    CompiledEngine,
    Diagnose,
    EagerEngine,
    Engine,
    GuideFirst,
    History,
    Observe,
    Training,
    Validate,
    fit,
    guide_first,
    resume,
)

IMAGES = torch.randint(
    256, (95, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
VALIDATION = Binary().observe_once(IMAGES[:20], 0)


def make_engine(kind: type[EagerEngine] = EagerEngine) -> EagerEngine:
    torch.manual_seed(2)
    vae = VAE(
        priors.StandardNormal(2), likelihoods.Bernoulli(2, [4, 3]), posteriors.Normal([4, 3], 2)
    )
    return kind(vae.model, vae.guide, ELBO(warmup=2.5), lr=1e-2)


def show(images: Tensor) -> Tensor:
    return Binary().observe(images)


def train(
    engine: Engine,
    epochs: int,
    folder: Path | None = None,
    *others: Callback,
    seed: int = 0,
    batch_size: int = 30,
) -> History:
    """Validate, do what the other callbacks do, and save a checkpoint if there is a folder."""
    checkpoints = [] if folder is None else [Checkpoint(folder)]
    return fit(
        engine,
        IMAGES,
        show,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        callbacks=[Validate(VALIDATION), *others, *checkpoints],
        progress=False,
    )


def parameters(engine: EagerEngine) -> list[Tensor]:
    return [p.detach().clone() for p in [*engine.model.parameters(), *engine.guide.parameters()]]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "objective",
    [
        lambda: ELBO(warmup=2.5),
        lambda: ELBO(num_particles=3),
        lambda: AnalyticELBO(num_particles=3),
        lambda: IWAE(num_particles=3),
        lambda: IWAE(3, "dreg"),
        lambda: TargetKL(1.0),
        lambda: TVO(4),
        lambda: RWS(3, "both"),
    ],
)
def test_resuming_is_exact(tmp_path: Path, objective: Callable[[], Objective]) -> None:
    def make() -> EagerEngine:
        made = make_engine()
        return EagerEngine(made.model, made.guide, objective(), lr=1e-2)

    whole = make()
    history = train(whole, 5)
    for epochs in (1, 3, 5):
        torch.rand(17)  # whatever happens in between
        parts = make()
        resumed = train(parts, epochs, tmp_path)
    assert resumed == history
    assert equal(parameters(parts), parameters(whole))
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]
    assert [float(row["validation_bound"]) for row in rows] == [
        row["validation_bound"] for row in history
    ]


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
    looked_at = {"kl", "mutual_information", "active_units"}
    assert [looked_at <= row.keys() for row in history] == [False, True, False]
    assert history[0]["guide_steps"] > 0
    for before, after in pairwise(history):
        assert before["lagging"] or after["guide_steps"] == 0
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
        state["history"] = [{"epoch": row["epoch"]} for row in state["history"]]
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
    assert len(resume(make_engine(), tmp_path, [Validate(VALIDATION), restored])) == 1
    assert restored.state_dict() == {"lagging": lagging, "mutual_information": 0.25}
    best = (tmp_path / "best.pt").read_bytes()
    _, history = guided(2, tmp_path)
    assert (history[1]["guide_steps"] > 0) == lagging
    assert lagging or history[1]["led_to"] == 0.25
    assert (tmp_path / "best.pt").read_bytes() == best  # 0 nats was the best bound
    assert checkpoint.load(tmp_path / "checkpoint.pt")["callbacks"]["Checkpoint"] == {"best": 0.0}


def test_the_guide_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each step of the model the guide takes its own, and neither moves the other's."""
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


def test_resuming_with_a_callback_that_was_not_there_before(tmp_path: Path) -> None:
    train(make_engine(), 1, tmp_path)
    history = train(make_engine(), 2, tmp_path, GuideFirst(VALIDATION, 2))
    assert history[1]["guide_steps"] == 8


def test_callbacks_that_are_refused(tmp_path: Path) -> None:
    engine = make_engine()
    learning = EagerEngine(engine.model, engine.guide, TargetKL())
    refused: list[tuple[str, EagerEngine, Callable[[], list[Callback]]]] = [
        ("TargetKL learns in each step", learning, lambda: [GuideFirst(VALIDATION, 1)]),
        ("one validation image is too little", engine, lambda: [GuideFirst(VALIDATION[:1], 1)]),
        ("one validation image is too little", engine, lambda: [Diagnose(VALIDATION[:1])]),
        ("no validation images", engine, lambda: [Validate(VALIDATION[:0])]),
        ("steps has to be between 1 and", engine, lambda: [GuideFirst(VALIDATION, 0)]),
        ("every has to be between 1 and", engine, lambda: [Diagnose(VALIDATION, 0)]),
        ("2 callbacks of the class Validate", engine, lambda: [Validate(VALIDATION)] * 2),
        (
            "make it the last one",
            engine,
            lambda: [Checkpoint(tmp_path), Validate(VALIDATION)],
        ),
    ]
    before = parameters(engine)
    for said, trained, make in refused:
        with pytest.raises(InputError, match=said):
            fit(trained, IMAGES, epochs=1, batch_size=5, callbacks=make(), progress=False)
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
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "metrics.csv"}


class Countdown:
    """An engine of one's own: it subclasses nothing, and trains nothing."""

    def __init__(self) -> None:
        self.model, self.guide, self.objective = (
            torch.nn.Linear(1, 1),
            torch.nn.Linear(1, 1),
            ELBO(),
        )
        self.loss = 10.0

    def step(self, x: Tensor, observe: Observe = show) -> float:
        self.loss -= 1.0
        return self.loss * len(x)

    def evaluate_loss(self, x: Tensor) -> float:
        return self.loss * len(x)

    def check(self, x: Tensor) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss = state["loss"]


def test_an_engine_of_ones_own(tmp_path: Path) -> None:
    for epochs in (1, 3):
        history = train(Countdown(), epochs, tmp_path, batch_size=95)
    assert history == [
        {"epoch": epoch, "train_loss": 10.0 - epoch, "validation_bound": epoch - 10.0}
        for epoch in (1, 2, 3)
    ]
    assert checkpoint.load(tmp_path / "best.pt")["epoch"] == 3


def test_the_guide_steps_alone_where_the_prior_is_made_of_it() -> None:
    """A VampPrior's pseudo-inputs are the model's, and its posterior the guide's."""
    vae = VAE(
        priors.Vamp(2, components=3),
        likelihoods.Bernoulli(2, [4, 3]),
        posteriors.Normal([4, 3], 2),
    )
    engine = EagerEngine(vae.model, vae.guide, ELBO(), lr=1e-2)
    pseudo_inputs = vae.prior.logits.detach().clone()
    encoder = vae.posterior.encoder.bias.detach().clone()
    with guide_first.fixed(
        p for p in vae.model.parameters() if p not in set(vae.guide.parameters())
    ):
        engine.step(VALIDATION)
    assert torch.equal(vae.prior.logits, pseudo_inputs)
    assert not torch.equal(vae.posterior.encoder.bias, encoder)
    encoder = vae.posterior.encoder.bias.detach().clone()
    with guide_first.fixed(vae.guide.parameters()):
        engine.step(VALIDATION)
    assert not torch.equal(vae.prior.logits, pseudo_inputs)
    assert torch.equal(vae.posterior.encoder.bias, encoder)


def test_it_learns_and_the_seed_decides() -> None:
    first, again, other = make_engine(), make_engine(), make_engine()
    history = train(first, 8)
    assert history[-1]["validation_bound"] > history[0]["validation_bound"] + 0.1
    assert train(again, 8) == history and equal(parameters(first), parameters(again))
    assert train(other, 8, seed=1) != history


def test_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    engine = make_engine()
    torch.set_rng_state(before)
    train(engine, 1)
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_is_left_to_do(tmp_path: Path) -> None:
    history = train(make_engine(), 2, tmp_path)
    engine = make_engine()
    assert train(engine, 1, tmp_path) == history
    assert not list(tmp_path.glob(".*"))


def test_best_is_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    bounds = iter([0.0, 3.0, 5.0, 4.0])  # the first is asked for before training
    kept: list[list[Tensor]] = []

    def evaluate_loss(x: Tensor) -> float:
        kept.append(parameters(engine))
        return -next(bounds) * len(x)

    monkeypatch.setattr(engine, "evaluate_loss", evaluate_loss)
    train(engine, 3, tmp_path)
    best = checkpoint.load(tmp_path / "best.pt")
    assert best["epoch"] == 2
    other = make_engine()
    other.model.load_state_dict(best["model"])
    other.guide.load_state_dict(best["guide"])
    assert equal(parameters(other), kept[2]) and not equal(parameters(other), kept[3])


@pytest.mark.parametrize("where", ["step", "evaluate_loss"])
def test_nan_stops_and_names_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    engine = make_engine()
    train(engine, 2, tmp_path)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(engine, where, lambda *args: float("nan"))
    with pytest.raises(DivergenceError) as error:
        train(engine, 3, tmp_path)
    said = str(error.value)
    assert "nan in" in said and "epoch 3" in said
    assert f"of epoch 2, is {tmp_path / 'checkpoint.pt'}" in said
    assert ("step 1 of" in said) == (where == "step")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    with pytest.raises(DivergenceError, match="no checkpoint"):
        train(engine, 1)


def test_real_divergence_is_seen() -> None:
    engine = make_engine()
    for group in engine.optimizer.param_groups:
        group["lr"] = 1e30
    with pytest.raises(DivergenceError, match=r"use a smaller learning rate \(lr\)"):
        train(engine, 5)


def test_resuming_a_compiled_run_is_exact(tmp_path: Path) -> None:
    whole = make_engine(CompiledEngine)
    history = train(whole, 3)
    for epochs in (1, 3):
        torch.rand(17)
        parts = make_engine(CompiledEngine)
        resumed = train(parts, epochs, tmp_path)
    assert resumed == history
    assert equal(parameters(parts), parameters(whole))


class Recorder(EagerEngine):
    """An engine that writes down what it is given, and answers with numbers that are known."""

    def __init__(self) -> None:
        engine = make_engine()
        super().__init__(engine.model, engine.guide, ELBO(warmup=3.0))
        self.batches: list[Tensor] = []
        self.weights: list[float] = []
        self.noise: list[float] = []

    def step(self, x: Tensor, observe: Observe) -> float:
        self.batches.append(x)
        self.weights.append(self.objective.kl_weight.item())
        return x.sum().item()

    def evaluate_loss(self, x: Tensor) -> float:
        self.noise.append(torch.rand(()).item())
        return -3.0 * len(x)


def test_what_the_engine_is_given() -> None:
    images = torch.arange(7.0)[:, None]
    engine = Recorder()
    history = fit(
        engine,
        images,
        epochs=2,
        batch_size=3,
        seed=1,
        callbacks=[Validate(torch.zeros(5, 1))],
        progress=False,
    )
    assert [len(batch) for batch in engine.batches] == [3, 3, 1] * 2
    first, second = (torch.cat(engine.batches[i : i + 3]).flatten() for i in (0, 3))
    assert torch.equal(first.sort().values, images[:, 0])  # each image once in an epoch
    assert torch.equal(second.sort().values, images[:, 0])
    assert not torch.equal(first, second) and not torch.equal(first, images[:, 0])
    assert engine.weights == pytest.approx([i / 9 for i in range(6)])
    assert engine.noise[1] == engine.noise[2] != engine.noise[0]  # epochs are compared alike
    assert [row["train_loss"] for row in history] == [images.mean()] * 2
    assert [row["validation_bound"] for row in history] == [3.0, 3.0]


@pytest.mark.parametrize("batch_size", [0, 96])
def test_batches_that_cannot_be_drawn(batch_size: int) -> None:
    with pytest.raises(InputError, match="95 training images") as error:
        fit(make_engine(), IMAGES, epochs=1, batch_size=batch_size, progress=False)
    assert error.value.parameter == "batch_size"


def test_checkpoint_of_another_model(tmp_path: Path) -> None:
    train(make_engine(), 1, tmp_path)
    vae = VAE(
        priors.StandardNormal(3), likelihoods.Bernoulli(3, [4, 3]), posteriors.Normal([4, 3], 3)
    )
    engine = EagerEngine(vae.model, vae.guide, ELBO())
    with pytest.raises(InputError, match="does not fit"):
        train(engine, 2, tmp_path)
