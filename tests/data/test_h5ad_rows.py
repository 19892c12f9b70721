"""Files of anndata that are larger than memory: the same data as if they were read whole."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from pyro_vae import InputError, data
from pyro_vae.data.sources import anndata_files
from pyro_vae.data.sources.h5ad_rows import H5adRows
from pyro_vae.runs import config
from pyro_vae.runs.run import Run

anndata = pytest.importorskip("anndata")
draw = np.random.default_rng(5)
counts = (draw.negative_binomial(2, 0.3, (200, 30)) * (draw.random((200, 30)) < 0.5)).astype("f4")
logs = np.log1p(counts)
constant = np.where(np.arange(30) == 7, np.float32(1.5), logs)
cells = draw.choice(["T", "B"], 200)
MATRICES = {
    "counts": counts,
    "binary": np.minimum(counts, 1),
    "whole numbers": counts.astype(np.int64),
    "levels": (8 * counts).clip(0, 255).astype(np.uint8),
    "double precision": counts.astype("f8"),
    "real": logs,
    "real, centred": logs - logs.mean(0),
    "real, with a constant column": constant,
}


def write(path: Path, x: Any, layers: dict[str, Any] | None = None, **options: Any) -> str:
    obs = pd.DataFrame({"cell_type": cells}, index=[f"cell{i}" for i in range(200)])
    var = pd.DataFrame(index=[f"gene{j}" for j in range(30)])
    anndata.AnnData(x, obs=obs, var=var, layers=layers or {}).write_h5ad(path, **options)
    return str(path)


def load_both(
    monkeypatch: pytest.MonkeyPatch, name: str, **options: Any
) -> tuple[data.Dataset, data.Dataset]:
    """Load a file into memory, and as rows that are read when they are needed."""
    whole = data.load(name, **options)
    monkeypatch.setattr(anndata_files, "LARGE", 1000)
    return whole, data.load(name, **options)


def statistics(kind: Any) -> list[torch.Tensor]:
    """Return the tensors that a kind has."""
    kinds = [part for part, _ in getattr(kind, "parts", [(kind, [])])]
    values = [value for each in kinds for value in vars(each).values()]
    return [torch.ones(1), *(value for value in values if isinstance(value, torch.Tensor))]


def assert_same(whole: data.Dataset, lazy: data.Dataset, is_lazy: bool = True) -> None:
    reader = getattr(lazy.train, "reader", None)
    inner = getattr(reader, "_reader", reader)
    assert isinstance(getattr(inner, "_reader", inner), H5adRows) == is_lazy
    assert whole.fingerprint == lazy.fingerprint and whole.columns == lazy.columns
    assert whole.names == lazy.names and whole.label_names == lazy.label_names
    for part in ("train", "validation", "test"):
        mine, its = getattr(whole, part)[:], getattr(lazy, part)[:]
        assert mine.dtype == its.dtype and torch.equal(mine, its)
        labels = getattr(whole, f"{part}_labels"), getattr(lazy, f"{part}_labels")
        assert labels[0] is labels[1] or torch.equal(*labels)
    found = [statistics(loaded.kind.fitted(loaded.train)) for loaded in (whole, lazy)]
    assert len(found[0]) and all(map(torch.equal, *found))


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("layout", ["dense", "csr_matrix"])
def test_the_data_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix: str, layout: str
) -> None:
    """Each matrix is compressed in one of its layouts, and each layout of half of the matrices."""
    is_odd = [*MATRICES].index(matrix) % 2 == 1
    compression = "gzip" if is_odd == (layout == "dense") else None
    x = MATRICES[matrix] if layout == "dense" else getattr(sparse, layout)(MATRICES[matrix])
    name = write(tmp_path / "a.h5ad", x, compression=compression)
    options: dict[str, Any] = {"labels": "cell_type", "drop": ["gene3", "gene9"]}
    whole, lazy = load_both(monkeypatch, name, **(options if compression else {}))
    assert_same(whole, lazy)
    assert whole.notes == lazy.notes


def test_a_layer_of_counts_is_read_by_rows_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for x in (logs, None):
        name = write(tmp_path / f"{x is None}.h5ad", x, {"counts": sparse.csr_matrix(counts)})
        whole, lazy = load_both(monkeypatch, name)
        assert_same(whole, lazy)
        assert lazy.notes == (
            () if x is None else ("False.h5ad: the layer counts is used, and X is not",)
        )
        monkeypatch.undo()


def test_counts_in_raw_are_pointed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note is the same, whether the file is read whole or by rows, and only if raw is there."""
    for has_raw in (False, True):
        loaded = anndata.AnnData(logs)
        if has_raw:
            loaded.raw = anndata.AnnData(counts)
        path = tmp_path / f"{has_raw}.h5ad"
        loaded.write_h5ad(path)
        whole, lazy = load_both(monkeypatch, str(path))
        assert isinstance(lazy.train, data.Rows) and whole.notes[0] == lazy.notes[0]
        assert ("put raw.X" in lazy.notes[0]) == has_raw
        monkeypatch.undo()


def test_what_is_read_whole_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path / "a.h5ad", sparse.csc_matrix(counts))
    whole, loaded = load_both(monkeypatch, name)
    assert_same(whole, loaded, is_lazy=False)
    assert "not stored by rows (CSR), so it is read whole: store it by rows" in loaded.notes[0]
    monkeypatch.undo()
    whole, loaded = load_both(
        monkeypatch,
        write(tmp_path / "b.h5ad", counts),
        columns={"gene3": "categories", "gene4": "real"},
    )
    assert_same(whole, loaded, is_lazy=False)
    assert loaded.notes[0] == "b.h5ad is read whole, since its columns may be of several kinds"


def test_rows_are_read_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anndata_files, "LARGE", 1000)
    for x in (counts, sparse.csr_matrix(counts)):
        source = anndata_files.read_h5ad(
            write(tmp_path / f"{type(x).__name__}.h5ad", x), tmp_path, data.ReadOptions()
        )
        rows = source.train.examples
        for index in ([], [7], [5, 4, 5, 199, 0, 1, 2, 2], draw.permutation(200)):
            found = rows[torch.as_tensor(np.array(index, np.int64))]
            assert np.array_equal(found.numpy(), counts[np.array(index, np.int64)])


def test_a_run_has_the_same_numbers_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write(tmp_path / "a.h5ad", sparse.csr_matrix(counts))
    given = ["--data", name, "--device", "cpu", "--engine", "eager", "--epochs", "2"]
    options = config.parse([*given, "--batch_size", "30"])
    runs = [Run.build(tmp_path / "a", options)]
    monkeypatch.setattr(anndata_files, "LARGE", 1000)
    runs.append(Run.build(tmp_path / "b", options))
    for run in runs:
        run.create()
    whole, lazy = (run.fit() for run in runs)
    assert whole == lazy
    states = [run.vae.state_dict() for run in runs]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_file_that_is_cut_off_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anndata_files, "LARGE", 1000)
    name = write(tmp_path / "a.h5ad", counts)
    rows = data.load(name).train
    os.truncate(name, 5000)
    with pytest.raises(InputError, match=r"a\.h5ad has changed since the data were loaded") as at:
        rows[:]
    assert at.value.parameter == "data" and "\n" not in str(at.value)


MEASURE = """
import sys
import torch
from pyro_vae import data
def peak():
    return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
data.load(sys.argv[1])  # imports, and threads with their stacks
before = peak()
loaded = data.load(sys.argv[2], validation_fraction=0.01, test_fraction=0.01)
assert isinstance(loaded.train, data.Rows)
loaded.kind.check(loaded.train)
order = torch.randperm(len(loaded.train))[:4000].split(100)
count = sum(len(part) for part in data.rows.batches(loaded.train, order))
print(peak() - before, count)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="not Linux")
def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    """A sparse matrix of 288 MB, more than `LARGE`; one that is read whole takes 2.7 times that."""
    num_rows, width, each = 36_000, 10_000, 1000
    ends = each * np.arange(num_rows + 1)
    places = np.tile(np.arange(0, width, 10, dtype=np.int32), num_rows)
    values = draw.integers(1, 9, num_rows * each, np.uint8).astype(np.float32)
    matrix = sparse.csr_matrix((values, places, ends), shape=(num_rows, width))
    anndata.AnnData(matrix).write_h5ad(tmp_path / "large.h5ad")
    del places, values, matrix
    small = write(tmp_path / "small.h5ad", counts)
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, small, str(tmp_path / "large.h5ad")],
        capture_output=True,
        text=True,
        check=True,
    )
    used, count = map(int, ran.stdout.split())
    assert count == 4000 and used < 300e6
