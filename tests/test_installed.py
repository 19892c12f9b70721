"""The package as others get it: a wheel in a fresh environment, used from an empty folder."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from conftest import ROOT

import pyro_vae

SMALL = "--epochs 1 --num_samples 5 --num_examples 9 --diagnose_every 0 --device cpu".split()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `pyro-vae` in an environment that sees the dependencies of this one."""
    folder = tmp_path_factory.mktemp("installed")
    sources = folder / "sources"
    shutil.copytree(ROOT / "pyro_vae", sources / "pyro_vae")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *alone, "-w", folder, sources], check=True)
    venv.create(folder / "venv")
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv/bin/python"
    subprocess.run([*pip, "--python", python, "install", *alone, wheel], check=True)
    (site,) = (folder / "venv/lib").glob("*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    return folder / "venv/bin/pyro-vae"


def run(program: Path, *arguments: str, folder: Path) -> str:
    """Run a program in a folder, without the variables of this process; return its output."""
    command, environment = [str(program), *arguments], {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_train_evaluate_compare(program: Path, tmp_path: Path) -> None:
    assert "IWAE_5" in run(program, "train", "--out", "first", *SMALL, folder=tmp_path)
    assert "IWAE_6" in run(program, "evaluate", "first", "--num_samples", "6", folder=tmp_path)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    assert "IWAE_6 of 9" in run(program, "compare", "first", "second", folder=tmp_path)
    run(program, *"score first --data digits --out a.csv --num_samples 2".split(), folder=tmp_path)
    assert (tmp_path / "a.csv").read_text().startswith("row,log_p,mc_se,")
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second", "a.csv"}


def test_the_wheel_is_what_runs(program: Path, tmp_path: Path) -> None:
    code = "import pyro_vae, sys; print(pyro_vae.__file__, sys.prefix)"
    file, prefix = run(program.with_name("python"), "-c", code, folder=tmp_path).split()
    assert file.startswith(prefix) and prefix == str(program.parent.parent)
    assert run(program, "--version", folder=tmp_path) == f"pyro-vae {pyro_vae.__version__}\n"
