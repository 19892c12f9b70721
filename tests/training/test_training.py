"""The training loop: resuming, keeping the best, stopping at NaN, and any engine."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import IMAGES, Recorder, equal, make_engine, parameters, show, train
from torch import Tensor

from pyro_vae import VAE, DivergenceError, InputError, checkpoint, likelihoods, posteriors, priors
from pyro_vae.objectives import ELBO, IWAE, RWS, TVO, AnalyticELBO, Objective, TargetKL
from pyro_vae.training import CompiledEngine, EagerEngine, Observe, Validate, fit


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
        torch.rand(17)  # random numbers drawn in between do not matter
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


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("best", [True, False])
def test_the_checkpoint_before_takes_the_place_of_a_damaged_one(tmp_path: Path, best: bool) -> None:
    """It has the `best.pt` and the rows of its epoch then, and training ends as it would have."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    expected = train(make_engine(), 4, whole)
    train(make_engine(), 3, parts)
    assert checkpoint.load(parts / "best.pt")["epoch"] == 3
    damage(parts / "checkpoint.pt")
    if best:
        damage(parts / "best.pt")
    with pytest.warns(UserWarning, match="damaged: training goes on from the one before it"):
        assert len(train(make_engine(), 1, parts)) == 2
    assert checkpoint.load(parts / "best.pt")["epoch"] == 2
    assert len((parts / "metrics.csv").read_text().splitlines()) == 3
    assert train(make_engine(), 4, parts) == expected
    for name in ("checkpoint.pt", "best.pt"):
        one, other = (checkpoint.load(folder / name) for folder in (whole, parts))
        assert str(one) == str(other)
    damage(parts / "checkpoint.pt")
    damage(parts / "previous/checkpoint.pt")
    with pytest.raises(InputError, match=r"previous/checkpoint\.pt is damaged"):
        train(make_engine(), 5, parts)


class Countdown:
    """An engine that is not a subclass of ours; it trains nothing."""

    def __init__(self) -> None:
        self.model = self.guide = torch.nn.Linear(1, 1)
        self.objective = ELBO()
        self.loss, self.lr = 10.0, 1.0

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
    bounds = iter([0.0, 3.0, 5.0, 4.0])  # the first call is made before training
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
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    monkeypatch.setattr(engine, where, lambda *args: float("nan"))
    with pytest.raises(DivergenceError) as error:
        train(engine, 3, tmp_path)
    said = str(error.value)
    assert "nan in" in said and "epoch 3" in said
    assert f"of epoch 2, is {tmp_path / 'checkpoint.pt'}" in said
    assert ("step 1 of" in said) == (where == "step")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == kept
    with pytest.raises(DivergenceError, match="no checkpoint"):
        train(engine, 1)


def test_real_divergence_is_seen() -> None:
    engine = make_engine()
    for group in engine.optimizer.param_groups:
        group["lr"] = 1e30
    with pytest.raises(DivergenceError, match="use a smaller learning rate"):
        train(engine, 5)


@pytest.mark.usefixtures("traced")
def test_resuming_a_compiled_run_is_exact(tmp_path: Path) -> None:
    """As traced: test_everything_at_once.py resumes runs whose steps are compiled."""
    whole = make_engine(CompiledEngine)
    history = train(whole, 3)
    for epochs in (1, 3):
        torch.rand(17)
        parts = make_engine(CompiledEngine)
        resumed = train(parts, epochs, tmp_path)
    assert resumed == history
    assert equal(parameters(parts), parameters(whole))


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
    assert engine.noise[1] == engine.noise[2] != engine.noise[0]  # the same noise after each epoch
    assert [row["train_loss"] for row in history] == [images.mean()] * 2
    assert [row["validation_bound"] for row in history] == [3.0, 3.0]


@pytest.mark.parametrize("batch_size", [0, 96])
def test_batches_that_cannot_be_drawn(batch_size: int) -> None:
    with pytest.raises(InputError, match="95 training examples") as error:
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


@pytest.mark.parametrize(
    "history",
    [
        None,
        "rows",
        3,
        {"epoch": 1},
        ["row"],
        [["epoch", 1]],
        [{}],
        [{"epoch": 1}],
        [{"epoch": 2, "train_loss": 1.0}],
        [{"epoch": 1, "train_loss": "low"}],
        [{"epoch": 1, "train_loss": 1.0, "validation_bound": torch.zeros(2)}],
        [{"epoch": torch.zeros(2), "train_loss": 1.0}],
        [{"epoch": 1, "train_loss": 1.0, 2: 3}],
        torch.zeros(2),
    ],
    ids=str,
)
def test_a_history_that_is_no_list_of_rows(tmp_path: Path, history: Any) -> None:
    train(make_engine(), 1, tmp_path)
    path, before = tmp_path / "checkpoint.pt", (tmp_path / "metrics.csv").read_bytes()
    checkpoint.save(path, checkpoint.load(path) | {"history": history})
    with pytest.raises(InputError, match=r"checkpoint\.pt does not fit"):
        train(make_engine(), 2, tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("kind", [EagerEngine, CompiledEngine])
def test_moments_of_other_shapes(tmp_path: Path, kind: type[EagerEngine]) -> None:
    train(make_engine(), 1, tmp_path)
    path = tmp_path / "checkpoint.pt"
    state = checkpoint.load(path)
    moments = state["engine"]["optimizer"]["state"][0]
    moments["exp_avg"] = torch.zeros(7)
    checkpoint.save(path, state)
    with pytest.raises(InputError, match=r"a moment of the shape \[7\] belongs to") as error:
        train(make_engine(kind), 2, tmp_path)
    assert "\n" not in str(error.value)
