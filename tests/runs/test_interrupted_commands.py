"""Commands that are stopped by signals, in processes of their own: one line, and the exit code."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from pyro_vae import checkpoint
from pyro_vae.runs import command_line

OPTIONS = [
    *("--likelihood.decoder.widths=[16]", "--posterior.encoder.widths=[16]", "--device", "cpu"),
    *("--num_samples", "5", "--num_examples", "20", "--latent_dim", "2", "--engine", "eager"),
]
# It says when Python has started; then the command begins.
COMMAND = "import sys; print('begins', flush=True); from pyro_vae.__main__ import main; main()"


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    return process


def wait_for(process: subprocess.Popen[str], happens: Callable[[], bool]) -> None:
    while not happens():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def stop(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Send a signal; return the exit code and the last line of what is said."""
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == "" and "Traceback" not in err, err
    return process.returncode, err.rstrip().splitlines()[-1]


@pytest.mark.parametrize(
    ("number", "code", "after"),
    [(signal.SIGINT, 130, 0.15), (signal.SIGTERM, 143, 0.15), (signal.SIGINT, 130, 1.5)],
)
def test_in_the_first_seconds(tmp_path: Path, number: int, code: int, after: float) -> None:
    process = start(tmp_path, "train", "--out", "run", *OPTIONS)
    time.sleep(after)
    ended, said = stop(process, number)
    assert ended == code and said.startswith("interrupted")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_swallowed_interruption(
    capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    """Half a library is imported: the error that follows is one of the interruption."""
    before = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    with (
        pytest.raises(SystemExit) as raised,
        command_line.one_line_errors(),
        command_line.one_line_errors(None, "- nothing was written"),
    ):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        raise AttributeError("module 'numpy._core' has no attribute '_multiarray_umath'")
    assert raised.value.code == code
    assert capsys.readouterr().err == "\ninterrupted - nothing was written\n"
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == before


def test_an_error_without_an_interruption_is_not_hidden() -> None:
    with pytest.raises(AttributeError), command_line.one_line_errors():
        raise AttributeError("a fault of this project")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_in_training(tmp_path: Path, number: int, code: int) -> None:
    """The step is saved, and nobody else may write into the folder meanwhile."""
    long = [*OPTIONS, "--epochs", "1000000", "--batch_size", "10"]
    process = start(tmp_path, "train", "--out", "run", *long)
    wait_for(process, (tmp_path / "run/metrics.csv").exists)
    if number == signal.SIGTERM:
        second = start(tmp_path, "train", "--resume", "run")
        out, err = second.communicate(timeout=60)
        assert (second.returncode, out) == (2, "")
        assert err == "error: another process is writing run: wait until it ends\n"
    ended, said = stop(process, number)
    assert ended == code
    assert said == "interrupted - continue with: pyro-vae train --resume run"
    state = checkpoint.load(tmp_path / "run/checkpoint.pt")
    done = len(state["history"]) * 146 + state.get("place", {"steps": 0})["steps"]
    assert state["callbacks"]["Checkpoint"]["steps"] == done > 0
    assert not list((tmp_path / "run").glob(".*"))
