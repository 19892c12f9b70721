"""Hostile input ends in one line: some of what `long_run.py` makes in an hour."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import FrameType

import attempts
import data_files
import h5py
import numpy as np
import pytest
import torch
import yaml

from pyro_vae import InputError, data
from pyro_vae.runs import command_line, commands, config
from pyro_vae.runs.plan import Plan
from pyro_vae.runs.run import Run

GOOD = {"accepted", "refused", "diverged", "refused by the command line"}
COUNTS = {"data": 60, "options": 12, "configs": 20, "runs": 8}  # about 20 s in all


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[attempts.Workshop]:
    before = os.getcwd()
    yield attempts.Workshop(tmp_path_factory.mktemp("hostile"))
    os.chdir(before)


@pytest.mark.parametrize("name", attempts.ATTEMPTS)
def test_hostile_input_ends_in_one_line(name: str, workshop: attempts.Workshop) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"slow: {name} {at}")

    before, at = signal.signal(signal.SIGALRM, stop), 0
    counts: Counter[str] = Counter()
    try:
        for at in range(COUNTS[name]):
            signal.alarm(60)
            what, ended = attempts.ATTEMPTS[name](at, workshop)
            assert ended.partition(":")[0] in GOOD, f"{name} {at}, {what}: {ended}"
            counts[ended] += 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert counts["refused"], counts
    assert counts["accepted"] or name == "configs", counts  # one of a hundred of those


def test_an_attempt_notices_code_files_and_long_errors(tmp_path: Path) -> None:
    (tmp_path / "executed").touch()
    assert attempts.left_behind(set(), tmp_path) == "failure: code was executed"
    (tmp_path / ".half").touch()
    assert attempts.left_behind(set(), tmp_path) == "failure: left behind ['.half']"
    assert attempts.left_behind({".half"}, tmp_path) == ""

    def two_lines() -> None:
        raise InputError("one\ntwo")

    assert attempts.ending(two_lines).startswith("no line: ")
    assert attempts.ending(lambda: 1 / 0).startswith("failure: ZeroDivisionError")
    assert attempts.ending(lambda: torch.zeros(2) @ torch.zeros(3)).startswith("failure: Runtime")
    assert attempts.ending(lambda: open(tmp_path / "none")).startswith("refused by the command")
    assert attempts.ending(lambda: None) == "accepted"


def test_each_kind_of_data_file_is_made(tmp_path: Path) -> None:
    """Also whole ones: half of the attempts would otherwise say nothing of the readers."""
    made, loaded = Counter[str](), Counter[str]()
    for number in range(120):
        inner = tmp_path / str(number)
        inner.mkdir()
        what, path = data_files.write(Random(number), inner)
        made[what] += 1
        try:
            data.load(str(path))
            loaded[what] += 1
        except InputError:
            pass
        shutil.rmtree(inner)
    assert {what.removesuffix(", damaged") for what in made} == {*data_files.WRITERS, "folder"} - {
        ""
    }
    assert len(loaded) > 4


def commands_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, which has to end with code 2, and return the line that it prints."""
    with pytest.raises(SystemExit) as stop:
        commands.main(arguments)
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--posterior.encoder=ConvDecoder"], "ConvDecoder makes pictures, and the encoder of a"),
        (
            ["--prior=Hierarchical", "--posterior=BottomUp", "--posterior.network=ConvDecoder"],
            "ConvDecoder makes pictures, and the",
        ),
        (["--likelihood=Given"], "Given is added to the likelihood where the data need it"),
        (["--likelihood=ObservedEntries"], "ObservedEntries is added to the likelihood"),
        (
            ["--likelihood=Bernoulli", "--likelihood.features=null"],
            "Bernoulli has no option 'features'",
        ),
        (["--latent_dim=1000000000000"], "PiB of memory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_it_is_not_is_refused(
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in commands_line(["train", *options, "--out=run"], capsys)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("number", ["1:30", "1:30.5", "-2:00", "010", "0_7"])
def test_numbers_in_files_are_decimal(number: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"latent_dim: {number}\n")
    with pytest.raises(InputError, match=f"has the number {number}, which YAML reads in another"):
        config.parse([f"--config={path}"])
    path.write_text(f"drop: '{number}'\nlr: 0.5\nseed: 0\nepochs: 1_000\n")
    parsed = config.parse([f"--config={path}"])
    assert (parsed.drop, parsed.lr, parsed.seed, parsed.epochs) == (number, 0.5, 0, 1000)


@pytest.mark.parametrize(
    ("option", "number"),
    [
        ("latent_dim", "1:30"),
        ("lr", "1:30.5"),
        ("epochs", "2:00"),
        ("prior.components", "1:30"),
        ("likelihood.decoder.widths", "[1:30]"),
    ],
)
def test_typed_and_quoted_numbers_are_decimal(option: str, number: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="YAML reads") as error:
        config.parse(["--prior=Vamp", f"--{option}={number}"])
    assert number in str(error.value)
    with pytest.raises(InputError, match="YAML reads"):
        config.parse(["--prior", "Vamp", f"--{option}", number])
    path = tmp_path / "config.yaml"
    given: dict[str, object] = {option: number}
    if option.startswith("prior."):
        part = {"class_path": "pyro_vae.priors.Vamp", "init_args": {"components": number}}
        given = {"prior": part}
    path.write_text(yaml.safe_dump(given))
    with pytest.raises(InputError, match="YAML reads"):
        config.parse([f"--config={path}", "--trust_code"])  # the text may be the name of a class


def test_only_numbers_that_are_used_have_to_be_decimal(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("latent_dim: '1:30'\ndata: '2:00'\n")
    parsed = config.parse([f"--config={path}", "--latent_dim=5"])
    assert (parsed.data, parsed.latent_dim) == ("2:00", 5)
    parsed = config.parse(["--drop", "1:30", "--latent_dim", "90", "--lr=010"])
    assert (parsed.drop, parsed.latent_dim, parsed.lr) == ("1:30", 90, 10.0)
    with pytest.raises(InputError, match=r"--ais\.chains: 1:30 is not a decimal number"):
        command_line.parse_evaluation(["run", "--ais.chains", "1:30"])


def test_settings_that_would_be_ignored_are_refused() -> None:
    options = command_line.parse_evaluation(["run", "--ais.chains", "8"])
    with pytest.raises(InputError, match=r"settings of ais .* use the method ais"):
        command_line.make_plan(options)
    options = command_line.parse_evaluation(["run", "--ais.chains", "8", "--method", "ais"])
    assert command_line.make_plan(options).ais.chains == 8
    assert Plan().ais.chains == 16
    with pytest.raises(
        InputError, match="chains have to be at most 100000, but 1000000000 was given"
    ):
        command_line.make_plan(
            command_line.parse_evaluation(["r", "--method=ais", "--ais.chains=1000000000"])
        )
    with pytest.raises(InputError, match="checks has to be at most 1000000, but is 1000000000"):
        Plan(checks=10**9)


def test_arrays_that_nobody_uses_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be bombs: a megabyte in the file, gigabytes in memory."""
    draw = np.random.default_rng(0)
    arrays = {"train": draw.random((50, 3)), "junk": np.zeros((10**4, 10**4), "u1")}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    monkeypatch.setattr("pyro_vae.data.free_memory.free_memory", lambda: 2.0**20)
    loaded = data.load(str(tmp_path / "a.npz"))
    assert loaded.train.shape == (41, 3) and any("junk" in note for note in loaded.notes)
    np.savez_compressed(tmp_path / "b.npz", train=arrays["junk"])
    with pytest.raises(InputError, match=r"b\.npz holds 0\.09 GiB of numbers, and 0\.001 GiB"):
        data.load(str(tmp_path / "b.npz"))


def test_small_files_that_say_that_they_are_large(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file.create_dataset("X", (10**12, 300), "f4", chunks=(1000, 300))
    with pytest.raises(InputError, match=r"X has the shape \[1000000000000, 300\], far more than"):
        data.load(str(tmp_path / "a.h5ad"))
    torch.save(torch.zeros(1).expand(10**13, 3), tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"an expanded tensor holds .* TiB of numbers"):
        data.load(str(tmp_path / "a.pt"))
    torch.save(torch.zeros(40, 3).to(torch.float8_e5m2), tmp_path / "b.pt")
    with pytest.raises(InputError, match="float8_e5m2: save it as float32"):
        data.load(str(tmp_path / "b.pt"))


def test_many_columns_of_one_name_take_little_time(tmp_path: Path) -> None:
    """Pandas takes minutes to number them."""
    names = ",".join(["c"] * 20_000)
    (tmp_path / "a.csv").write_text(f"{names}\n" + "1," * 19_999 + "2\n")
    with pytest.raises(InputError, match=r"a\.csv has 20000 columns c: give each its own name"):
        data.load(str(tmp_path / "a.csv"))


def test_a_folder_without_training_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("test", "validation"):
        (tmp_path / name / "a").mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / name / "a" / "0.png")
    with pytest.raises(InputError):
        data.load(str(tmp_path))


def test_a_file_that_is_refused_leaves_no_run(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((50, 3), np.nan))
    with pytest.raises(InputError):
        Run.build(tmp_path / "run", config.parse([f"--data={tmp_path / 'x.npy'}"])).create()
    assert [each.name for each in tmp_path.iterdir()] == ["x.npy"]
