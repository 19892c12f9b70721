"""The training loop: resuming, keeping the best, stopping at NaN."""

import csv
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

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
    training,
)
from pyro_vae.kinds import Binary
from pyro_vae.objectives import ELBO, IWAE, RWS, TVO, AnalyticELBO, Objective, TargetKL
from pyro_vae.training import CompiledEngine, EagerEngine, History, Observe, fit
from pyro_vae.training.loop import _held

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


def train(engine: EagerEngine, epochs: int, folder: Path | None = None, seed: int = 0) -> History:
    return fit(
        engine,
        IMAGES,
        VALIDATION,
        show,
        epochs=epochs,
        batch_size=30,
        seed=seed,
        folder=folder,
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


def test_resuming_is_exact_where_the_guide_leads(tmp_path: Path) -> None:
    """Aggressive training and diagnoses too: what an epoch does depends on the row before it."""

    def fitted(epochs: int, folder: Path | None = None) -> tuple[EagerEngine, History]:
        engine = make_engine()
        options = {"epochs": epochs, "folder": folder, "diagnose_every": 2, "aggressive": 3}
        return engine, fit(
            engine,
            IMAGES,
            VALIDATION,
            show,
            batch_size=3,
            progress=False,
            **options,
        )

    whole, history = fitted(3)
    fitted(1, tmp_path)
    parts, resumed = fitted(3, tmp_path)
    assert equal(parameters(parts), parameters(whole))
    assert resumed == history
    looked_at = {"kl", "mutual_information", "active_units"}
    assert [looked_at <= row.keys() for row in history] == [False, True, False]
    assert history[0]["guide_steps"] > 0
    for before, after in pairwise(history):
        assert before["lagging"] or after["guide_steps"] == 0
    with (tmp_path / "metrics.csv").open() as file:
        assert set(next(csv.DictReader(file))) == set(history[0]) | looked_at


def test_the_guide_leads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
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
    history = fit(
        engine,
        IMAGES,
        VALIDATION,
        show,
        epochs=1,
        batch_size=30,
        progress=False,
        aggressive=3,
    )
    assert moved == [(False, True), (False, True), (False, True), (True, False)] * 4
    assert history[0]["guide_steps"] == 12 and history[0]["lagging"]
    assert all(p.requires_grad for p in engine.model.parameters())


def test_the_lead_ends_when_the_information_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at every 50 steps of the model, however short an epoch is."""
    seen = iter([1.0, 2.0, 2.5, 2.4])
    monkeypatch.setattr(training, "_look_at_code", lambda *_: {"mutual_information": next(seen)})
    history = fit(
        make_engine(),
        IMAGES,
        VALIDATION,
        show,
        epochs=12,
        batch_size=5,  # 19 steps an epoch: looks after 50, 100, 150, and 200, in epoch 11
        progress=False,
        aggressive=1,
    )
    assert [row["lagging"] for row in history] == [True] * 10 + [False] * 2
    found = [row["led_to"] for row in history]
    assert found == [None] * 2 + [1.0] * 3 + [2.0] * 2 + [2.5] * 3 + [2.4] * 2
    assert [row["guide_steps"] for row in history] == [19] * 10 + [9, 0]


def test_the_lead_ends_when_the_guide_has_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for losses, steps in (([3.0], 20), ([3.0] * 10 + [2.0] * 10 + [2.5], 30)):
        engine = make_engine()
        found = iter(losses + losses[-1:] * 100)
        monkeypatch.setattr(engine, "step", lambda *_, found=found: next(found))
        history = fit(
            engine, IMAGES, VALIDATION, epochs=1, batch_size=95, progress=False, aggressive=100
        )
        assert history[0]["guide_steps"] == steps


def test_going_on_with_a_lead(tmp_path: Path) -> None:
    """A run that was begun without one."""
    train(make_engine(), 1, tmp_path)
    history = fit(
        make_engine(),
        IMAGES,
        VALIDATION,
        show,
        epochs=2,
        batch_size=30,
        folder=tmp_path,
        progress=False,
        aggressive=2,
    )
    assert history[1]["guide_steps"] == 8


def test_leads_that_are_refused() -> None:
    engine = make_engine()
    learning = EagerEngine(engine.model, engine.guide, TargetKL())
    for trained, held_out, said in (
        (learning, VALIDATION, "TargetKL learns in each step"),
        (engine, VALIDATION[:1], "one validation image is too little"),
    ):
        with pytest.raises(InputError, match=said):
            fit(trained, IMAGES, held_out, epochs=1, batch_size=5, progress=False, aggressive=1)


def test_the_guide_leads_where_the_prior_is_made_of_it() -> None:
    """A VampPrior's pseudo-inputs are the model's, and its posterior the guide's."""
    vae = VAE(
        priors.Vamp(2, components=3),
        likelihoods.Bernoulli(2, [4, 3]),
        posteriors.Normal([4, 3], 2),
    )
    engine = EagerEngine(vae.model, vae.guide, ELBO(), lr=1e-2)
    pseudo_inputs = vae.prior.pseudo_input_logits.detach().clone()
    encoder = vae.posterior.encoder.bias.detach().clone()
    with _held(p for p in vae.model.parameters() if p not in set(vae.guide.parameters())):
        engine.step(VALIDATION)
    assert torch.equal(vae.prior.pseudo_input_logits, pseudo_inputs)
    assert not torch.equal(vae.posterior.encoder.bias, encoder)
    encoder = vae.posterior.encoder.bias.detach().clone()
    with _held(vae.guide.parameters()):
        engine.step(VALIDATION)
    assert not torch.equal(vae.prior.pseudo_input_logits, pseudo_inputs)
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
    with pytest.raises(DivergenceError, match="smaller --lr"):
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
    history = fit(engine, images, torch.zeros(5, 1), epochs=2, batch_size=3, seed=1, progress=False)
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
    with pytest.raises(InputError, match="no validation"):
        fit(make_engine(), IMAGES, VALIDATION[:0], epochs=1, batch_size=5, progress=False)
    with pytest.raises(InputError, match="95 training images"):
        fit(make_engine(), IMAGES, VALIDATION, epochs=1, batch_size=batch_size, progress=False)


def test_checkpoint_of_another_model(tmp_path: Path) -> None:
    train(make_engine(), 1, tmp_path)
    vae = VAE(
        priors.StandardNormal(3), likelihoods.Bernoulli(3, [4, 3]), posteriors.Normal([4, 3], 3)
    )
    engine = EagerEngine(vae.model, vae.guide, ELBO())
    with pytest.raises(InputError, match="does not fit"):
        train(engine, 2, tmp_path)
