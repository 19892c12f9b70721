"""How a run is trained: from options to an engine and callbacks."""

from pathlib import Path

import pytest
import torch

from pyro_vae import InputError, checkpoint
from pyro_vae.networks.mlp import InputNoise
from pyro_vae.runs import command_line, config, devices, trainer
from pyro_vae.runs.options import EPOCHS, Options
from pyro_vae.runs.run import Run
from pyro_vae.training import AdamW, CompiledEngine, EagerEngine, Validate

SMALL = [
    *("--posterior.encoder.widths=[4]", "--likelihood.decoder.widths=[4]"),
    *("--diagnose_every", "0", "--device", "cpu", "--batch_size", "500"),
]
CPU = torch.device("cpu")


def build(folder: Path, *arguments: str) -> Run:
    return Run.build(folder, config.parse([*SMALL, *arguments]))


EVERYTHING = [
    *("--budget", "1h", "--schedule", "Stages", "--schedule.warmup", "3", "--schedule.stages", "4"),
    *("--lr", "0.02", "--batch_doublings", "2", "--average", "EMA", "--average.decay", "0.9"),
    *("--validate_by", "IWAE_7", "--validate_every", "3", "--patience", "5", "--clip_norm", "9"),
    *("--optimizer", "AdamW", "--optimizer.weight_decay", "0.2", "--optimizer.eps", "0.01"),
    *("--posterior.encoder.dropout", "0.3", "--posterior.encoder.noise", "0.2"),
]

LOG = ("--log", "tensorboard")


def test_the_default_is_one_schedule_validation_and_a_checkpoint(tmp_path: Path) -> None:
    run = build(tmp_path)
    assert [type(each).__name__ for each in run.callbacks()] == [
        *("Constant", "Validate", "Checkpoint")
    ]
    assert run.options.last_epoch == run.namespace.epochs == EPOCHS == 200
    assert type(run.engine.optimizer) is torch.optim.Adam and run.engine.clip_norm is None


def test_options_reach_engine_and_callbacks(tmp_path: Path) -> None:
    run = build(tmp_path, *EVERYTHING, "--aggressive", "2", "--diagnose_every", "4", *LOG)
    names = ["Budget", "Stages", "BatchDoubling", "EMA", "Validate", "GuideFirst", "Diagnose"]
    callbacks = {type(each).__name__: each for each in run.callbacks()}
    assert [*callbacks] == [*names, "EarlyStopping", "TensorBoard", "Checkpoint"]
    assert callbacks["TensorBoard"].folder == tmp_path
    assert callbacks["Budget"].seconds == 3600
    stages = callbacks["Stages"]
    assert (stages.lr, stages.warmup, len(stages.ends)) == (0.02, 3, 3)
    assert callbacks["BatchDoubling"].times == 2 and callbacks["EMA"].decay == 0.9
    assert callbacks["EarlyStopping"].patience == 5
    validate = callbacks["Validate"]
    assert isinstance(validate, Validate)
    assert (validate.every, validate.bound.num_draws) == (3, 7)
    assert run.options.last_epoch is None  # the budget is the only limit
    group = run.engine.optimizer.param_groups[0]
    assert type(run.engine.optimizer) is torch.optim.AdamW
    assert (group["weight_decay"], group["eps"], run.engine.clip_norm) == (0.2, 0.01, 9.0)
    encoder = list(run.vae.posterior.encoder.modules())
    assert [m.p for m in encoder if isinstance(m, torch.nn.Dropout)] == [0.3]
    assert [m.scale for m in encoder if isinstance(m, InputNoise)] == [0.2]
    decoder = run.vae.likelihood.decoder.modules()
    assert not any(isinstance(m, torch.nn.Dropout | InputNoise) for m in decoder)


@pytest.mark.parametrize("part", ["schedule", "optimizer", "average"])
def test_abstract_classes_are_refused(part: str, tmp_path: Path) -> None:
    base = {"average": "Averaging"}.get(part, part.capitalize())
    with pytest.raises(InputError, match=f"abstract class {base}.*choose a subclass"):
        build(tmp_path, f"--{part}", f"pyro_vae.training.{base}")


def test_a_run_with_everything_is_read_and_resumed(tmp_path: Path) -> None:
    run = build(tmp_path / "run", *EVERYTHING, "--epochs", "4")
    run.create()
    run.fit()
    again = config.read(run.folder / "config.yaml")
    for name in config.NAMES:
        if name != "data_root":
            assert again[name] == run.namespace[name]
    assert isinstance(config.instantiate(again).optimizer(), AdamW)
    history = checkpoint.load(run.folder / "checkpoint.pt")["history"]
    assert ["validation_bound" in row for row in history] == [False, False, True, True]
    resume = ["--resume", str(run.folder)]
    with pytest.raises(InputError, match="--schedule cannot change"):
        command_line.parse_training([*resume, "--schedule", "Cosine"])
    more = ["--budget", "2h", "--patience", "7", "--epochs", "5"]
    resumed = Run.build(run.folder, command_line.parse_training([*resume, *more]))
    resumed.resume()
    assert len(resumed.fit()) == 5
    assert config.read(run.folder / "config.yaml").budget == "2h"


def test_the_engine_is_compiled_where_training_is_long() -> None:
    def chosen(**options: object) -> str:
        return trainer.choose_engine(Options(**options), 1000, CPU)

    assert chosen(epochs=699) == "eager" and chosen(epochs=700) == "compiled"
    # 350 epochs of 10 steps and 350 of 5 are fewer steps; they are counted as they are taken.
    assert chosen(epochs=700, batch_doublings=1) == "eager"
    assert trainer.describe_length(Options(epochs=7, batch_doublings=1), 1000) == "55 steps"
    assert chosen(budget="59s") == "eager" and chosen(budget="1min") == "compiled"
    assert chosen(budget="1min", epochs=699) == "eager"
    assert chosen(budget="1s", engine="compiled") == "compiled"
    cuda = torch.device("cuda")
    assert trainer.choose_engine(Options(epochs=10**6), 1000, cuda) == "eager"


@pytest.mark.parametrize("speed", [2.5, 1.1, 0.5])
def test_precision_auto(speed: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is bfloat16 where that is faster, in compiled steps, and is fixed when a run begins."""
    monkeypatch.setattr(trainer, "speed_of_bfloat16", lambda: speed)
    faster = "bfloat16" if speed == 2.5 else "float32"
    compiled = build(tmp_path, "--precision", "auto", "--engine", "compiled")
    assert isinstance(compiled.engine, CompiledEngine)
    assert compiled.engine.precision == compiled.namespace.precision == faster
    assert f"compiled engine in {faster}" in str(compiled)
    eager = build(tmp_path, "--precision", "auto", "--engine", "eager")
    assert type(eager.engine) is EagerEngine
    assert eager.engine.precision == eager.namespace.precision == "float32"
    cuda = torch.device("cuda")
    assert trainer.choose_precision(Options(precision="auto"), "compiled", cuda) == "float32"
    told = "bfloat16 take 2.0 times as long" in str(build(tmp_path, "--precision", "bfloat16"))
    assert told == (speed == 0.5) and "as long" not in str(eager)
    for asked in ("float32", "bfloat16"):
        assert trainer.choose_precision(Options(precision=asked), "compiled", CPU) == asked
    assert build(tmp_path).namespace.precision == "float32"  # the default


def test_speed_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest time of each type counts: 3 for float32, 2 for bfloat16."""
    durations = [4.0, 9.0, 3.0, 2.0, 8.0, 5.0, 3.5, 2.5]
    ticks = iter([tick for each in durations for tick in (0.0, each)])
    monkeypatch.setattr(devices.time, "perf_counter", lambda: next(ticks))
    assert devices.speed_of_bfloat16.__wrapped__() == 1.5


def test_a_model_that_is_worse_than_before_training() -> None:
    """After few steps a little worse is not wild; after many it is."""
    warns = {
        (bound, steps): bool(trainer.warning_of(bound, -26.7485, steps))
        for bound in (-26.7, -26.7723, -29.0)
        for steps in (30, 3000, float("inf"))
    }
    assert [key for key, each in warns.items() if each] == [
        (-26.7723, 3000),
        (-26.7723, float("inf")),
        (-29.0, 30),
        (-29.0, 3000),
        (-29.0, float("inf")),
    ]
    assert trainer.warning_of(None, -1.0, 30) == trainer.warning_of(-2.0, None, 3000) == ""
