"""The package as others get it: a wheel in a fresh environment, used from an empty folder."""

import functools
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pandas as pd
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


# What is tried with each kind of data: a verb, the number of rows that it reads or draws, and the
# suffix of what it writes. With each kind a verb reads a thousand rows, and one a single row.
TRIED = {
    "images": ["score 1000 csv", "reconstruct 1 png", "export"],
    "reals": ["encode 1000 npz", "score 1 csv", "sample 1000 csv"],
    "counts": ["reconstruct 1000 npy", "encode 1 csv"],
    "table": ["impute 1000 csv", "score 1 csv", "sample 9 csv"],
}


def rows_of(kind: str, count: int) -> np.ndarray | pd.DataFrame:
    draw = np.random.default_rng(count)
    if kind == "images":
        return np.tile(pyro_vae.data.load("digits").train.numpy(), (2, 1, 1))[:count]
    if kind == "reals":
        return draw.normal(5, 3, (count, 4))
    if kind == "counts":
        return draw.poisson([1, 4, 20], (count, 3))
    table = pd.DataFrame(
        {
            "height": draw.normal(170, 10, count),
            "children": draw.poisson(2, count),
            "city": draw.choice(["Rome", "Oslo"], count),
            "income": draw.lognormal(3, 1, count),
        }
    )
    return table.mask(draw.random((count, 4)) < [0.3, 0.2, 0.1, 0])


def write(path: Path, rows: np.ndarray | pd.DataFrame) -> None:
    if isinstance(rows, pd.DataFrame):
        rows.to_csv(path, index=False)
    else:
        np.save(path, rows)


def numbers_in(path: Path) -> dict[str, np.ndarray]:
    """Return the columns or arrays of a file that hold numbers."""
    if path.suffix == ".csv":
        return {
            name: column.to_numpy()
            for name, column in pd.read_csv(path).select_dtypes("number").items()
        }
    read = np.load(path)
    return dict(read) if path.suffix == ".npz" else {"": read}


@pytest.mark.parametrize("kind", TRIED)
def test_every_verb_works_without_the_data_of_training(
    program: Path, tmp_path: Path, kind: str
) -> None:
    suffix = "csv" if kind == "table" else "npy"
    data = tmp_path / f"data.{suffix}"
    write(data, rows_of(kind, 300))
    called = functools.partial(run, program, folder=tmp_path)
    assert "IWAE_5" in called("train", "--data", data.name, "--out", "run", *SMALL)
    if kind == "table":
        assert "IWAE_6" in called("evaluate", "run", "--num_samples", "6", "--checks", "0")
        shutil.copytree(tmp_path / "run", tmp_path / "second")
        assert "IWAE_6 of 9" in called("compare", "run", "second")
    data.unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    for line in TRIED[kind]:
        verb, count, ending = [*line.split(), "", ""][:3]
        if verb == "export":
            called("export", "run", "--out", "exported")
            assert (tmp_path / "exported/encoder.pt2").exists()
            continue
        out = tmp_path / f"{verb}_{count}.{ending}"
        if verb == "sample":
            called("sample", "run", "--count", count, "--out", out.name)
        else:
            new = rows_of(kind, int(count))
            write(tmp_path / f"new.{suffix}", new)
            called(verb, "run", "--data", f"new.{suffix}", "--out", out.name)
        if ending == "png":
            assert out.read_bytes().startswith(b"\x89PNG")
            continue
        found = numbers_in(out)
        assert {len(numbers) for numbers in found.values()} == {int(count)}
        unknown = {name for name, numbers in found.items() if not np.isfinite(numbers).all()}
        assert unknown <= {"mc_se", "khat"}  # errors are not stated where they cannot be known
        if verb == "score":
            assert list(found["row"]) == list(range(int(count)))
            expected = pyro_vae.load(tmp_path / "run").score(new).log_p
            np.testing.assert_allclose(found["log_p"], expected, rtol=1e-5)
        if verb == "impute":
            pd.testing.assert_frame_equal(
                pd.read_csv(out).where(new.notna()), new, check_dtype=False
            )
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}


def test_the_wheel_is_what_runs(program: Path, tmp_path: Path) -> None:
    code = "import pyro_vae, sys; print(pyro_vae.__file__, sys.prefix)"
    file, prefix = run(program.with_name("python"), "-c", code, folder=tmp_path).split()
    assert file.startswith(prefix) and prefix == str(program.parent.parent)
    assert run(program, "--version", folder=tmp_path) == f"pyro-vae {pyro_vae.__version__}\n"
