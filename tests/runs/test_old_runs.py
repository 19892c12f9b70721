"""Runs of older versions are opened and resumed, and give the numbers that they gave there.

`fixtures/old_run` was written by the code of commit 3fae251, after two epochs of aggressive
training; the numbers here are that code's too. Its third epoch depends on what the first two
measured.
"""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import pyro_vae
from pyro_vae import InputError, bounds, checkpoint, data, training
from pyro_vae.runs import command_line
from pyro_vae.runs.run import Run


def iwae(run: Run) -> float:
    """Return the mean IWAE_10 of the best parameters on ten test images, in nats.

    The noise is that of a seed alone. `bounds.evaluate` makes it from all digits of the parameters,
    of which the last differ between processors after training.
    """
    torch.manual_seed(0)
    log_w = bounds.log_weights(run.vae.model, run.vae.guide, run.test[:10], 10)
    return bounds.iwae(log_w).mean().item()


def test_an_old_run_is_opened_and_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ROOT / "tests/fixtures/old_run", folder)
    assert checkpoint.load(folder / "checkpoint.pt").keys() == {"engine", "history"}
    run = Run.open(folder)
    assert iwae(run) == pytest.approx(-25.93939781188965, rel=1e-6)
    history = training.fit(
        run.engine,
        run.train,
        run.observe,
        epochs=3,
        batch_size=run.options.examples_in_step,
        seed=run.options.seed,
        callbacks=run.callbacks(),
        progress=False,
    )
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[2] == {
        "epoch": 3,
        "train_loss": pytest.approx(27.09909100555441, rel=1e-5),
        "validation_bound": pytest.approx(-26.70020744371118, rel=1e-5),
        "guide_steps": 62,
        "lagging": False,
        "led_to": pytest.approx(0.0194457545876503, rel=0.01),
    }
    assert checkpoint.load(folder / "best.pt")["epoch"] == 3
    assert iwae(Run.open(folder)) == pytest.approx(-25.887958526611328, rel=1e-5)


def test_an_old_run_is_used_without_its_data_once_it_was_resumed_with_them(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ROOT / "tests/fixtures/old_run", folder)
    with pytest.raises(InputError, match="older version: resume it once with its data"):
        pyro_vae.load(folder)
    run = Run.build(folder, command_line.parse_training(["--resume", str(folder)]))
    run.resume()
    run.load_best()
    model = pyro_vae.load(folder)
    assert torch.equal(model.observe(data.load("digits").test, noise_seed=None), run.test)
    torch.manual_seed(0)
    log_w = bounds.log_weights(model.vae.model, model.vae.guide, run.test[:10], 10)
    assert bounds.iwae(log_w).mean().item() == iwae(run)
