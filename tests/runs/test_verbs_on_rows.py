"""The verbs that put a trained model to work on files, as a program that somebody runs."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

import pyro_vae
from pyro_vae.runs import applying, commands, config, speaking, work_on_files
from pyro_vae.runs.run import Run

SMALL = "--epochs 1 --latent_dim 2 --num_samples 5 --num_examples 20 --diagnose_every 0"
SMALL += " --seed 1 --device cpu --engine eager"
DONE = r"(scored|encoded|reconstructed|imputed|drew) {} rows? in [\d.]+ s \([\d,]+ a second\): {}\n"
draw = np.random.default_rng(0)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pyro_vae", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a verb in a folder. What is written to stderr has one line, whatever happens."""
    result = subprocess.run(
        command(*line.split()), cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert result.stdout == "" and result.stderr.count("\n") == 1, result.stderr
    return result


def work(folder: Path, line: str, rows: int) -> None:
    """Run a verb as a program, and check what it says."""
    result = run(folder, line)
    assert result.returncode == 0, result.stderr
    _check(result.stderr, line, rows)


def work_here(folder: Path, line: str, rows: int) -> None:
    """Do the same in this process, which is quicker."""
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stderr(said):
        commands.main(line.split())
    _check(said.getvalue(), line, rows)


def _check(said: str, line: str, rows: int) -> None:
    out = line.split("--out ")[1].split()[0]
    assert re.fullmatch(DONE.format(rows, re.escape(out)), said), said


def train(folder: Path, *arguments: str) -> Path:
    """Train in the folder, remove the data of training, and return the folder."""
    with contextlib.chdir(folder):
        run = Run.build(folder / "run", config.parse([*SMALL.split(), *arguments]))
        run.create()
        run.fit()
    for path in folder.glob("train.*"):
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    x = pyro_vae.data.load("digits").train.numpy()
    np.save(folder / "train.npy", x[:600])
    np.save(folder / "new.npy", x[600:700])
    return train(folder, "--data", "train.npy", "--epochs", "4")


def test_pictures(digits: Path) -> None:
    new = np.load(digits / "new.npy")
    order = draw.permutation(len(new))
    np.save(digits / "permuted.npy", new[order])
    np.save(digits / "one.npy", new[:1])
    np.save(digits / "noise.npy", draw.integers(0, new.max() + 1, new.shape).astype(new.dtype))
    model = applying.load(digits / "run")
    for name, rows, how in (
        ("new", 100, work),
        ("permuted", 100, work_here),
        ("one", 1, work),
        ("noise", 100, work_here),
    ):
        how(digits, f"score run --data {name}.npy --out {name}.csv", rows)
    scores = {
        name: pd.read_csv(digits / f"{name}.csv", float_precision="round_trip")
        for name in ("new", "permuted", "one", "noise")
    }
    assert list(scores["new"]) == ["row", "log_p", "mc_se", "khat", "percentile"]
    assert list(scores["one"]["row"]) == [0]
    expected = model.score(new)
    np.testing.assert_array_equal(scores["new"]["log_p"], expected.log_p)
    assert np.corrcoef(scores["permuted"]["log_p"], expected.log_p[order])[0, 1] > 0.95
    assert scores["noise"]["log_p"].max() < scores["new"]["log_p"].median()
    assert scores["noise"]["percentile"].median() < 1 < 20 < scores["new"]["percentile"].median()
    work_here(digits, "encode run --data permuted.npy --out codes.npz", 100)
    model_codes = model.encode(new[order])
    np.testing.assert_array_equal(np.load(digits / "codes.npz")["mean"], model_codes.mean)
    work_here(digits, "reconstruct run --data new.npy --out again.npy", 100)
    np.testing.assert_array_equal(np.load(digits / "again.npy"), model.reconstruct(new))
    work_here(digits, "reconstruct run --data one.npy --out again.png", 1)
    with Image.open(digits / "again.png") as image:
        assert image.size == (64, 64)
        grey = np.asarray(image)[::8, ::8] / 255
    np.testing.assert_allclose(grey, model.reconstruct(new[:1])[0] / new.max(), atol=1 / 255)
    work(digits, "sample run --count 7 --out drawn.png --temperature 0.5 --seed 3", 7)
    with Image.open(digits / "drawn.png") as image:
        assert image.size == (3 * 72 - 8, 3 * 72 - 8) and image.mode == "L"
        grid = np.asarray(image)[::8, ::8]
    first = model.sample(7, temperature=0.5, seed=3)
    np.testing.assert_allclose(grid[9:17, :8], first[3] / new.max() * 255, atol=0.6)


def test_the_time_of_the_work_is_said(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The summary does not count the start; and the progress bar counts whole rows."""
    now = 0.0
    load = applying.load

    def clock() -> float:
        nonlocal now
        now += 0.01
        return now

    def load_slowly(*arguments: Any, **options: Any) -> Any:
        nonlocal now
        now += 1000
        return load(*arguments, **options)

    monkeypatch.setattr(applying, "load", load_slowly)
    monkeypatch.setattr(work_on_files.time, "perf_counter", clock)
    monkeypatch.setattr(speaking, "shows_progress", lambda: True)
    commands.main(f"sample {digits / 'run'} --count 20 --out {digits / 'timed.npy'}".split())
    said = capsys.readouterr().err
    found = re.search(r"drew 20 rows in ([\d.]+) s \(", said)
    assert found and float(found[1]) < 100
    assert "| 20/20 [" in said and "20.0" not in said


def test_annealing_bounds_from_both_sides(digits: Path) -> None:
    np.save(digits / "few.npy", np.load(digits / "new.npy")[:3])
    line = "score run --data few.npy --out both.parquet --method ais --ais.temperatures 20"
    work(digits, f"{line} --ais.chains 4", 3)
    found = pd.read_parquet(digits / "both.parquet")
    names = ["row", "log_p", "mc_se", "khat", "percentile", "upper", "upper_mc_se"]
    assert list(found) == names and (found["upper"] > found["log_p"] - 5).all()


def test_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["ants", "bees", "flies"]
    counts = pd.DataFrame(draw.poisson([3, 20, 9], (200, 3)), columns=names)
    counts.to_csv(tmp_path / "train.csv", index=False)
    train(tmp_path, "--data", "train.csv")
    new = counts[:20][["flies", "ants", "bees"]]
    new.to_csv(tmp_path / "new.csv", index=False)
    model = applying.load(tmp_path / "run")
    work(tmp_path, "score run --data new.csv --out scores.npy --num_samples 10", 20)
    expected = model.score(counts[:20], 10).log_p
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy")["log_p"], expected)
    work_here(tmp_path, "sample run --count 5 --out drawn.csv", 5)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "drawn.csv"), model.sample(5))
    with pytest.raises(SystemExit), contextlib.chdir(tmp_path):
        commands.main("sample run --count 5 --out drawn.png".split())
    assert "are not pictures" in capsys.readouterr().err


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    rows = pd.DataFrame(
        {
            "height": draw.normal(170, 10, 300),
            "children": draw.poisson(2, 300),
            "city": draw.choice(["Rome", "Oslo"], 300),
            "sex": draw.choice(["f", "m"], 300),
            "age": draw.uniform(20, 70, 300).round(1),
        }
    )
    holes = draw.random(rows.shape) < np.array([0.2, 0.2, 0.2, 0, 0])
    rows = rows.mask(holes)
    rows.to_csv(folder / "train.csv", index=False)
    rows[:40].to_csv(folder / "new.csv", index=False)
    return train(folder, "--data", "train.csv", "--condition", "sex,age")


def test_mixed_tables_with_holes(table: Path) -> None:
    new = pd.read_csv(table / "new.csv")
    work(table, "impute run --data new.csv --out filled.csv --num_samples 50", 40)
    filled = pd.read_csv(table / "filled.csv")
    assert not filled.isna().any().any()
    observed = new["height"].notna()
    np.testing.assert_allclose(filled["height"][observed], new["height"][observed], rtol=1e-6)
    permuted = new.sample(frac=1, random_state=1)
    permuted.to_csv(table / "permuted.csv", index=False)
    work_here(table, "encode run --data new.csv --out codes.csv", 40)
    work_here(table, "encode run --data permuted.csv --out permuted_codes.csv", 40)
    codes, again = (pd.read_csv(table / f"{name}codes.csv") for name in ("", "permuted_"))
    np.testing.assert_allclose(again, codes.iloc[permuted.index], rtol=1e-5, atol=1e-6)
    work_here(table, "score run --data new.csv --out scores.csv --num_samples 10", 40)
    work(table, "sample run --count 4 --out drawn.csv --condition age=33.5 sex=f", 4)
    drawn = pd.read_csv(table / "drawn.csv")
    assert (drawn["sex"] == "f").all() and np.allclose(drawn["age"], 33.5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("score run --data new.csv --out new.csv", "new.csv exists: .* --overwrite"),
        ("score run --data new.csv --out new.csv --overwrite", "is the file that is read"),
        ("score run --data new.csv --out a.txt", r"ends with \.csv, .*option --out"),
        ("score run --data new.csv --out a.png", r"ends with \.csv, .*option --out"),
        ("score run --data new.csv --out run/metrics.csv --overwrite", "is a file of a run"),
        ("score run --data new.csv --out run/figures/a.csv", "of a run: .*option --out"),
        ("score run --data none.csv --out a.csv", "there is no file none.csv"),
        ("score run --data bad.csv --out a.csv", "unknown categories Bern"),
        ("score nowhere --data new.csv --out a.csv", "nowhere is not the folder of a run"),
        ("score run --data new.csv --out a.csv --num_samples 0", "option --num_samples"),
        ("score run --out a.csv", "--data is missing"),
        ("sample run --count 0 --out a.csv --condition sex=f age=3", "option --count"),
        ("sample run --count 3 --out a.csv", "given sex, age: .*option --condition"),
        ("sample run --count 3 --out a.csv --condition sex=f", "value of age is missing"),
        ("sample run --count 3 --out a.csv --condition f", "f is not understood: .*sex, age"),
        ("sample run --count 3 --out a.csv --condition sex=f age=old", "age has to be a number"),
        ("sample run --count 3 --out a.csv --condition sex=f size=3", "size is not a condition"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    table: Path, line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.read_csv(table / "new.csv").assign(city="Bern").to_csv(table / "bad.csv", index=False)
    before = {path: path.stat().st_mtime_ns for path in table.iterdir()}
    with pytest.raises(SystemExit) as stop, contextlib.chdir(table):
        commands.main(line.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(said, error), error
    assert {path: path.stat().st_mtime_ns for path in table.iterdir()} == before


def test_one_condition_is_given_by_its_value(tmp_path: Path) -> None:
    train(tmp_path, "--data", "digits", "--condition", "labels")
    for number, condition in enumerate(("3", "label=3")):
        line = f"sample run --count 2 --out {number}.npy --condition {condition}"
        work_here(tmp_path, line, 2)
    expected = applying.load(tmp_path / "run").sample(2, y=3)
    for number in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"{number}.npy"), expected)


@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_an_interrupted_command_continues(
    digits: Path, tmp_path: Path, stop: signal.Signals, code: int
) -> None:
    x = np.load(digits / "new.npy")
    np.save(tmp_path / "many.npy", np.tile(x, (90, 1, 1)))  # three chunks
    line = f"score {digits / 'run'} --data many.npy --num_samples 10 --out"
    process = subprocess.Popen(
        command(*line.split(), "scores.csv"),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    pieces = tmp_path / ".scores.csv.unfinished"
    while not (pieces / "0.npz").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(stop)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    said = "\ninterrupted - scores.csv was not written: the same command continues\n"
    assert error == ("" if stop == signal.SIGKILL else said)
    assert {path.name for path in tmp_path.iterdir()} == {"many.npy", pieces.name}
    again = io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stderr(again):
        with pytest.raises(SystemExit):
            commands.main([*line.split(), "scores.csv", "--num_samples", "11"])
        assert "had another num_samples" in again.getvalue()
        assert "(option --overwrite)" in again.getvalue()
        commands.main([*line.split(), "scores.csv"])
        commands.main([*line.split(), "whole.csv"])
    assert re.search("scored [48],(808|904) more rows in", again.getvalue()), again.getvalue()
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not pieces.exists()


def test_draws_and_intervals(digits: Path, table: Path) -> None:
    np.save(digits / "two.npy", np.load(digits / "new.npy")[:2])
    work_here(digits, "encode run --data two.npy --out drawn.npz --draws 3", 2)
    assert np.load(digits / "drawn.npz")["draw"].shape == (2, 3, 2)
    line = "impute run --data new.csv --num_samples 50 --draws 2 --intervals --out ends.csv"
    work_here(table, line, 40)
    drawn = pd.read_csv(table / "ends.csv")
    names = ["height", "children", "city", "sex", "age"]
    ends = [f"{side}_{name}" for side in ("lower", "upper") for name in ("height", "children")]
    assert list(drawn) == [*names, *ends, *(f"draw{k}_{name}" for k in (0, 1) for name in names)]


def test_own_classes_need_trust(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from pyro_vae import priors\nclass Own(priors.StandardNormal):\n    pass\n"
    )
    train(tmp_path)
    config_file = tmp_path / "run/config.yaml"
    text = config_file.read_text().replace("pyro_vae.priors.StandardNormal", "own.Own")
    config_file.write_text(text)
    refused = run(tmp_path, "sample run --count 2 --out a.npy")
    assert refused.returncode == 2 and "--trust_code" in refused.stderr
    work(tmp_path, "sample run --count 2 --out a.npy --trust_code", 2)
