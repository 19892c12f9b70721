"""Pyro programs of others, evaluated from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_vae.runs import commands

PROGRAMS = """
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

Path("executed").touch()


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        return pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.mean(-1) * 0.7, 0.6))


def make():
    return model, guide


def one():
    return model
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyro_vae", "evaluate", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PROGRAMS)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 2)))
    return tmp_path


def test_bounds_of_programs_hold(folder: Path) -> None:
    ais = ["--method", "ais", "--ais.temperatures", "20", "--draws", "3"]
    small = ["--num_samples", "500", "--num_examples", "40", "--trust_code", "--out", "found"]
    ran = run(folder, "--programs", "mine.py:make", "--data", "x.npy", *small, *ais)
    assert ran.returncode == 0, ran.stderr
    assert "IWAE_500" in ran.stdout and "AIS, upper" in ran.stdout
    content = json.loads((folder / "found" / "bounds.json").read_text())
    x = torch.from_numpy(np.load(folder / "x.npy")[:40])
    covariance = torch.eye(2).double() + 1
    exact = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    log_p = exact.log_prob(x).mean().item()
    found = content["iwae"]["500"]
    assert abs(found["mean"] - log_p) < 4 * found["mc_se"] + 2e-3
    for side in ("lower", "upper"):
        bound = content["ais"][side]
        assert abs(bound["mean"] - log_p) < 4 * bound["mc_se"] + 2e-3
    assert (folder / "found" / "bounds.nc").stat().st_size > 1000
    assert content["num_examples"] == 40


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--programs", "mine.py:make", "--data", "x.npy"], "add --trust_code"),
        (["--programs", "no.py:make", "--data", "x.npy", "--trust_code"], "no such file"),
        (
            ["--programs", "mine.py", "--data", "x.npy", "--trust_code"],
            "has to be FILE.py:FUNCTION",
        ),
        (["--programs", "mine.py:no", "--data", "x.npy", "--trust_code"], "no function no"),
        (["--programs", "mine.py:one", "--data", "x.npy", "--trust_code"], "a model and a guide"),
        (["--programs", "mine.py:make", "--data", "no.npy", "--trust_code"], "no file no.npy"),
        (["--programs", "mine.py:make", "--data", "mine.py", "--trust_code"], "give a .npy"),
    ],
)
def test_programs_that_cannot_be_evaluated(
    folder: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the folder of the programs is added to it
    with pytest.raises(SystemExit) as stop:
        commands.main(["evaluate", *arguments])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and said in err and err.count("\n") == 1
    runs = {"mine.py:no", "mine.py:one"} & {*arguments}
    assert (folder / "executed").exists() == bool(runs)
    assert not (folder / "programs").exists()
