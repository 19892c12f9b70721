"""The same rows are the same data, in whatever file and form they are stored."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from pyro_vae import data
from pyro_vae.runs import config
from pyro_vae.runs.evaluation import evaluate
from pyro_vae.runs.run import Run

anndata = pytest.importorskip("anndata")
draw = np.random.default_rng(8)
counts = draw.poisson(draw.gamma(0.5, 2, (240, 24)))
names = [f"gene{j}" for j in range(24)]
FORMS = ("npz", "csv", "dense h5ad", "csr h5ad", "csc h5ad")


def save(folder: Path, form: str, matrix: np.ndarray) -> str:
    """Write a matrix and its columns' names; return the file's path."""
    layout, _, suffix = form.rpartition(" ")
    path = folder / f"a{layout}.{suffix}"
    if suffix == "npz":
        np.savez(path, x=matrix, feature_names=names)
    elif suffix == "csv":
        pd.DataFrame(matrix, columns=names).to_csv(path, index=False)
    else:
        numbers = matrix.astype(np.float32)
        made = numbers if layout == "dense" else getattr(sparse, f"{layout}_matrix")(numbers)
        cells = pd.DataFrame(index=[f"cell{i}" for i in range(len(matrix))])
        anndata.AnnData(made, obs=cells, var=pd.DataFrame(index=names)).write_h5ad(path)
    return str(path)


def parts_of(loaded: data.Dataset) -> list[torch.Tensor]:
    return [part[:] for part in (loaded.train, loaded.validation, loaded.test)]


@pytest.mark.parametrize("matrix", [counts, np.minimum(counts, 1)], ids=["counts", "binary"])
def test_a_matrix_is_the_same_data_in_every_file(tmp_path: Path, matrix: np.ndarray) -> None:
    first, *others = (data.load(save(tmp_path, form, matrix)) for form in FORMS)
    for other in others:
        assert other.fingerprint == first.fingerprint and other.columns == first.columns
        assert other.kind.__dict__.keys() == first.kind.__dict__.keys()
        for mine, its in zip(parts_of(first), parts_of(other), strict=True):
            assert mine.dtype == its.dtype and torch.equal(mine, its)
    np.save(tmp_path / "a.npy", matrix)  # it has no names: another fingerprint
    unnamed = data.load(str(tmp_path / "a.npy"))
    for mine, its in zip(parts_of(first), parts_of(unnamed), strict=True):
        assert mine.dtype == its.dtype and torch.equal(mine, its)


def test_what_is_set_aside_depends_on_its_bytes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """120 rows of 24 columns are 11,520 bytes of single precision."""
    monkeypatch.setattr(data.splitting, "HELD_OUT_BYTES", 120 * 24 * 4)
    for x in (counts, counts.astype("f8"), sparse.csr_matrix(counts), counts > 0):
        loaded = data.from_object(x, test_fraction=0.6, validation_fraction=0.9)
        assert [len(part) for part in parts_of(loaded)] == [12, 108, 120]


def short_run(folder: Path, name: str, *options: str) -> tuple[list[dict[str, Any]], Any]:
    """Train for two epochs, and return the metrics and the bounds."""
    given = ["--data", name, "--device", "cpu", "--engine", "eager", "--epochs", "2"]
    run = Run.build(
        folder, config.parse([*given, "--batch_size", "50", "--num_samples", "50", *options])
    )
    run.create()
    history = run.fit()
    return history, {key: result.to_dict() for key, result in evaluate(run).results.items()}


def test_runs_have_the_same_numbers_bit_for_bit(tmp_path: Path) -> None:
    runs = [
        short_run(tmp_path / f"run{i}", save(tmp_path, form, counts), "--prior", "Exemplar")
        for i, form in enumerate(FORMS[:4])
    ]
    assert runs[0][0][1]["train_loss"] < runs[0][0][0]["train_loss"]
    assert all(run == runs[0] for run in runs)
