"""The scripts: the files that they write, their output, and the input that they refuse."""

import contextlib
import errno
import io
import json
import multiprocessing
import os
import pickle
import random
import runpy
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from matplotlib.figure import Figure
from tqdm import tqdm

from pyro_vae import (
    VAE,
    bounds,
    checkpoint,
    data,
    likelihoods,
    networks,
    posteriors,
    priors,
    training,
)
from pyro_vae.bounds import batches, importance
from pyro_vae.runs import command_line, commands, results_folder
from pyro_vae.runs.reporting import rounding
from pyro_vae.runs.run import Run
from pyro_vae.training import EagerEngine

Script = Callable[..., tuple[int, str, str]]
SMALL = ["--epochs", "2", "--num_samples", "20", "--num_examples", "30", "--device", "cpu"]
WIDTHS = ["--likelihood.decoder.widths=[16]", "--posterior.encoder.widths=[16]"]


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Script:
    """Run a script in this process, in an empty folder; return its exit code and its output."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.setattr(sys, "path", [*sys.path])
        code: Any = 0
        try:
            runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run that was trained and evaluated, for many tests."""
    folder = tmp_path_factory.mktemp("trained")
    options = [*SMALL, *WIDTHS, "--out", "run"]
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        commands.main(["train", *options])
    return folder / "run"


@pytest.fixture
def small_run(script: Script, trained_once: Path, tmp_path: Path) -> Path:
    """A copy of it in the current folder."""
    return shutil.copytree(trained_once, tmp_path / "run")


def assert_refused(result: tuple[int, str, str], *said: str) -> None:
    """The error is one line, with exit code 2 and no traceback."""
    code, out, err = result
    assert code == 2, (out, err)
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    for part in said:
        assert part in err, err


def test_a_run_from_start_to_end(script: Script, tmp_path: Path) -> None:
    code, out, _ = script("svi_train", "--out", "run", *SMALL, *WIDTHS)
    assert code == 0
    run = tmp_path / "run"
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml",
        "metrics.csv",
        "checkpoint.pt",
        "best.pt",
        "previous/checkpoint.pt",
        "previous/best.pt",
        "data.pt",
        "scores.pt",
        "bounds.json",
        "figures/training.png",
        "figures/samples.png",
        "figures/reconstructions.png",
        "figures/interpolation.png",
        "figures/bounds.png",
        "figures/units.png",
        "figures/traversals.png",
        "figures/extremes.png",
        "figures/programs.png",
        "report.html",
        "diagnostics.json",
    }
    content = json.loads((run / "bounds.json").read_text())
    assert content["unit"] == "nats" and content["support"] == "binary"
    assert content["num_examples"] == 30 and content["num_samples"] == 20
    assert set(content["elbo"]) == {"20"} and set(content["iwae"]) == {"1", "5", "20"}
    best, gap = content["iwae"]["20"], content["gap"]["20"]
    mean = rounding.value(best["mean"], best["se"]).replace(rounding.MINUS, "-")
    assert out.startswith(f"\nThe mean log p(x) of an example is at least {mean} nats\n")
    gap = rounding.with_error(gap["mean"], gap["se"]).replace(rounding.SPACE, " ")
    words = " ".join(out.split())
    for shown in (
        f"The ELBO is {gap} nats below IWAE_20.",
        "Can the number be believed?",
        "Is the code used?",
        "Where to look: open run/report.html in a browser",
        "What to do next: Train longer: 30 steps are few.",
        "--epochs=200 --out=run-longer",
    ):
        assert shown in words.replace(" \\ ", " ")
    lines = out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 100  # it fits on one screen

    # The configuration that the run wrote repeats it.
    assert script("svi_train", "--config", "run/config.yaml", "--out", "again")[0] == 0
    first, second = (checkpoint.load(tmp_path / name / "best.pt") for name in ("run", "again"))
    for side in ("model", "guide"):
        assert all(torch.equal(first[side][key], second[side][key]) for key in first[side])
    assert (tmp_path / "again/bounds.json").read_text() == (run / "bounds.json").read_text()

    # Another evaluation gives the same numbers, and other options are used.
    before = (run / "bounds.json").read_text()
    assert script("evaluate", "run", "--checks", 0, "--draws", 0)[0] == 0
    assert (run / "bounds.json").read_text() == before
    code, out, _ = script("evaluate", "run", "--num_samples", 21, "--num_examples", 31)
    content = json.loads((run / "bounds.json").read_text())
    assert (content["num_samples"], content["num_examples"]) == (21, 31) and "IWAE_21" in out


def test_a_fuller_evaluation_is_kept(script: Script, small_run: Path) -> None:
    run, others = small_run, small_run / "evaluations"
    quick = ["evaluate", "run", "--draws", 0, "--checks", 0]
    first = (run / "bounds.json").read_text()
    code, out, _ = script(*quick, "--num_examples", 11)
    where = "the results are in run/evaluations/11-examples-20-draws; run keeps those of a fuller"
    assert code == 0 and f"Where to look: {where} evaluation" in out
    assert (run / "bounds.json").read_text() == first
    lesser = json.loads((others / "11-examples-20-draws/bounds.json").read_text())
    assert lesser["num_examples"] == 11 and "11-examples" not in (run / "report.html").read_text()

    # A fuller one takes its place, and what was there is kept, too.
    assert "open run/report.html" in script(*quick, "--num_examples", 40)[1]
    assert json.loads((run / "bounds.json").read_text())["num_examples"] == 40
    assert (others / "30-examples-20-draws/bounds.json").read_text() == first
    assert (others / "30-examples-20-draws/figures/bounds.png").exists()
    annealed = ["--method", "ais", "--ais.temperatures", 5, "--ais.chains", 2, "--simulated", 0]
    script(*quick, *annealed, "--num_examples", 40)
    assert "ais" in json.loads((run / "bounds.json").read_text())
    assert "keeps" in script(*quick, "--num_examples", 40)[1]  # without annealing it is less
    names = {path.name for path in others.iterdir()}
    assert names == {f"{count}-examples-20-draws" for count in (11, 30, 40)}
    assert not list(run.rglob(".*"))

    # They were of other parameters.
    script("svi_train", "--resume", "run", "--epochs", 3)
    content = json.loads((run / "bounds.json").read_text())
    assert content["num_examples"] == 30 and "ais" not in content

    script("svi_train", "--out", "other", *SMALL, *WIDTHS, "--num_examples", 12)
    assert_refused(script("compare", "run", "other"), "on 30 and 12 test examples", "num_examples")


@pytest.mark.parametrize("moved", [0, 1, 5])
def test_results_are_exchanged_together(
    script: Script, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """Stopped in the exchange, the next command that reads results finishes it."""
    run = small_run
    shutil.copytree(run, tmp_path / "whole")
    script("evaluate", "whole", "--num_samples", 30, "--checks", 0)
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    count, replace = 0, Path.replace

    def stop(self: Path, target: Path) -> Path:
        nonlocal count
        if results_folder.READY in str(self):
            if count == moved:
                raise KeyboardInterrupt
            count += 1
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        assert script("evaluate", "run", "--num_samples", 30, "--checks", 0)[0] == 130
    assert (run / results_folder.READY).exists()
    changed = [
        path for path in run.rglob("*.*") if path in before and path.read_bytes() != before[path]
    ]
    assert bool(changed) == (moved > 0)
    commands.main(["report", "run"])
    for name in ("bounds.json", "diagnostics.json", "figures/bounds.png", "figures/units.png"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert "IWAE_30" in (run / "report.html").read_text()
    assert not (run / results_folder.READY).exists()


def test_resume(script: Script, tmp_path: Path) -> None:
    script("svi_train", "--out", "whole", *SMALL, *WIDTHS, "--epochs", 3)
    script("svi_train", "--out", "parts", *SMALL, *WIDTHS, "--epochs", 1)
    code, _, _ = script("svi_train", "--resume", "parts", "--epochs", 3)
    assert code == 0
    for name in ("metrics.csv", "bounds.json"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert "epochs: 3\n" in (tmp_path / "parts/config.yaml").read_text()
    assert_refused(script("svi_train", "--resume", "parts", "--lr", 0.1), "--lr cannot change")
    options = tmp_path / "parts/config.yaml"
    text = options.read_text()
    options.write_text(text.replace("beta: 1.0", "beta: 9.0"))
    assert options.read_text() != text
    refused = script("svi_train", "--resume", "parts", "--epochs", 4)
    assert_refused(refused, "was edited after training began: objective.beta was 1.0 and is 9.0")
    options.write_text(text)
    assert_refused(script("svi_train", "--resume", "parts", "--out", "x"), "--resume continues")
    refused = script("svi_train", "--resume", "parts", "--epochs", 2)
    assert_refused(refused, "epochs 2 is less than the 3 epochs", "(option --epochs)")
    assert "epochs: 3\n" in (tmp_path / "parts/config.yaml").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--prior", "Vamp", "--prior.components", 9, "--likelihood", "Gaussian"],
        ["--prior", "Mixture", "--likelihood", "ContinuousBernoulli", "--latent_dim", 2],
        ["--prior", "LearnedNormal", "--objective", "IWAE", "--objective.num_particles", 3],
        ["--objective", "AnalyticELBO", "--objective.warmup", 1, "--binarization", "static"],
        ["--prior", "Hierarchical", "--prior.top", "Vamp", "--posterior", "Hierarchical"],
        [
            "--prior",
            "Hierarchical",
            "--posterior",
            "Ladder",
            "--posterior.top_dim=[4, 3]",
            "--posterior.encoder",
            "ResidualEncoder",
            "--posterior.encoder.channels=[3]",
            "--likelihood.decoder",
            "ResidualDecoder",
            "--likelihood.decoder.channels=[3]",
        ],
        [
            "--prior",
            "Hierarchical",
            "--prior.top",
            "Mixture",
            "--posterior",
            "BottomUp",
            "--posterior.top_dim=[4, 3]",
            "--objective",
            "IWAE",
        ],
        ["--prior", "UniformSphere", "--posterior", "PowerSpherical", "--likelihood", "Beta"],
        ["--objective", "TVO", "--aggressive", 3, "--diagnose_every", 1],
        ["--prior", "Bernoulli", "--posterior", "Bernoulli", "--objective", "IWAE"],
        ["--prior", "Flow", "--posterior", "IAF", "--likelihood", "DiscretizedLogistic"],
        [
            "--prior",
            "LARS",
            "--prior.widths=[8]",
            "--likelihood",
            "Categorical",
            "--likelihood.decoder",
            "SkipMLP",
            "--likelihood.decoder.widths=[8]",
        ],
        [
            "--prior",
            "Exemplar",
            "--likelihood",
            "PixelCNN",
            "--likelihood.layers",
            1,
            "--likelihood.channels",
            3,
        ],
        [
            "--likelihood.decoder",
            "ResidualDecoder",
            "--likelihood.decoder.channels=[3]",
            "--posterior.encoder",
            "ResidualEncoder",
            "--posterior.encoder.channels=[3]",
            "--likelihood",
            "PixelCNNLevels",
            "--likelihood.layers",
            1,
            "--likelihood.channels",
            3,
            "--batch_size",
            500,
        ],
        [
            "--likelihood.decoder",
            "ConvDecoder",
            "--likelihood.decoder.channels=[4]",
            "--posterior.encoder",
            "ConvEncoder",
            "--posterior.encoder.channels=[4]",
            "--binarization",
            "threshold",
        ],
    ],
)
def test_parts_are_swapped_by_name(script: Script, tmp_path: Path, arguments: list[Any]) -> None:
    code, _, err = script("svi_train", "--out", "run", *SMALL, *arguments)
    assert code == 0, err
    config = (tmp_path / "run/config.yaml").read_text()
    assert all(f".{name}\n" in config for name in arguments if str(name)[0].isupper())
    assert (tmp_path / "run/figures/manifold.png").exists() == (2 in arguments)


@pytest.mark.parametrize("shape", [(60, 5), (60, 6, 4), (60, 3, 6, 4)])
def test_users_own_arrays(script: Script, tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).random(shape)
    np.save(tmp_path / "own.npy", array)
    arguments = ["--data", "own.npy", "--batch_size", 20, *SMALL]
    assert script("svi_train", "--out", "run", *arguments, "--likelihood", "Gaussian")[0] == 0
    assert script("svi_train", *arguments)[0] == 0
    (named,) = (tmp_path / "runs").iterdir()
    assert named.name.startswith("own-")


def arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.full((30, 4), np.nan))
    np.save(tmp_path / "wide.npy", np.full((30, 4), 3.5))
    np.save(tmp_path / "reals.npy", np.random.default_rng(0).normal(size=(30, 4)))
    np.save(tmp_path / "three.npy", np.eye(3, 4))
    np.save(tmp_path / "vectors.npy", np.tile(np.eye(4), (15, 1)))
    (tmp_path / "text.npy").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null.yaml").write_text("data: null\n")
    raw = tmp_path / "broken/MNIST/raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte").write_bytes(b"")


REFUSED = [
    (["--prior", "Vam"], ["--prior", "'Vam'", "StandardNormal, ", "LearnedNormal, ", "Laplace, "]),
    (
        ["--likelihood", "Poison"],
        ["Bernoulli, ", "ContinuousBernoulli, ", "Gaussian, ", "StudentT, "],
    ),
    (["--posterior", "Flow"], ["--posterior", "choose ", " Normal, "]),
    (["--prior", "UniformSphere"], ["on the unit sphere", "real vectors", "two that agree"]),
    (["--posterior", "Bernoulli"], ["StandardNormal are real vectors", "Bernoulli are binary"]),
    (["--prior", "Hierarchical"], ["in several layers", "choose two that agree"]),
    (
        ["--posterior", "Hierarchical", "--prior", "Vamp"],
        ["in a single layer", "in several layers"],
    ),
    (
        ["--prior", "Hierarchical", "--posterior", "Hierarchical", "--prior.top", "UniformSphere"],
        ["on the unit sphere", "real vectors"],
    ),
    (["--prior", "Hierarchical", "--prior.top", "Vam"], ["top", "'Vam'", "StandardNormal"]),
    (["--prior", "Exemplar", "--posterior", "IAF"], ["none in closed form"]),
    (["--prior", "Flow", "--prior.transform", "planar"], ["affine_coupling", "planar"]),
    (["--prior", "Flow", "--latent_dim", 1], ["two latent dimensions"]),
    (
        ["--prior", "Categorical", "--posterior", "Categorical", "--prior.categories", 3],
        ["cannot be divided into one-hot variables"],
    ),
    (
        ["--prior", "Categorical", "--posterior", "Categorical", "--prior.categories", 2],
        ["2 categories and the posterior's 4"],
    ),
    (
        ["--prior", "Bernoulli", "--posterior", "Bernoulli", "--objective", "AnalyticELBO"],
        ["no closed form"],
    ),
    (["--likelihood", "Gaussian", "--likelihood.noise", "much"], ["fixed", "per_pixel", "much"]),
    (
        ["--likelihood", "Binomial", "--data", "reals.npy", "--batch_size", 9],
        ["Binomial models levels data, and these data are real", "(option --likelihood)"],
    ),
    (["--likelihood", "Binomial", "--binarization", "static"], ["binarization 'static'", "levels"]),
    (["--likelihood", "PixelCNN", "--likelihood.kernel_size", 4], ["kernel_size", "odd"]),
    (["--likelihood.outputs", 2], ["'outputs'", "--likelihood.help"]),
    (["--posterior", "SplineFlow", "--posterior.bins", 1200], ["500 at most"]),
    (["--prior", "LARS", "--prior.truncation", 10**59], ["at most 1e9"]),
    (["--prior", "StudentT", "--prior.df", 1e300], ["[1e-3, 1e6]"]),
    (["--likelihood", "StudentT", "--likelihood.df", 1e300], ["(1, 1e6]"]),
    (["--prior", "Mixture", "--prior.components", 10**23], ["ten million at most"]),
    (["--prior", "Exemplar", "--prior.components", 10**13], ["9.1 PiB of memory"]),
    (["--posterior.encoder.width", 3], ["'width'", "see --posterior.encoder.help MLP"]),
    (
        ["--prior", "Hierarchical", "--prior.top", "Vamp", "--prior.top.comp", 3],
        ["'comp'", "see --prior.help Vamp"],
    ),
    (["--likelihood.decoder.activation", "Softmax2d"], ["'Softmax2d' is not an activation"]),
    (["--objective", "VAE"], [" ELBO, ", "AnalyticELBO, ", "IWAE, ", "MIWAE, ", "PIWAE, "]),
    (
        ["--likelihood.decoder", "CNN"],
        ["--likelihood.decoder", "MLP, ", "Linear, ", "ConvEncoder, "],
    ),
    (["--prior", "nowhere.Prior"], ["--prior", "nowhere"]),
    (["--prior", "torch.nn.Linear"], ["--prior", "torch.nn.Linear"]),
    (["--prior", "Vamp", "--prior.component", 3], ["'component'", "--prior.help"]),
    (["--prior", "Vamp", "--prior.components", 0], ["at least one component"]),
    (["--prior", "Vamp", "--prior.components", "x"], ["--prior.components", "a whole number", "x"]),
    (["--likelihood.decoder.activation", "Nope"], ["'Nope'", "Tanh, ReLU"]),
    (["--likelihood", "Gaussian", "--likelihood.scale", -1], ["has to be in (1e-6, 1e6)"]),
    (["--likelihood.decoder", "ConvDecoder", "--likelihood.decoder.channels=[]"], ["channels"]),
    (["--likelihood.decoder.activation", "GLU"], ["'GLU'"]),
    (["--prior", "Prior"], ["abstract class Prior", "choose a subclass"]),
    (["--likelihood.decoder", "Network"], ["abstract class Network"]),
    (["--seed", 2**64], ["--seed"]),
    (["--config", "nan.npy"], ["not a YAML file"]),
    (["--config", "null.yaml"], ["--data has no value"]),
    (["--data", "mnist", "--data_root", "broken"], ["mnist could not be read from broken"]),
    (
        ["--likelihood", "Gaussian", "--binarization", "static"],
        ["binarization 'static'", "binary likelihoods"],
    ),
    (
        ["--objective", "AnalyticELBO", "--prior", "Mixture"],
        ["no closed form", "use the objective ELBO"],
    ),
    (["--objective", "IWAE", "--objective.num_particles", 0], ["num_particles"]),
    (["--objective.beta", -1], ["beta"]),
    (["--objective.free_bits", 1, "--prior", "Vamp"], ["group 0"]),
    (["--objective", "TVO", "--objective.terms", 0], ["terms"]),
    (["--aggressive", -1], ["aggressive has to be at least 0, but is -1", "--aggressive"]),
    (["--aggressive", 2, "--objective", "TargetKL"], ["TargetKL learns in each step"]),
    (["--num_examples", 1], ["num_examples has to be at least 2", "(option --num_examples)"]),
    (["--diagnose_every", -2], ["diagnose_every has to be at least 0", "--diagnose_every"]),
    (["--prior", "AR1", "--prior.rate", 99], ["rate of 99 nats"]),
    (["--binarization", "random"], ["--binarization", "dynamic", "static", "threshold"]),
    (["--nonsense", 3], ["--nonsense"]),
    (["--epochs", "x"], ["--epochs", "x"]),
    (["--epochs", 0], ["--epochs"]),
    (["--lr", 0], ["--lr"]),
    (["--lr", "nan"], ["--lr"]),
    (["--latent_dim", 0], ["--latent_dim"]),
    (["--seed", -1], ["--seed"]),
    (["--num_samples", 0], ["--num_samples"]),
    (["--num_examples", 0], ["--num_examples"]),
    (["--batch_size", 5000], ["batch_size 5000", "1457", "(option --batch_size)"]),
    (["--test_fraction", 0.0001], ["test set of digits is empty"]),
    (["--validation_fraction", 1], ["fraction"]),
    (["--data", "cifar"], ["'cifar'", "digits, mnist"]),
    (["--data", "none.npy"], ["no file none.npy"]),
    (["--data", "text.npy"], ["text.npy is not a NumPy array"]),
    (["--data", "nan.npy"], ["nan.npy has no values: all are missing"]),
    (["--data", "wide.npy"], ["each column of wide.npy has one value in all rows"]),
    (["--data", "three.npy"], ["empty"]),
    (["--data", "folder"], ["no pictures in folder"]),
    (
        ["--data", "vectors.npy", "--batch_size", 9, "--posterior.encoder", "ConvEncoder"],
        ["needs images"],
    ),
    (["--config", "none.yaml"], ["none.yaml"]),
    (["--out", "folder"], ["folder exists already", "--resume folder", "(option --out)"]),
    (["--resume", "none"], ["none is not the folder of a run"]),
    (["--resume", "folder"], ["folder is not the folder of a run"]),
]


@pytest.mark.parametrize(
    ("arguments", "said"), REFUSED, ids=[" ".join(map(str, a)) for a, _ in REFUSED]
)
def test_bad_input(script: Script, tmp_path: Path, arguments: list[Any], said: list[str]) -> None:
    arrays(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert_refused(script("svi_train", *arguments), *said)
    assert sorted(tmp_path.rglob("*")) == before  # no file is left


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(script: Script) -> None:
    assert_refused(script("svi_train", "--device", "cuda"), "no GPU", "(option --device)")


def test_runs_that_cannot_be_evaluated(script: Script, small_run: Path, tmp_path: Path) -> None:
    assert_refused(script("evaluate", "none"), "none is not the folder of a run")
    assert_refused(script("evaluate"), "run")
    assert_refused(script("evaluate", "run", "--num_samples", 0), "--num_samples")
    assert_refused(script("evaluate", "run", "--num_samples", "many"), "--num_samples")
    shutil.rmtree(tmp_path / "run" / "previous")
    for name in ("best.pt", "checkpoint.pt"):
        path = tmp_path / "run" / name
        path.write_bytes(path.read_bytes()[:1000])
    assert_refused(script("evaluate", "run"), "best.pt", "cut short")
    assert_refused(
        script("svi_train", "--resume", "run", "--epochs", 9), "checkpoint.pt", "cut short"
    )
    (tmp_path / "run" / "best.pt").unlink()
    assert_refused(script("evaluate", "run"), "best.pt", "train first")
    for broken in (b"hello world", b"\x80", pickle.dumps({"engine": 3})):
        (tmp_path / "run" / "checkpoint.pt").write_bytes(broken)
        config = (tmp_path / "run" / "config.yaml").read_text()
        assert_refused(script("svi_train", "--resume", "run", "--epochs", 9), "checkpoint.pt")
        assert (tmp_path / "run" / "config.yaml").read_text() == config
    for misfit in ({"engine": 3}, {"other": 3}):
        checkpoint.save(tmp_path / "run" / "checkpoint.pt", misfit)
        assert_refused(script("svi_train", "--resume", "run"), "checkpoint.pt does not fit")
    for cut in (config[:300], "", "- 1", "\0"):
        (tmp_path / "run" / "config.yaml").write_text(cut)
        assert_refused(script("evaluate", "run"), "config.yaml is no")


def test_a_run_is_measured_on_its_test_set_with_its_best_epoch(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`bounds.json` has the numbers that are computed here without a run."""
    made_up = iter([0.0, 1.0, 3.0, 2.0])  # after the first, of three epochs the second is the best
    step = EagerEngine.evaluate_loss

    def evaluate_loss(engine: EagerEngine, x: torch.Tensor) -> float:
        step(engine, x)
        return -next(made_up) * len(x) if len(x) == 161 else 0.0  # the validation set

    monkeypatch.setattr(EagerEngine, "evaluate_loss", evaluate_loss)
    arguments = ["--data_seed", 4, "--seed", 7, "--binarization", "threshold", "--epochs", 3]
    assert script("svi_train", "--out", "run", *SMALL, *WIDTHS, *arguments)[0] == 0
    best = checkpoint.load(tmp_path / "run/best.pt")
    assert best["epoch"] == 2
    vae = VAE(
        priors.StandardNormal(8),
        likelihoods.Bernoulli(8, [8, 8], partial(networks.MLP, widths=[16])),
        posteriors.Normal([8, 8], 8, partial(networks.MLP, widths=[16])),
    )
    vae.model.load_state_dict(best["model"])
    vae.guide.load_state_dict(best["guide"])
    test = (data.load("digits", seed=4).test > 8).float()
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(4))[:30]
    vae.eval()
    found = bounds.evaluate(vae.model, vae.guide, test[order], 20, seed=7)
    expected = {**found.to_dict(), "verdict": found.verdict}
    written = json.loads((tmp_path / "run/bounds.json").read_text())
    examples, conditions = written.pop("examples"), written.pop("conditions")
    assert conditions == {"iwae": {"num_samples": 20}}
    bits = -expected["iwae"]["20"]["mean"] / 64 / np.log(2)
    assert written.pop("bits_per_dim") == pytest.approx(bits)
    extremes = written.pop("extremes")
    gap = found.bound.values - found.elbo.values
    for name, places in (
        ("lowest", found.bound.values.argsort()),
        ("loosest", gap.argsort().flip(0)),
    ):
        assert [each["example"] for each in extremes[name]] == order[places[:8]].tolist()
    asked = written.pop("asked")
    assert (asked["checks"], asked["draws"]) == (0, 0)
    assert written == {
        "support": "binary",
        "base_measure": "binary pixels",
        "dims": 64,
        "training_steps": 45,
        **expected,
    }
    assert sum(examples["iwae"]["values"]) / 30 == pytest.approx(
        expected["iwae"]["20"]["mean"], abs=1e-4
    )


def test_options_reach_training(tmp_path: Path) -> None:
    """Each option changes the training."""

    def trained(*arguments: Any) -> str:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        options = [*SMALL, *WIDTHS, "--batch_size", 200, *arguments]
        run = Run.build(folder, command_line.parse_training([str(each) for each in options]))
        run.create()
        run.fit()  # the script also evaluates, which takes most of its time
        return (folder / "metrics.csv").read_text()

    outcomes = [
        trained(),
        trained("--seed", 1),
        trained("--data_seed", 1),
        trained("--batch_size", 300),
        trained("--lr", 0.01),
        trained("--binarization", "static"),
        trained("--binarization", "threshold"),
        trained("--latent_dim", 3),
        trained("--validation_fraction", 0.2),
        trained("--objective", "IWAE"),
        trained("--objective.beta", 0.5),
        trained("--prior", "LearnedNormal"),
        trained("--posterior.encoder", "Linear"),
        trained("--likelihood.decoder", "Linear"),
    ]
    assert len(set(outcomes)) == len(outcomes)
    assert trained() == outcomes[0]


def test_data_may_move(script: Script, tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.random.default_rng(0).random((60, 5)))
    arguments = ["--data", "own.npy", "--batch_size", 20, *SMALL]
    script("svi_train", "--out", "run", *arguments)
    (tmp_path / "own.npy").rename(tmp_path / "moved.npy")
    before = (tmp_path / "run/bounds.json").read_text()
    assert_refused(script("evaluate", "run"), "own.npy")
    same = ["--checks", 0, "--draws", 0]  # as at the end of training
    assert script("evaluate", "run", "--data", "moved.npy", *same)[0] == 0
    assert (tmp_path / "run/bounds.json").read_text() == before
    assert script("svi_train", "--resume", "run", "--data", "moved.npy")[0] == 0
    assert script("evaluate", "run")[0] == 0


def test_other_data_are_not_evaluated(script: Script, tmp_path: Path) -> None:
    """They are scored by another verb, also those that cannot be split; the run stays as it is."""
    x = np.random.default_rng(0).random((60, 5))
    np.save(tmp_path / "own.npy", x)
    script("svi_train", "--out", "run", "--data", "own.npy", "--batch_size", 20, *SMALL)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for name, rows in (("other", x + 1), ("fewer", x[:30]), ("one", x[:1]), ("wide", x.T)):
        np.save(tmp_path / f"{name}.npy", rows)
        refused = script("evaluate", "run", "--data", f"{name}.npy")
        assert_refused(refused, f"{name}.npy is not what run was trained on", "use pyro-vae score")
    np.save(tmp_path / "own.npy", x + 1)  # others of the same shape in the same place
    for command in (["evaluate", "run"], ["svi_train", "--resume", "run", "--epochs", 3]):
        assert_refused(script(*command), "own.npy is not what run was trained on")
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert after == before


def test_comparison(script: Script, tmp_path: Path) -> None:
    """Differences are paired, on one base measure; runs that are not comparable are refused."""
    for name, likelihood in (
        ("levels", "DiscretizedLogistic"),
        ("density", "ContinuousBernoulli"),
        ("binary", "Bernoulli"),
        ("static", "Bernoulli"),
        ("other", "Bernoulli"),
    ):
        more = {"static": ["--binarization", "static"], "other": ["--data_seed", 1]}.get(name, [])
        script("svi_train", "--out", name, *SMALL, *WIDTHS, "--likelihood", likelihood, *more)
    code, out, _ = script("compare", "levels", "density")
    assert code == 0 and "17 levels" in out
    contents = [
        json.loads((tmp_path / name / "bounds.json").read_text()) for name in ("levels", "density")
    ]
    levels, density = (content["iwae"]["20"]["mean"] for content in contents)
    difference = density - 64 * np.log(17) - levels
    assert f"{difference:+.3f}" in out and f"{-levels / 64 / np.log(2):.4f}\n" in out
    ours, theirs = (np.array(content["examples"]["iwae"]["values"]) for content in contents)
    paired = (theirs - ours).std(ddof=1) / 30**0.5
    assert f"{difference:+.3f} {paired:8.3f}" in out
    for name in ("levels", "density"):
        code_of = json.loads((tmp_path / name / "diagnostics.json").read_text())
        *_, row = (line for line in out.splitlines() if line.startswith(name) and "/" in line)
        assert (
            row.endswith(code_of["verdict"])
            and f"{code_of['active_units']}/{code_of['units']}" in row
        )
        assert f"{code_of['rate']['mean']:.2f}" in out and f"{code_of['gain']['mean']:.2f}" in out
        assert f"{100 * code_of['probe']['accuracy']:.1f} %" in out
    assert paired < np.hypot(ours.std(ddof=1), theirs.std(ddof=1)) / 30**0.5

    assert_refused(script("compare", "levels"), "two runs or more")
    assert_refused(script("compare", "levels", "levels"), "two runs or more")
    assert_refused(script("compare", "levels", "nowhere"), "there is no nowhere/bounds.json")
    assert_refused(script("compare", "levels", "binary"), "17 levels and binary pixels")
    code, out, _ = script("compare", "binary", "static")  # the same test pixels, by design
    assert code == 0 and "bits/dim" in out
    assert_refused(script("compare", "binary", "other"), "different test examples, or binarised")
    script("evaluate", "density", "--num_samples", 21)
    assert_refused(script("compare", "levels", "density"), "20 and 21")
    script("evaluate", "levels", "--num_samples", 21)
    (tmp_path / "levels/diagnostics.json").unlink()
    assert_refused(script("compare", "levels", "density"), "diagnostics.json: evaluate the run")
    (tmp_path / "density/bounds.json").write_text('{"iwae": 3}')
    assert_refused(script("compare", "levels", "density"), "density", "evaluate the run again")


def test_refined_posteriors(script: Script, small_run: Path, tmp_path: Path) -> None:
    assert_refused(
        script("evaluate", "run", "--refine", -1), "refine has to be at least 0", "--refine"
    )
    code, out, _ = script("evaluate", "run", "--refine", 50)
    content = json.loads((tmp_path / "run/bounds.json").read_text())
    gaps = content["gaps"]
    assert code == 0
    for name in ("log p - ELBO", "approximation", "amortisation"):
        assert any(
            line.split()[: len(name.split())] == name.split()
            and f"{gaps[name]['mean']:.3f}" in line
            for line in out.splitlines()
        )
    assert gaps["amortisation"]["mean"] > 4.5 * gaps["amortisation"]["mc_se"] > 0
    parts = gaps["approximation"]["mean"] + gaps["amortisation"]["mean"]
    assert parts == pytest.approx(gaps["log p - ELBO"]["mean"])


def test_annealing(script: Script, tmp_path: Path) -> None:
    """Bounds from both sides, on all images and on some: reported, written, and compared."""
    for name in ("first", "second"):
        script("svi_train", "--out", name, *SMALL, *WIDTHS, "--latent_dim", 2 + len(name) % 2)
    chains = ["--method", "ais", "--ais.temperatures", 20, "--ais.chains", 4, "--simulated", 10]
    for name in ("first", "second"):
        code, out, _ = script("evaluate", name, *chains)
        assert code == 0
        content = json.loads((tmp_path / name / "bounds.json").read_text())
        ais = content["ais"]
        assert (ais["num_examples"], ais["chains"], ais["temperatures"]) == (30, 4, 20)
        for side in ("lower", "upper"):
            assert f"{ais[side]['mean']:.3f}" in out
        assert f"{ais['certified95']:.3f}" in out and ais["certified95"] < ais["lower"]["mean"]
        assert content["simulated"]["num_examples"] == 10
        assert f"{content['simulated']['gap']['mean']:.3f}" in out
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert "bounds.nc" in files and ".evaluation" not in files
        assert (tmp_path / name / "figures/predictive.png").exists()
    code, out, _ = script("compare", "first", "second", "--figure", "forest.png")
    assert code == 0 and out.startswith("AIS of 30 test examples") and "MC error" in out
    assert "AIS, upper" in out
    assert (tmp_path / "forest.png").stat().st_size > 0
    refused = script("compare", "first", "second", "--figure", "forest.txt")
    assert refused[0] == 2 and "forest.txt cannot be drawn" in refused[2]

    code, out, _ = script("evaluate", "first", *chains, "--subset", 10)
    (beside,) = (tmp_path / "first/evaluations").glob("30-examples-20-draws-ais-*")
    content = json.loads((beside / "bounds.json").read_text())
    whole = content["whole"]
    assert (whole["num_examples"], whole["subset"]) == (30, 10)
    assert f"{whole['mean']:.3f}" in out and f"{whole['se']:.3f}" in out
    code, out, _ = script("compare", beside, "second")
    assert code == 0 and out.startswith("IWAE_20 of 30")

    assert_refused(
        script("evaluate", "first", *chains, "--subset", 31), "31 is more than the 30", "--subset"
    )
    assert_refused(script("evaluate", "first", "--subset", 10), "use the method ais")
    assert_refused(script("evaluate", "first", "--checks", 1), "two examples or more", "--checks")
    assert script("evaluate", "first", *chains, "--ais.temperatures", 10)[0] == 0
    assert_refused(
        script("compare", "first", "second"), "AIS depends on temperatures", "(10 and 20)"
    )
    more = ["--checks", 0, "--draws", 0, "--num_examples", 40]
    assert script("evaluate", "first", *chains, *more, "--num_samples", 30)[0] == 0
    assert (tmp_path / "first/bounds.nc").exists()  # it belongs to what asked for more
    assert_refused(script("evaluate", "first", "--ais.chains", 1), "chains have to be at least 2")
    assert_refused(script("evaluate", "first", "--ais.start", "middle"), "posterior", "middle")
    assert_refused(script("evaluate", "first", "--method", "mcmc"), "--method", "ais")


def test_an_interrupted_evaluation_goes_on(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers are the same to the last digit, and finished batches are not computed again."""
    script("svi_train", "--out", "run", *SMALL, *WIDTHS, "--num_examples", 150)
    before = (tmp_path / "run/bounds.json").read_text()
    drawn: list[int] = []
    draw = importance._log_w

    def interrupted(pair: Any, batch: Any, count: int) -> torch.Tensor:
        drawn.append(len(batch))
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(pair, batch, count)

    monkeypatch.setattr(batches.time, "monotonic", iter(range(0, 10**6, 10)).__next__)
    monkeypatch.setattr(importance, "_log_w", interrupted)
    arguments = ["evaluate", "run", "--checks", 0, "--draws", 0]
    code, out, err = script(*arguments)
    assert (code, out) == (130, "") and "continues where it stopped" in err
    assert script(*arguments)[0] == 0
    assert drawn == [50] * 4
    assert (tmp_path / "run/bounds.json").read_text() == before


@pytest.mark.parametrize("code", ["Bernoulli", "Categorical"])
def test_discrete_codes_are_annealed(script: Script, tmp_path: Path, code: str) -> None:
    parts = ["--prior", code, "--posterior", code]
    script("svi_train", "--out", "run", *SMALL, *WIDTHS, *parts)
    chains = ["--ais.temperatures", 5, "--ais.chains", 4, "--simulated", 5, "--checks", 0]
    assert script("evaluate", "run", "--method", "ais", *chains)[0] == 0
    ais = json.loads((tmp_path / "run/bounds.json").read_text())["ais"]
    assert ais["lower"]["mean"] < ais["upper"]["mean"] + 0.5


@pytest.mark.parametrize("name", ["bounds.nc", "figures/units.png"])
def test_a_full_disk_names_the_file(
    script: Script, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The results of the evaluation before it stay."""
    before = (tmp_path / "run/bounds.json").read_bytes()
    save = Figure.savefig

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def savefig(self: Figure, file: Any, *args: Any, **kwargs: Any) -> None:
        if str(file).endswith(name):
            full()
        save(self, file, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    if name == "bounds.nc":
        monkeypatch.setattr(os, "posix_fallocate", full)
    result = script("evaluate", "run", "--num_examples", 31, "--checks", 0)
    last = result[2].splitlines()[-1]
    assert result[0] == 2 and result[1] == "" and "Traceback" not in result[2]
    assert last.startswith("error: [Errno 28] No space left on device: 'run/")
    assert f"{name}' - the same command continues where it stopped" in last
    assert (tmp_path / "run/bounds.json").read_bytes() == before
    assert not (tmp_path / "run/bounds.nc").exists()


def test_divergence(script: Script, tmp_path: Path) -> None:
    deep = ["--likelihood.decoder.widths=[16,16,16,16,16,16,16,16]"]  # (1e6)^9 is infinite
    code, out, err = script("svi_train", "--out", "run", *SMALL, *WIDTHS, *deep, "--lr", 1e6)
    last = err.splitlines()[-1]
    assert code == 2 and out == "" and "Traceback" not in err
    assert last.startswith("error: the loss became") and "of epoch 1" in last


def test_a_training_that_went_wild_says_so_first(script: Script, tmp_path: Path) -> None:
    """Its loss is finite, and the advice on posterior collapse would mislead."""
    code, out, _ = script("svi_train", "--out", "run", *SMALL, *WIDTHS, "--lr", 10)
    assert code == 3
    assert out.strip().startswith("Training went wild: the best validation bound, -")
    assert "To try" not in out and "To bound" not in out
    page = (tmp_path / "run/report.html").read_text()
    assert "Training went wild" in page and "To try" not in page and "--lr=1" in page
    code, out, _ = script("evaluate", "run", "--checks", 0, "--draws", 0)
    assert code == 0 and out.strip().startswith("Training went wild")


def test_interruption(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Checkpoint, "after_epoch", interrupt)
        code, _, err = script("svi_train", "--out", "run", *SMALL, *WIDTHS)
    assert code == 130
    assert "continue with: pyro-vae train --resume run" in err
    assert "Traceback" not in err
    assert script("svi_train", "--resume", "run")[0] == 0


def test_help(script: Script) -> None:
    code, out, _ = script("svi_train", "--help")
    assert code == 0
    for option in ("--data", "--prior", "--likelihood", "--posterior", "--objective", "--resume"):
        assert option in out
    for choice in ("Vamp", "ContinuousBernoulli", "IWAE"):
        assert choice in out
    code, out, _ = script("svi_train", "--prior.help", "Vamp")
    assert code == 0 and "--prior.components" in out and "pseudo-inputs" in out


PRELOADED = [
    "matplotlib.figure",
    "pyro_vae.runs.evaluation",
    "pyro_vae.runs.report",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.linear_model",
    "torch._dynamo",
]


def train(arguments: list[str]) -> None:
    """Run `svi_train.py` as the main program of a new process."""
    tqdm.set_lock(threading.RLock())  # a process that is killed would leave its own lock behind
    sys.argv = ["svi_train", *arguments]
    runpy.run_path(str(ROOT / "scripts/svi_train.py"), run_name="__main__")


def test_killed_five_times_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run killed at random moments and resumed has the same parameters, bit for bit.

    The processes are forks of one that has imported the package: importing takes most of the time.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # fast for small models, also on a busy machine
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(PRELOADED)

    def start(*arguments: Any) -> BaseProcess:
        process = processes.Process(target=train, args=([str(each) for each in arguments],))
        process.start()
        return process

    def finish(*arguments: Any) -> None:
        process = start(*arguments)
        process.join()
        assert process.exitcode == 0

    run = tmp_path / "killed"
    options = [*SMALL, *WIDTHS, "--batch_size", 500, "--num_samples", 1, "--engine", "eager"]
    options += ["--objective.warmup", 0]  # a quarter of a million epochs have no end here

    def epochs_done() -> int:
        metrics = run / "metrics.csv"
        return len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0

    moments = random.Random(0)
    stopped_at = []
    for kill in range(5):
        more = ["--resume", run] if kill else [*options, "--out", run, "--epochs", 10**6]
        before = epochs_done()
        process = start(*more)
        # The first is killed as soon as its folder exists, the others while they train.
        # (Resuming may take a row out of metrics.csv that has no checkpoint.)
        while epochs_done() <= before if kill else not run.exists():
            assert process.is_alive(), "the run ended by itself"
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1) if kill else 0)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run ended by itself"
        stopped_at.append(epochs_done())
    assert stopped_at[0] == 0 and len(set(stopped_at)) == 5
    epochs = stopped_at[-1] + 3
    finish("--resume", run, "--epochs", epochs)
    finish(*options, "--out", tmp_path / "whole", "--epochs", epochs)
    for name in ("checkpoint.pt", "best.pt", "data.pt", "scores.pt"):
        whole, killed = (checkpoint.load(tmp_path / part / name) for part in ("whole", "killed"))
        assert_equal(whole, killed)
    for name in ("metrics.csv", "bounds.json"):
        assert (run / name).read_text() == (tmp_path / "whole" / name).read_text()


def assert_equal(first: Any, second: Any) -> None:
    """Nested dictionaries and lists are equal, bit for bit."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second
