"""Trainings and evaluations are stopped at random moments, and end as if they had not been.

Each is stopped several times, in ways that are drawn at random: by SIGKILL, SIGTERM or Ctrl-C, by a
full disk, in the middle of a write; and after a SIGKILL the newest checkpoint may be damaged. Then
the command goes on. In the end every number is compared with the uninterrupted one's, bit for bit.
Environment variables set how many there are:

    CHAOS_TRAININGS=50 CHAOS_EVALUATIONS=20 CHAOS_SEED=1 pytest -n 0 -s tests/chaos
"""

import contextlib
import errno
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

from pyro_vae import checkpoint
from pyro_vae.__main__ import main
from pyro_vae.runs import results_folder

TRAININGS = int(os.environ.get("CHAOS_TRAININGS", "2"))
EVALUATIONS = int(os.environ.get("CHAOS_EVALUATIONS", "1"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
WAYS = ("SIGKILL", "SIGTERM", "SIGINT", "full disk", "limit", "cut", "damage")
SMALL = [
    *("--likelihood.decoder.widths=[16]", "--posterior.encoder.widths=[16]", "--device", "cpu"),
    *("--num_samples", "5", "--num_examples", "100", "--batch_size", "100", "--latent_dim", "3"),
]
KINDS = [  # of trainings; the last one is only for many trainings, since compiling takes long
    [
        *("--engine", "eager", "--epochs", "8", "--average", "EMA", "--schedule", "Cosine"),
        *("--batch_doublings", "1", "--objective.warmup", "3", "--patience", "6"),
    ],
    [
        *("--engine", "eager", "--epochs", "4", "--aggressive", "2", "--validate_by", "IWAE_5"),
        *("--objective", "IWAE", "--checkpoint_minutes", "0.0003", "--validate_every", "2"),
    ],
    [
        *("--engine", "eager", "--epochs", "6", "--clip_norm", "100", "--optimizer", "AdamW"),
        *("--objective", "TargetKL", "--objective.target", "3", "--prior", "Vamp"),
    ],
    ["--engine", "compiled", "--epochs", "6", "--average", "TailMean", "--precision", "bfloat16"],
]
EVALUATION = [
    *("--method", "ais", "--ais.temperatures", "5", "--ais.chains", "2", "--simulated", "20"),
    *("--refine", "2", "--checks", "50", "--draws", "2", "--num_samples", "20", "--device", "cpu"),
]
PRELOADED = [
    *("matplotlib.figure", "pyro_vae.runs.commands", "pyro_vae.runs.files"),
    *("pyro_vae.runs.reporting.run_page", "pyro_vae.runs.applying", "pyro_vae.runs.report"),
    *("scipy.stats", "sklearn.datasets", "sklearn.linear_model", "torch._dynamo"),
]


def work(arguments: list[str], output: Path, way: str, moment: int) -> None:
    """Run a command in this process, which is new, and let its disk fail at a moment."""
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # a process that is killed would leave its own lock behind
    if way == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (moment, resource.RLIM_INFINITY))
    elif way in ("full disk", "cut"):
        fail_at(moment, way)
    output.with_suffix(".started").touch()
    code: Any = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = stop.code or 0
    sys.stdout.flush()
    os._exit(code)


def fail_at(moment: int, way: str) -> None:
    """Let the disk be full, or the power be cut, in the middle of a write.

    Args:
        moment: the number of the call of fsync at which it is.
        way: which of the two.
    """
    count, sync = 0, os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == moment:
            with contextlib.suppress(OSError):  # a folder has no length
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            if way == "cut":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    os.fsync = fsync


class Chaos:
    """Starts commands, and stops them at random moments in random ways.

    Attributes:
        counts: how often a command was stopped in each way.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.random = random.Random(SEED)
        self.counts: Counter[str] = Counter()
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(PRELOADED)
        self.run(["--version"])  # the preloading takes no part in the times

    def run(self, arguments: list[str], way: str = "", seconds: float = 0.0) -> bool:
        """Run a command, and stop it.

        Args:
            arguments: those of `pyro-vae`.
            way: one of `WAYS`; "" lets it come to its end.
            seconds: the time that it takes without being stopped.

        Returns:
            Whether it came to its end.
        """
        output = self.folder / "output.txt"
        output.with_suffix(".started").unlink(missing_ok=True)
        moments = range(100, 60_000) if way == "limit" else range(1, 60)  # bytes, or writes
        moment = self.random.choice(moments)
        process = self.processes.Process(
            target=work, args=(arguments, output, way, moment), daemon=True
        )
        start = time.monotonic()
        process.start()
        while process.is_alive() and not output.with_suffix(".started").exists():
            time.sleep(0.001)
        if way in ("SIGKILL", "SIGTERM", "SIGINT", "damage"):
            process.join(0.01 + self.random.uniform(0, 0.8 * seconds))
            if process.is_alive():
                assert process.pid is not None
                number = signal.SIGKILL if way == "damage" else signal.Signals[way]
                os.kill(process.pid, number)
        process.join(300)
        assert process.exitcode is not None, "it hangs"
        said = output.read_text()
        print(
            f"{arguments[0]} {way} {moment}: {process.exitcode}, {time.monotonic() - start:.1f} s"
        )
        assert "Traceback" not in said, said
        if process.exitcode == 0:
            return True
        expected = {"SIGTERM": 143, "SIGINT": 130, "full disk": 2, "limit": 2}.get(way, -9)
        assert process.exitcode == expected, (way, process.exitcode, said)
        last = said.rstrip().splitlines()[-1:]
        if expected == 2:
            assert last[0].startswith("error: "), said
        elif expected > 0:
            assert last[0].startswith("interrupted"), said
        self.counts[way] += 1
        return False


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        made = Chaos(tmp_path_factory.mktemp("chaos"))
        yield made
    print(f"\nstopped: {dict(made.counts)}")


def damage(path: Path, moments: random.Random) -> bool:
    """Flip a bit of a file, or cut it short, if it exists; return whether it did."""
    if not path.exists():
        return False
    content = bytearray(path.read_bytes())
    place = moments.randrange(len(content))
    if moments.random() < 0.5:
        del content[place:]
    else:
        content[place] ^= 1 << moments.randrange(8)
    path.write_bytes(content)
    return True


def content(folder: Path) -> dict[str, Any]:
    """Return what a run's files hold, by their names, but for times and for what may differ."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name == "config.yaml" or name.startswith(checkpoint.PREVIOUS):
            continue  # the options change on resume; interruptions save in between
        if path.suffix == ".pt":
            found[name] = checkpoint.load(path)
        elif path.suffix in (".json", ".csv"):
            found[name] = path.read_text()
        elif path.is_file() and name != "report.html":  # it names the folder
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    found.pop("bounds.nc", None)  # it has the time in it
    return found


def assert_equal(one: Any, other: Any, name: str = "") -> None:
    """Nests of dictionaries and lists are equal, bit for bit."""
    assert type(one) is type(other), name
    if isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one:
            assert_equal(one[key], other[key], f"{name}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), name
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            assert_equal(first, second, f"{name}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), name
    else:
        assert one == other, name


@pytest.fixture(scope="module")
def wholes() -> dict[int, tuple[dict[str, Any], float]]:
    """Uninterrupted trainings: what they hold, and the seconds that they took."""
    return {}


@pytest.mark.parametrize("number", range(TRAININGS))
def test_trainings(
    chaos: Chaos, wholes: dict[int, tuple[dict[str, Any], float]], number: int
) -> None:
    kind = 3 if number % 20 == 19 else number % 3
    options = ["train", *SMALL, *KINDS[kind], "--data", "digits"]
    if kind not in wholes:
        start = time.monotonic()
        whole = chaos.folder / f"whole-{kind}"
        assert chaos.run([*options, "--out", str(whole)])
        wholes[kind] = content(whole), time.monotonic() - start
    expected, seconds = wholes[kind]
    run = chaos.folder / f"parts-{number}"
    goes_on = ["train", "--resume", str(run)]
    ended, stops = False, 0
    while stops < 2 + number % 3 and not (ended and stops):
        if ended:  # before it could be stopped
            shutil.rmtree(run)
        way = chaos.random.choice(WAYS)
        ended = chaos.run(goes_on if run.exists() else [*options, "--out", str(run)], way, seconds)
        stops += not ended
        if not ended and way == "damage" and (run / checkpoint.PREVIOUS / "checkpoint.pt").exists():
            damage(run / "checkpoint.pt", chaos.random)
            chaos.counts["checkpoints damaged"] += 1
    if not ended:
        assert chaos.run(goes_on if run.exists() else [*options, "--out", str(run)])
    assert_equal(expected, content(run))
    shutil.rmtree(run)


@pytest.fixture(scope="module")
def trained(chaos: Chaos) -> tuple[Path, dict[str, Any], float]:
    """A trained run, and an uninterrupted evaluation of it: what it holds, and its seconds."""
    run, evaluated = chaos.folder / "trained", chaos.folder / "evaluated" / "run"
    assert chaos.run(["train", *SMALL, *KINDS[0], "--data", "digits", "--out", str(run)])
    shutil.copytree(run, evaluated)
    start = time.monotonic()
    assert chaos.run(["evaluate", str(evaluated), *EVALUATION])
    return run, content(evaluated), time.monotonic() - start


@pytest.mark.parametrize("number", range(EVALUATIONS))
def test_evaluations(
    chaos: Chaos, trained: tuple[Path, dict[str, Any], float], number: int
) -> None:
    before, expected, seconds = trained
    run = chaos.folder / f"evaluation-{number}" / "run"
    shutil.copytree(before, run)
    old = content(run)
    ended, stops = False, 0
    while stops < 2 + number % 3 and not (ended and stops):
        if ended:
            shutil.rmtree(run)
            shutil.copytree(before, run)
        way = chaos.random.choice([each for each in WAYS if each != "damage"])
        ended = chaos.run(["evaluate", str(run), *EVALUATION], way, seconds)
        stops += not ended
        if (run / results_folder.READY).exists():  # the command that follows finishes the exchange
            chaos.counts["killed while results were exchanged"] += 1
        else:
            now = {name: value for name, value in content(run).items() if name[0] != "."}
            assert_equal(now, expected if now.keys() == expected.keys() else old)
    if not ended:
        assert chaos.run(["evaluate", str(run), *EVALUATION])
    assert_equal(expected, content(run))
    shutil.rmtree(run)
