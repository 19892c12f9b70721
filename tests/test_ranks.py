"""Several processes on this machine: trainings and bounds are those of one process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ranks_subject
import torch

from pyro_vae import InputError
from pyro_vae.errors import ProcessLost
from pyro_vae.programs import ranks
from pyro_vae.runs import commands, joining
from pyro_vae.training.shared_steps import check_batch_size

LIMIT = 200  # seconds, after which a job has failed
TRAIN = (
    *("-m", "pyro_vae", "train", "--data", "digits", "--latent_dim", "2", "--batch_size", "700"),
    *("--diagnose_every", "0", "--num_samples", "10", "--num_examples", "60", "--engine", "eager"),
    *("--epochs", "20", "--out"),
)


class Job:
    """Two processes that torchrun starts, in a session of their own."""

    def __init__(self, *arguments: str, restarts: int = 0) -> None:
        run = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
        self.process = subprocess.Popen(
            [sys.executable, *run, "--max-restarts", str(restarts), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def finish(self) -> str:
        """Wait for the end, and return what was printed."""
        try:
            return self.process.communicate(timeout=LIMIT)[0]
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail("the processes did not end: " + self.process.communicate()[0][-2000:])

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def rank(self, number: int) -> int:
        """Return the process id of a rank."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                is_child = f"PPid:\t{self.process.pid}\n" in (path / "status").read_text()
                if is_child and f"\0RANK={number}\0" in (path / "environ").read_text():
                    return int(path.name)
        raise AssertionError(f"there is no rank {number}")


@contextlib.contextmanager
def job(*arguments: str, restarts: int = 0) -> Iterator[Job]:
    started = Job(*arguments, restarts=restarts)
    try:
        yield started
    finally:
        started.kill()


def wait_for(path: Path, job: Job) -> None:
    end = time.monotonic() + LIMIT
    while not path.exists():
        assert job.process.poll() is None and time.monotonic() < end, job.finish()[-2000:]
        time.sleep(0.02)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process found, and then each of two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    with job(ranks_subject.__file__, str(two)) as running:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        ranks_subject.main(one)
        torch.set_num_threads(threads)
        printed = running.finish()
        assert running.process.returncode == 0, printed[-3000:]
    assert not list(two.glob("kept.*of*.pt"))
    assert torch.load(two / "kept.pt")["numbers"] == list(range(10))
    return [torch.load(path) for path in (one / "0.pt", two / "0.pt", two / "1.pt")]


@pytest.mark.parametrize("name", ["ELBO", "IWAE", "TargetKL", "dropout", "callbacks", "compiled"])
def test_trainings_are_those_of_one_process(both: list[dict[str, Any]], name: str) -> None:
    one, first, second = (found["trainings"][name] for found in both)
    torch.testing.assert_close(first["history"], one["history"], rtol=2e-6, atol=0)
    torch.testing.assert_close(first["parameters"], one["parameters"], rtol=1e-4, atol=2e-5)
    assert first["history"] == second["history"]
    if name == "compiled":  # there the two optimisers round differently
        return
    for mine, yours in zip(first["parameters"], second["parameters"], strict=True):
        assert torch.equal(mine, yours)


@pytest.mark.parametrize("name", ["elbo", "iwae", "khat", "log_w", "codes"])
def test_bounds_and_codes_are_those_of_one_process(both: list[dict[str, Any]], name: str) -> None:
    one, *two = (found["bounds"][name] for found in both)
    assert all(torch.equal(one, each) for each in two)


def test_a_resumed_training_is_the_one_that_was_not_interrupted(both: list[dict[str, Any]]) -> None:
    for found in both:
        resumed, whole = (found["trainings"][name] for name in ("resumed", "not interrupted"))
        assert resumed["history"] == whole["history"]
        torch.testing.assert_close(resumed["parameters"], whole["parameters"], rtol=0, atol=0)


def test_a_run_is_started_again_and_ends_as_that_of_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with job(*TRAIN, str(two), restarts=1) as running:
        wait_for(two / "checkpoint.pt", running)
        os.kill(running.rank(1), signal.SIGKILL)
        printed = running.finish()
        assert running.process.returncode == 0, printed[-3000:]
    # On a busy machine torchrun may end the first process before it notices the loss.
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(lines) <= 1 and all("process 0 of 2 has lost another one" in line for line in lines)
    assert printed.count("Where to look:") == 1  # the first process alone speaks
    commands.main([*TRAIN[2:], str(one)])
    assert sorted(path.name for path in one.iterdir()) == sorted(p.name for p in two.iterdir())
    first, second = (pd.read_csv(folder / "metrics.csv") for folder in (one, two))
    pd.testing.assert_frame_equal(first, second, rtol=1e-5)
    best = [torch.load(folder / "best.pt") for folder in (one, two)]
    torch.testing.assert_close(*best, rtol=1e-3, atol=1e-4)


def test_a_lost_process_is_named() -> None:
    said = "process 0 of 1 has lost another one, .* goes on from the last checkpoint"
    with pytest.raises(ProcessLost, match=said), ranks._peers():
        raise RuntimeError("Connection closed by peer")


def test_without_restarts_a_killed_process_ends_the_job_within_seconds(tmp_path: Path) -> None:
    with job(ranks_subject.__file__, str(tmp_path), "on and on") as running:
        wait_for(tmp_path / "checkpoint.pt", running)
        started = time.monotonic()
        os.kill(running.rank(0), signal.SIGKILL)
        printed = running.finish()
        assert time.monotonic() - started < 20
        assert running.process.returncode != 0
    lines = [line for line in printed.splitlines() if "error: " in line]
    assert len(lines) <= 1  # none if torchrun ended the other process first
    assert all("goes on from the last checkpoint" in line for line in lines)


def test_shares_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "size", lambda: 3)
    for count in (1, 2, 3, 7, 31):
        covered = []
        for number in range(3):
            monkeypatch.setattr(ranks, "number", lambda number=number: number)
            share = ranks.share_of(count)
            assert share is not None and share.whole == count and share.last > share.first
            covered += range(share.first, share.last) if share.counts else []
        assert covered == list(range(count))
    with pytest.raises(InputError, match="a batch of 2 cannot be shared by 3 processes"):
        check_batch_size(2)


def test_one_process_is_left_alone() -> None:
    assert ranks.size() == 1 and ranks.share_of(5) is None and ranks.is_first()
    with ranks.together():
        assert not ranks.shares_work()


def test_verbs_that_are_not_shared_refuse_torchrun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SystemExit) as ended:
        commands.main(["sample", "--help"])
    assert ended.value.code == 2
    assert "sample is the work of one process" in capsys.readouterr().err


def test_only_a_restart_by_torchrun_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joining.remember_made(tmp_path)
    assert joining.made_before() is None
    monkeypatch.setattr(joining, "_store", torch.distributed.HashStore())
    assert joining.made_before() is None  # whatever folders there are
    joining.remember_made(tmp_path)
    assert joining.made_before() == tmp_path
    arguments = ["--out", str(tmp_path), "--trust_code", "--epochs", "3"]
    assert joining.going_on(arguments, tmp_path) == ["--resume", str(tmp_path), "--trust_code"]
