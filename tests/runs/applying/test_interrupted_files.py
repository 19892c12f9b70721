"""Files that are written in pieces: an interrupted call goes on, and the file is the same."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae
from pyro_vae import InputError, checkpoint, kinds
from pyro_vae.programs import looking
from pyro_vae.programs.looking_once import Seen
from pyro_vae.runs import applying, config
from pyro_vae.runs.applying import files_of_rows, pieces, row_writer, sampling, seeded_batches
from pyro_vae.runs.applying.held_folder import held
from pyro_vae.runs.applying.output_file import OutputFile
from pyro_vae.runs.applying.picture_writer import PictureWriter
from pyro_vae.runs.applying.requests import request
from pyro_vae.runs.applying.row_writer import RowWriter
from pyro_vae.runs.run import Run

SMALL = ["--num_samples", "20", "--num_examples", "20", "--device", "cpu", "--engine", "eager"]
SMALL += ["--latent_dim", "2", "--epochs", "1", "--batch_size", "40"]
SIZE = 60  # rows of a chunk
draw = np.random.default_rng(0)


def table(rows: int) -> pd.DataFrame:
    whole = pd.DataFrame(
        {
            "height": draw.normal(170, 10, rows),
            "city": draw.choice(["Rome", "Oslo"], rows),
            "visits": draw.poisson(3, rows),
        }
    )
    return whole.mask(draw.random(whole.shape) < np.array([0.2, 0.1, 0]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the run of a table, and other rows of it."""
    found = tmp_path_factory.mktemp("table")
    table(200).to_csv(found / "a.csv", index=False)
    run = Run.build(found / "run", config.parse([*SMALL, "--data", str(found / "a.csv")]))
    run.create()
    run.fit()
    table(200).to_csv(found / "new.csv", index=False)
    return found


@pytest.fixture
def model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> applying.Trained:
    monkeypatch.setattr(files_of_rows, "rows_at_once", lambda shape: SIZE)
    monkeypatch.setattr(row_writer, "TOGETHER", 3000)
    for module in (files_of_rows, sampling, seeded_batches):
        monkeypatch.setattr(module, "BATCH", 20)
    return pyro_vae.load(folder / "run")


Work = Callable[[applying.Trained, Path, Path], applying.Written]
VERBS: dict[str, Work] = {
    "score": lambda m, new, out: applying.score_file(m, str(new), out, 10),
    "slow score": lambda m, new, out: applying.score_file(m, str(new), out, 1000),
    "encode": lambda m, new, out: applying.encode_file(m, str(new), out, 2),
    "reconstruct": lambda m, new, out: applying.reconstruct_file(m, str(new), out),
    "impute": lambda m, new, out: applying.impute_file(
        m, str(new), out, 50, draws=2, intervals=True
    ),
    "sample": lambda m, new, out: applying.sample_file(m, 200, out, seed=3),
}
SUFFIXES = (".csv", ".parquet", ".npz", ".npy")
# What is interrupted does not know the type of the file: one verb writes all, the others two.
INTERRUPTED = {
    "score": SUFFIXES,
    "slow score": (".npy",),
    "encode": (".npz", ".csv"),
    "reconstruct": (".csv", ".npy"),
    "impute": (".parquet", ".npz"),
    "sample": (".npy", ".parquet"),
}


def hidden(out: Path) -> Path:
    return out.with_name(f".{out.name}.unfinished")


class Stopped(KeyboardInterrupt):
    """What an interruption raises here."""


def interrupt(
    monkeypatch: pytest.MonkeyPatch, after: int, work: Callable[[], Any], error: BaseException
) -> None:
    """Do some work, and stop it where the piece of this number would be written."""
    write = checkpoint.write

    def stop(path: Path, *content: bytes | memoryview, **how: bool) -> None:
        if path.name == f"{after}.npz":
            raise error
        write(path, *content, **how)

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(checkpoint, "write", stop)
        work()


@pytest.mark.parametrize("verb", VERBS)
def test_an_interrupted_call_writes_the_same_file(
    verb: str,
    model: applying.Trained,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work, new = VERBS[verb], folder / "new.csv"
    for number, suffix in enumerate(INTERRUPTED[verb]):
        whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
        assert work(model, new, whole).before == 0
        after = number % 3 + 1
        interrupt(monkeypatch, after, lambda to=out: work(model, new, to), Stopped())
        assert not out.exists() and hidden(out).is_dir()
        again = pyro_vae.load(folder / "run")
        written = work(again, new, out)
        assert (written.rows, written.before) == (200, SIZE * after)
        assert f"{SIZE * after} rows were finished before" in written.notes[-1]
        assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_files_of_all_types_have_the_same_values(
    model: applying.Trained, folder: Path, tmp_path: Path
) -> None:
    for verb in ("score", "encode", "impute", "sample"):
        for suffix in SUFFIXES:
            VERBS[verb](model, folder / "new.csv", tmp_path / f"a{suffix}")
        frame = pd.read_csv(tmp_path / "a.csv", float_precision="round_trip")
        stored = pd.read_parquet(tmp_path / "a.parquet")
        frame = frame.astype(stored.dtypes)
        pd.testing.assert_frame_equal(frame, stored, check_exact=True)
        arrays, rows = np.load(tmp_path / "a.npz"), np.load(tmp_path / "a.npy")
        assert list(arrays) == list(rows.dtype.names)
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], rows[name])
            if arrays[name].ndim == 1:
                np.testing.assert_array_equal(arrays[name], stored[name].to_numpy())
    assert len(frame) == 200


def test_chunks_have_the_numbers_of_the_model(
    model: applying.Trained, folder: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(folder / "new.csv")
    encoded = model.encode(rows[:SIZE], 2, seed=model.options.seed)
    VERBS["encode"](model, folder / "new.csv", tmp_path / "a.npz")
    VERBS["encode"](model, folder / "new.csv", tmp_path / "a.csv")
    found, frame = np.load(tmp_path / "a.npz"), pd.read_csv(tmp_path / "a.csv")
    assert found["draw"].shape == (200, 2, 2)
    np.testing.assert_array_equal(found["draw"][:SIZE, 1], encoded.draws[1])
    names = [f"{what}_{j}" for what in ("mean", "scale", "draw0", "draw1") for j in range(2)]
    assert list(frame) == names
    np.testing.assert_allclose(frame["draw1_0"], found["draw"][:, 1, 0], rtol=1e-6)
    imputed = model.impute(rows[:SIZE], 50, draws=2, seed=model.options.seed)
    VERBS["impute"](model, folder / "new.csv", tmp_path / "b.parquet")
    frame = pd.read_parquet(tmp_path / "b.parquet")
    own = ["height", "city", "visits"]
    ends = [f"{side}_{name}" for side in ("lower", "upper") for name in ("height", "visits")]
    assert list(frame) == [*own, *ends, *(f"draw{k}_{name}" for k in range(2) for name in own)]
    np.testing.assert_array_equal(frame["lower_height"][:SIZE], imputed.lower[:, 0])
    np.testing.assert_array_equal(frame["upper_visits"][:SIZE], imputed.upper[:, 2])
    assert list(frame["draw1_city"][:SIZE]) == list(imputed.draws[1]["city"])
    missing = rows["height"].isna()
    assert frame["lower_height"][~missing].isna().all()
    assert (frame["draw0_height"] == frame["height"])[~missing].all()
    assert (frame["draw0_height"] != frame["draw1_height"])[missing].mean() > 0.9
    VERBS["sample"](model, folder / "new.csv", tmp_path / "c.parquet")
    drawn = pd.read_parquet(tmp_path / "c.parquet")
    pd.testing.assert_frame_equal(drawn, model.sample(200, seed=3), check_exact=True)


def test_another_call_is_refused_or_discards(
    model: applying.Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, out = folder / "new.csv", tmp_path / "out.npy"
    (tmp_path / ".out.npy.unfinished").write_text("of an older version")

    def score(count: int, source: Path = new, **options: Any) -> applying.Written:
        return applying.score_file(model, str(source), out, count, **options)

    interrupt(monkeypatch, 2, lambda: score(10), Stopped())
    with pytest.raises(InputError, match=r"had another num_samples: .* overwriting$") as caught:
        score(20, overwrite=False)
    assert caught.value.parameter == "overwrite"
    other = tmp_path / "other.csv"
    other.write_bytes(new.read_bytes())
    with pytest.raises(InputError, match="had another data:"):
        score(10, other, overwrite=False)
    assert score(10, overwrite=False).before == 2 * SIZE
    out.unlink()
    interrupt(monkeypatch, 2, lambda: score(10), Stopped())
    written = score(20)
    assert written.before == 0 and "discarded: results of an" in written.notes[0]
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_leaves_what_is_finished(
    model: applying.Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, out = folder / "new.csv", tmp_path / "out.npy"
    full = OSError(errno.ENOSPC, "No space left on device")

    def score() -> applying.Written:
        return applying.score_file(model, str(new), out, 10)

    with monkeypatch.context() as patch:
        write = checkpoint.write

        def stop(path: Path, content: bytes) -> None:
            if path.name == "1.npz":
                raise full
            write(path, content)

        patch.setattr(checkpoint, "write", stop)
        with pytest.raises(OSError, match=r"no space left .* continues after 60 rows"):
            score()
    with monkeypatch.context() as patch:

        def no_space(*arguments: Any) -> None:
            raise full

        patch.setattr(RowWriter, "_header", no_space)
        with pytest.raises(OSError, match="continues after 200 rows"):
            score()
    assert not out.exists() and not list(hidden(out).glob("whole*"))
    assert score().before == 200
    assert not list(tmp_path.glob(".*"))


def test_rows_that_do_not_fit_leave_nothing(
    model: applying.Trained, folder: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(folder / "new.csv")
    rows.loc[190, "city"] = "Bern"
    rows.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(InputError, match="unknown categories Bern"):
        applying.score_file(model, str(tmp_path / "bad.csv"), tmp_path / "out.csv", 10)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_a_damaged_piece_is_computed_again(
    model: applying.Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, out = folder / "new.csv", tmp_path / "out.npy"
    interrupt(monkeypatch, 3, lambda: applying.score_file(model, str(new), out, 10), Stopped())
    piece = hidden(out) / "1.npz"
    piece.write_bytes(piece.read_bytes()[:-40])
    assert applying.score_file(model, str(new), out, 10).before == SIZE
    applying.score_file(model, str(new), tmp_path / "whole.npy", 10)
    assert out.read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_types_hold_the_values_of_all_pieces(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "a.npz") as writer:
        writer.begin({})
        writer.add({"a": np.array([1, 2]), "b": np.array(["x", None], object)})
        writer.add({"a": np.array([0.5]), "b": np.array(["Straße 東"], object)})
    found = np.load(tmp_path / "a.npz")
    assert found["a"].tolist() == [1, 2, 0.5] and found["b"].tolist() == ["x", "", "Straße 東"]


def test_the_request_is_the_same_in_another_process(folder: Path) -> None:
    code = (
        "import sys, pyro_vae; from pyro_vae.runs.applying.requests import request; "
        "print(request(pyro_vae.load(sys.argv[1]), 'score', sys.argv[2]))"
    )
    line = [sys.executable, "-c", code, str(folder / "run"), str(folder / "new.csv")]
    ran = subprocess.run(line, capture_output=True, text=True, check=True)
    model = pyro_vae.load(folder / "run")
    assert ran.stdout.strip() == str(request(model, "score", str(folder / "new.csv")))
    with torch.no_grad():
        next(model.vae.parameters()).add_(1)
    assert ran.stdout.strip() != str(request(model, "score", str(folder / "new.csv")))


def test_the_programs_are_looked_at_once(
    model: applying.Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, structure = [], looking._structure

    def count(*arguments: Any, **options: Any) -> Any:
        looks.append(1)
        return structure(*arguments, **options)

    monkeypatch.setattr(looking, "_structure", count)
    applying.score_file(model, str(folder / "new.csv"), tmp_path / "once.npy", 10)
    assert len(looks) == 1
    monkeypatch.setattr(looking, "seen", lambda *key: (Seen(), None))
    applying.score_file(model, str(folder / "new.csv"), tmp_path / "each.npy", 10)
    assert len(looks) == 1 + 4
    assert (tmp_path / "once.npy").read_bytes() == (tmp_path / "each.npy").read_bytes()


def test_pieces_are_joined_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more rows than those of two pieces are in one table."""
    largest = 0
    joined = pieces.Pieces._joined

    def measure(self: Any, parts: Any) -> Any:
        nonlocal largest
        found = joined(self, parts)
        largest = max(largest, len(found["a"]))
        return found

    monkeypatch.setattr(pieces.Pieces, "_joined", measure)
    monkeypatch.setattr(row_writer, "TOGETHER", 150)
    for suffix in (".csv", ".parquet", ".npy"):
        with RowWriter(tmp_path / f"a{suffix}") as writer:
            writer.begin({})
            for start in range(0, 100, 10):
                writer.add({"a": np.arange(start, start + 10.0)})
    assert largest == 20
    assert pd.read_csv(tmp_path / "a.csv")["a"].tolist() == list(range(100))


def writer_of(path: Path, overwrite: bool = True) -> OutputFile:
    if path.suffix == ".png":
        return PictureWriter(path, kinds.Levels((2, 2)), overwrite)
    return RowWriter(path, overwrite)


@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_one_call_at_a_time_writes_a_file(suffix: str, tmp_path: Path) -> None:
    out, pictures = tmp_path / f"a{suffix}", np.zeros((3, 2, 2))
    with writer_of(out, overwrite=False) as first:
        first.begin({})
        first.add(pictures)
        with pytest.raises(InputError, match="another process is writing") as caught:
            with writer_of(out) as second:
                second.begin({})
        assert caught.value.parameter == "out"
        late = writer_of(out, overwrite=False)  # the file is not there yet
    content = out.read_bytes()
    with pytest.raises(InputError, match="exists"), late:
        late.begin({})
    with writer_of(out) as third:
        third.begin({})
        third.add(pictures)
    assert out.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"a.csv cannot be written \(Permission denied\)"):
        with RowWriter(tmp_path / "a.csv") as writer:
            writer.begin({})


def test_columns_have_any_names(tmp_path: Path) -> None:
    names = ["file", "names", "arr_0", "allow_pickle", "x", "x.npy"]
    table = pd.DataFrame({name: [j, j + 0.5] for j, name in enumerate(names)})
    for suffix in (".csv", ".npy"):
        with RowWriter(tmp_path / f"a{suffix}") as writer:
            writer.begin({})
            writer.add(table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), table)
    assert np.load(tmp_path / "a.npy")["x.npy"].tolist() == [5, 5.5]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_piece_that_is_lost_is_an_error(suffix: str, tmp_path: Path) -> None:
    """The file would be shorter, and nobody would notice."""
    out = tmp_path / f"a{suffix}"

    def write(lose: bool) -> None:
        with RowWriter(out) as writer:
            writer.begin({})
            for number in range(writer.chunks, 3):
                writer.add({"a": np.full(2, number)})
            if lose:
                (hidden(out) / "1.npz").unlink()

    with pytest.raises(OSError, match=r"1\.npz was removed or damaged: repeat the command"):
        write(lose=True)
    assert not out.exists()
    write(lose=False)
    assert out.exists() and not hidden(out).exists()


def test_results_in_the_folder_of_the_data_are_no_data(folder: Path, tmp_path: Path) -> None:
    model = pyro_vae.load(folder / "run")
    (tmp_path / "0.png").write_bytes(b"")
    before = request(model, "encode", str(tmp_path))
    hidden(tmp_path / "a.npy").mkdir()
    (hidden(tmp_path / "a.npy") / "0.npz").write_bytes(b"")
    assert request(model, "encode", str(tmp_path)) == before
    (tmp_path / "1.png").write_bytes(b"")
    assert request(model, "encode", str(tmp_path)) != before


def test_results_are_not_called_as_columns(folder: Path) -> None:
    """A column lower_height of the data would be overwritten by the ends of intervals."""
    model = pyro_vae.load(folder / "run")
    names = {"height": "height", "city": "lower_height", "visits": "draw0_height"}
    for options, other in (((True, 0), "lower_height"), ((False, 1), "draw0_height")):
        found = model.impute(pd.read_csv(folder / "new.csv")[:3], 20, draws=options[1])
        found.values.columns = list(names.values())
        for drawn in found.draws:
            drawn.columns = list(names.values())
        with pytest.raises(InputError, match=f"have a column {other}, and so have the results"):
            files_of_rows._columns(model, found, options[0])


def test_exports_keep_off_each_other(folder: Path, tmp_path: Path) -> None:
    model = pyro_vae.load(folder / "run")
    with held(hidden(tmp_path / "out"), tmp_path / "out"):
        with pytest.raises(InputError, match="another process is writing"):
            applying.export(model, tmp_path / "out")


def test_interrupted_between_a_piece_and_its_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    writer = RowWriter(tmp_path / "a.npy")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), writer:
        writer.begin({})
        patch.setattr(pieces.Pieces, "_count", interrupted)
        writer.add(np.arange(3))
    with RowWriter(tmp_path / "a.npy") as again:
        again.begin({})
        assert again.rows == 3
        again.add(np.arange(3, 5))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2, 3, 4]
