"""Matrices of cells and genes, and data in memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from pyro_vae import InputError, data
from pyro_vae.data.sources import anndata_files
from pyro_vae.data.sources.anndata_files import read_h5ad

pytest.importorskip("h5py")
anndata = pytest.importorskip("anndata")
h5ad_trial = pytest.importorskip("pyro_vae.data.sources.h5ad_trial")
draw = np.random.default_rng(5)
counts = (draw.negative_binomial(2, 0.3, (100, 30)) * (draw.random((100, 30)) < 0.5)).astype("f4")
cells = draw.choice(["T", "B"], 100)


def make(x: Any, layers: dict[str, Any] | None = None) -> Any:
    import pandas as pd

    index = [f"cell{i}" for i in range(len(cells))]
    return anndata.AnnData(
        x,
        obs=pd.DataFrame({"cell_type": cells, "batch": draw.integers(0, 2, 100)}, index=index),
        var=pd.DataFrame(index=[f"gene{j}" for j in range(30)]),
        layers=layers or {},
    )


def load(folder: Path, loaded: Any, **options: Any) -> data.Dataset:
    loaded.write_h5ad(folder / "a.h5ad")
    return data.load(str(folder / "a.h5ad"), **options)


@pytest.mark.parametrize("layout", ["dense", "csr_matrix", "csc_matrix", "csr_array"])
def test_the_same_matrix_in_all_layouts(tmp_path: Path, layout: str) -> None:
    matrix = counts if layout == "dense" else getattr(sparse, layout)(counts)
    for loaded in (load(tmp_path, make(matrix)), data.from_object(make(matrix))):
        assert loaded.columns == (data.ColumnSpec("", "counts"),)
        assert loaded.names == tuple(f"gene{j}" for j in range(30)) and not loaded.notes
        assert isinstance(loaded.train, data.Rows) == (layout != "dense")
        parts = [part[:].numpy() for part in (loaded.train, loaded.validation, loaded.test)]
        assert [len(part) for part in parts] == [81, 9, 10]
        everything = np.concatenate(parts).astype("f4")
        assert sorted(row.tobytes() for row in everything) == sorted(r.tobytes() for r in counts)


def test_sparse_rows_are_split_as_dense_ones(tmp_path: Path) -> None:
    one, two = (data.from_object(make(x)) for x in (sparse.csr_matrix(counts), counts))
    again = data.from_object(make(sparse.csr_matrix(counts)))
    assert one.fingerprint == again.fingerprint == two.fingerprint
    for part in ("train", "validation", "test"):
        mine, other = getattr(one, part)[:], getattr(two, part)
        assert mine.dtype == other.dtype == torch.int32 and torch.equal(mine, other)
        assert torch.equal(getattr(again, part)[:], mine)


def test_labels_and_dropped_genes(tmp_path: Path) -> None:
    matrix = sparse.csr_matrix(counts)
    loaded = load(tmp_path, make(matrix), labels="cell_type", drop=["gene3", "gene4"])
    assert loaded.label_names == ("B", "T") and loaded.train.shape == (81, 28)
    assert loaded.names[:5] == ("gene0", "gene1", "gene2", "gene5", "gene6")
    kept = np.delete(counts, [3, 4], axis=1)
    cell_of = {row.tobytes(): cell for row, cell in zip(kept, cells, strict=True)}
    assert loaded.test_labels is not None
    for row, label in zip(loaded.test.float(), loaded.test_labels.tolist(), strict=True):
        assert cell_of[row.numpy().tobytes()] == loaded.label_names[label]
    with pytest.raises(InputError, match="no column type in obs: its columns are cell_type, batch"):
        load(tmp_path, make(matrix), labels="type")
    with pytest.raises(InputError, match="has no column gene77: its columns are gene0, gene1"):
        load(tmp_path, make(matrix), drop=["gene77"])


def test_the_layer_of_counts_is_used(tmp_path: Path) -> None:
    logs = np.log1p(counts)
    loaded = load(tmp_path, make(logs, {"counts": sparse.csr_matrix(counts)}))
    assert loaded.columns == (data.ColumnSpec("", "counts"),)
    assert loaded.notes == ("a.h5ad: the layer counts is used, and X is not",)
    alone = data.from_object(make(sparse.csr_matrix(counts)))
    assert loaded.fingerprint == alone.fingerprint and torch.equal(loaded.test, alone.test)


@pytest.mark.parametrize("make_sparse", [False, True])
def test_a_matrix_without_counts_is_real_and_said_to_be(tmp_path: Path, make_sparse: bool) -> None:
    logs = np.log1p(np.c_[counts[:, :29], counts[:, 29] > 0])  # one gene has two values
    loaded = load(tmp_path, make(sparse.csr_matrix(logs) if make_sparse else logs))
    assert {column.kind for column in loaded.columns} == {"real"} and len(loaded.columns) == 30
    assert "X holds no counts" in loaded.notes[0] and "layer counts" in loaded.notes[0]
    assert "one value is frequent in gene0" in loaded.notes[1]
    cells = make(logs)
    cells.raw = make(counts)
    for with_raw in (load(tmp_path, cells), data.from_object(cells)):
        assert "put raw.X, if it holds counts of these variables, into" in with_raw.notes[0]
    scaled = load(tmp_path, make(logs - logs.mean(0)))
    assert {column.kind for column in scaled.columns} == {"real"}


def test_genes_whose_names_repeat_are_numbered() -> None:
    loaded = make(counts)
    loaded.var_names = ["a", "b", "a", *[f"gene{j}" for j in range(3, 30)]]
    found = data.from_object(loaded)
    assert found.names[:4] == ("a", "b", "a-1", "gene3") and "repeat" in found.notes[0]


def test_matrices_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holes = sparse.csr_matrix(np.where(counts > 9, np.nan, counts))
    with pytest.raises(InputError, match=r"has missing values .NaN., and is sparse"):
        load(tmp_path, make(holes))
    with pytest.raises(InputError, match="has no matrix X"):
        data.from_object(make(None))
    (tmp_path / "b.h5ad").write_text("no")
    with pytest.raises(InputError, match=r"b\.h5ad is not a file of anndata"):
        data.load(str(tmp_path / "b.h5ad"))
    with pytest.raises(InputError, match="there is no file"):
        data.load(str(tmp_path / "none.h5ad"))
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(InputError, match="cannot be read without anndata: install it"):
        read_h5ad(str(tmp_path / "b.h5ad"), tmp_path, data.ReadOptions())


def test_objects_in_memory() -> None:
    images = draw.integers(0, 256, (50, 6, 5)).astype(np.uint8)
    labels = np.arange(50) % 3
    expected = data.from_object(images, labels)
    assert expected.train_labels is not None and len(expected.test) == 5
    for same in (
        data.from_object(torch.from_numpy(images), torch.from_numpy(labels)),
        data.from_object({"images": images, "labels": labels}),
        data.from_object({"x": torch.from_numpy(images), "y": torch.from_numpy(labels)}),
        data.from_object(images[::-1], labels[::-1]),
    ):
        assert same.fingerprint == expected.fingerprint and same.train_labels is not None
        own = zip(same.test.tolist(), same.test_labels, strict=True)  # type: ignore[arg-type]
        other = zip(expected.test.tolist(), expected.test_labels, strict=True)  # type: ignore[arg-type]
        assert sorted(map(str, own)) == sorted(map(str, other))
    fixed = images.copy()
    fixed.flags.writeable = False
    assert data.from_object(fixed).fingerprint == expected.fingerprint


@pytest.mark.parametrize(
    ("x", "labels", "said", "parameter"),
    [
        ([1, 2], None, "a list cannot be used: give an array", "x"),
        (np.zeros(5), None, r"the array has shape \[5\]", "x"),
        (np.array([[None]]), None, "the array holds object", "x"),
        (np.zeros((50, 2)) * np.nan, None, "the array has no values", "x"),
        (torch.rand(50, 2), torch.zeros(7), "7 labels for 50 examples", "labels"),
        (np.random.default_rng(0).random((50, 2)), "y", "no column y: its columns are", "labels"),
        ({"x": np.zeros((5, 2))}, np.zeros(5), "put the labels into the dict", "labels"),
        (sparse.csr_matrix(np.ones((5, 2)) * np.inf), None, "infinite values in 2", "x"),
    ],
)
def test_objects_that_cannot_be_used(x: Any, labels: Any, said: str, parameter: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        data.from_object(x, labels)
    assert caught.value.parameter == parameter and "\n" not in str(caught.value)


REAL_TABLES = {
    "breast_cancer": {"real", "positive"},
    "wine": {"real", "positive", "counts"},
    "iris": {"real"},
    "diabetes": {"real", "ordered"},
    "linnerud": {"counts"},
}


@pytest.mark.parametrize("name", REAL_TABLES)
def test_tables_that_packages_ship_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    label = None if name == "linnerud" else "target"
    loaded = data.from_object(bunch.frame, label)
    assert {column.kind for column in loaded.columns} == REAL_TABLES[name]
    everything = torch.cat([loaded.train, loaded.validation, loaded.test])
    assert len(everything) == len(bunch.frame) and everything.isfinite().all()
    is_class = name in ("breast_cancer", "wine", "iris")
    assert (loaded.train_labels is not None) == is_class
    bunch.frame.to_csv(tmp_path / "a.csv")
    from_file = data.load(str(tmp_path / "a.csv"), labels=label)
    assert from_file.columns == loaded.columns and from_file.fingerprint == loaded.fingerprint


def test_image_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image_size is for a folder of pictures"):
        load(tmp_path, make(counts), image_size=8)


@pytest.mark.parametrize(("what", "says"), [("hangs", "did not finish"), ("dies", "crashes on it")])
def test_files_on_which_hdf5_hangs_or_dies(
    tmp_path: Path, what: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = tmp_path / "a.h5ad"
    make(counts).write_h5ad(name)
    python = tmp_path / "python"  # stands for a process that reads a damaged file
    python.write_text("#!/bin/sh\n" + ("exec sleep 60" if what == "hangs" else "kill -SEGV $$"))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    if what == "hangs":
        monkeypatch.setattr(anndata_files, "TRIAL", 0.5)
    with pytest.raises(InputError, match=f"^a.h5ad is damaged: HDF5's library {says}"):
        data.load(str(name))


def test_the_trial_reads_all_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import h5py

    name = tmp_path / "a.h5ad"
    make(sparse.csr_matrix(counts)).write_h5ad(name)
    lengths: dict[str, int] = {}

    def note(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            lengths[item.name] = item.shape[0] if item.shape else 1

    with h5py.File(name, "a") as file:
        file.visititems(note)
        file.create_dataset("zeros", (10**9, 300), "f4", chunks=(1000, 300), compression="gzip")
        file.create_dataset("wide", (1, 10**10), "f4", chunks=(1, 1000), compression="gzip")
    rows = dict.fromkeys([*lengths, "/zeros", "/wide"], 0)
    read = h5py.Dataset.__getitem__

    def counted(array: Any, key: Any) -> Any:
        values = read(array, key)
        rows[array.name] += len(values) if np.ndim(values) else 1
        return values

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    h5ad_trial.read(name, 60)
    assert rows.pop("/zeros") == rows.pop("/wide") == 1  # nothing of them was written
    assert rows == lengths and "/X/indptr" in rows


def test_a_trial_ends_alone(tmp_path: Path) -> None:
    """One that hangs must not go on for ever once its parent is gone."""
    pipe = tmp_path / "a.h5ad"
    os.mkfifo(pipe)  # opening it waits for a writer
    program = str(Path(h5ad_trial.__file__))
    ended = subprocess.run([sys.executable, "-P", program, str(pipe), "0.5"], timeout=60)
    assert ended.returncode == -signal.SIGALRM
