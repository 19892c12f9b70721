"""A trained model at work on files: rows in their order, columns by name, in chunks."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse

import pyro_vae
from pyro_vae import InputError, data
from pyro_vae.runs import applying, config
from pyro_vae.runs.applying import files_of_rows
from pyro_vae.runs.run import Run

SMALL = ["--num_samples", "20", "--num_examples", "20", "--device", "cpu", "--engine", "eager"]
SMALL += ["--latent_dim", "2", "--epochs", "1", "--batch_size", "40"]
draw = np.random.default_rng(0)


def train(folder: Path, *arguments: object) -> applying.Trained:
    run = Run.build(folder / "run", config.parse([*SMALL, *map(str, arguments)]))
    run.create()
    run.fit()
    return pyro_vae.load(folder / "run")


def table(rows: int = 200) -> pd.DataFrame:
    whole = pd.DataFrame(
        {
            "id": np.arange(rows),
            "height": draw.normal(170, 10, rows),
            "city": draw.choice(["Rome", "Oslo"], rows),
            "code": draw.choice(["007", "012", "123"], rows),
        }
    )
    return whole.mask(draw.random(whole.shape) < np.array([0, 0.1, 0.1, 0]))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> applying.Trained:
    folder = tmp_path_factory.mktemp("table")
    table().to_csv(folder / "a.csv", index=False)
    found = train(folder, "--data", folder / "a.csv", "--drop", "id")
    (folder / "a.csv").unlink()
    return found


def test_tables_are_scored_in_the_order_of_their_rows(
    model: applying.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table(30)[["code", "city", "id", "height"]].assign(more=1)
    rows.to_csv(tmp_path / "new.csv", index=False)
    written = applying.score_file(model.folder, str(tmp_path / "new.csv"), tmp_path / "out.csv")
    assert written.rows == 30
    assert written.notes == ["columns that the model was not trained on are ignored: more"]
    found = pd.read_csv(tmp_path / "out.csv", float_precision="round_trip")
    expected = model.score(rows.drop(columns="more")).to_frame()
    expected.insert(0, "row", np.arange(30))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    monkeypatch.setattr(files_of_rows, "rows_at_once", lambda shape: 7)
    for suffix in (".csv", ".npz", ".npy"):
        out = tmp_path / f"parts{suffix}"
        applying.score_file(model, str(tmp_path / "new.csv"), out, 1000)
        parts = pd.read_csv(out) if suffix == ".csv" else np.load(out)
        assert list(parts["row"]) == list(range(30))
        first = model.score(rows[:7][model_columns], 1000).log_p
        np.testing.assert_allclose(parts["log_p"][:7], first, rtol=1e-14)
        error = np.hypot(parts["mc_se"], expected["mc_se"])
        known = ~np.isnan(error)
        assert (np.abs(parts["log_p"] - expected["log_p"])[known] < 5 * error[known] + 1e-4).all()
    assert not list(tmp_path.glob(".*"))


model_columns = ["height", "city", "code"]


def test_tables_are_encoded_imputed_reconstructed_and_sampled(
    model: applying.Trained, tmp_path: Path
) -> None:
    rows = table(30)
    rows.to_csv(tmp_path / "new.tsv", index=False, sep="\t")
    new = str(tmp_path / "new.tsv")
    applying.encode_file(model, new, tmp_path / "codes.npz")
    codes = np.load(tmp_path / "codes.npz")
    np.testing.assert_array_equal(codes["mean"], model.encode(rows[model_columns]).mean)
    applying.encode_file(model, new, tmp_path / "codes.csv")
    assert list(pd.read_csv(tmp_path / "codes.csv").columns) == [
        "mean_0",
        "mean_1",
        "scale_0",
        "scale_1",
    ]
    applying.impute_file(model, new, tmp_path / "filled.csv", 50)
    filled = pd.read_csv(tmp_path / "filled.csv", dtype={"code": str})
    assert list(filled.columns) == model_columns and not filled.isna().any().any()
    assert list(filled["code"]) == list(rows["code"])
    applying.reconstruct_file(model, new, tmp_path / "again.csv")
    applying.sample_file(model, 12, tmp_path / "drawn.csv")
    for name, count in (("again.csv", 30), ("drawn.csv", 12)):
        assert pd.read_csv(tmp_path / name, dtype={"code": str}).shape == (count, 3)
        assert applying.score_file(model, str(tmp_path / name), tmp_path / "out.npy").notes == []
        assert np.isfinite(np.load(tmp_path / "out.npy")["log_p"]).all()


def test_what_cannot_be_read_or_written_is_refused(model: applying.Trained, tmp_path: Path) -> None:
    table(30).to_csv(tmp_path / "new.csv", index=False)
    new = str(tmp_path / "new.csv")
    table(30).assign(city="Bern").to_csv(tmp_path / "bad.csv", index=False)
    np.save(tmp_path / "a.npy", np.zeros((3, 8)))
    for source, out, said in (
        (new, "out.txt", r"choose a name that ends with \.csv, \.parquet"),
        (new, "new.csv", "is the file that is read"),
        (new, "nowhere/out.csv", "there is no folder"),
        (str(tmp_path / "bad.csv"), "out.csv", "unknown categories Bern"),
        (str(tmp_path / "none.csv"), "out.csv", "there is no file"),
        (str(tmp_path / "a.npy"), "out.csv", r"x has the shape \[3, 8\]"),
        (str(tmp_path), "out.csv", "holds pictures, and the model was trained on others"),
        ("nothing", "out.csv", "there is no data set 'nothing': choose digits"),
    ):
        with pytest.raises(InputError, match=said):
            applying.score_file(model, source, tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "bad.csv", "new.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_text_among_numbers_is_named_with_its_row_in_the_file(
    model: applying.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(files_of_rows, "rows_at_once", lambda shape: 7)
    rows = table(30)
    rows["height"] = [None] * 7 + ["170"] * 2 + ["tall"] + ["170"] * 20
    path = tmp_path / f"new{suffix}"
    rows.to_csv(path, index=False) if suffix == ".csv" else rows.to_parquet(path)
    with pytest.raises(InputError, match=r"'height' holds text, such as 'tall' in row 9 \(from 0"):
        applying.score_file(model, str(path), tmp_path / "out.csv", 2)


def test_arrays_of_any_file_have_the_same_scores(tmp_path: Path) -> None:
    counts = draw.poisson(20, (150, 4))
    np.save(tmp_path / "a.npy", counts)
    model = train(tmp_path, "--data", tmp_path / "a.npy")
    new = draw.poisson(20, (12, 4))
    np.save(tmp_path / "new.npy", new)
    np.savez(tmp_path / "one.npz", x=new)
    np.savez(tmp_path / "parts.npz", x_test=new[8:], x_train=new[:8], y_train=np.zeros(8))
    sparse.save_npz(tmp_path / "sparse.npz", sparse.csr_matrix(new))
    torch.save(torch.from_numpy(new), tmp_path / "one.pt")
    torch.save({"train": torch.from_numpy(new), "labels": torch.zeros(12)}, tmp_path / "more.pt")
    torch.save([torch.from_numpy(new), torch.zeros(12)], tmp_path / "pair.pt")
    pd.DataFrame(new).to_csv(tmp_path / "new.csv", index=False, header=False)
    expected = model.score(new).log_p
    for name in (
        "new.npy",
        "one.npz",
        "parts.npz",
        "sparse.npz",
        "one.pt",
        "more.pt",
        "pair.pt",
        "new.csv",
    ):
        applying.score_file(model, str(tmp_path / name), tmp_path / "out.npz")
        np.testing.assert_array_equal(
            np.load(tmp_path / "out.npz")["log_p"], expected, err_msg=name
        )
    applying.sample_file(model, 9, tmp_path / "drawn.npy")
    assert np.load(tmp_path / "drawn.npy").shape == (9, 4)


def test_cells_are_matched_by_their_names(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    counts, names = draw.poisson(5, (120, 6)).astype(np.float32), [f"g{i}" for i in range(6)]
    anndata.AnnData(counts, var=pd.DataFrame(index=names)).write_h5ad(tmp_path / "a.h5ad")
    model = train(tmp_path, "--data", tmp_path / "a.h5ad")
    order = [3, 1, 0, 5, 4, 2]
    mixed = pd.DataFrame(index=[names[i] for i in order])
    anndata.AnnData(sparse.csr_matrix(counts[:9, order]), var=mixed).write_h5ad(tmp_path / "b.h5ad")
    applying.score_file(model, str(tmp_path / "b.h5ad"), tmp_path / "out.npz")
    expected = model.score(counts[:9]).log_p
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["log_p"], expected)


def write_pictures(folder: Path, pictures: Any, classes: list[str]) -> None:
    for place, picture in enumerate(pictures):
        path = folder / classes[place % len(classes)] / f"{place:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


def test_pictures_are_scored_given_their_classes(tmp_path: Path) -> None:
    pictures = draw.integers(0, 256, (120, 6, 5), dtype=np.uint8)
    write_pictures(tmp_path / "a", pictures, ["cat", "dog"])
    options = ["--condition", "labels", "--likelihood", "DiscretizedLogistic"]
    model = train(tmp_path, "--data", tmp_path / "a", *options)
    write_pictures(tmp_path / "b", pictures[:10], ["dog", "cat"])
    applying.score_file(model, str(tmp_path / "b"), tmp_path / "out.npz")
    x = np.concatenate([pictures[1:10:2], pictures[:10:2]])  # cats come first
    y = ["cat"] * 5 + ["dog"] * 5
    expected = model.score(x, y=y).log_p
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["log_p"], expected)
    write_pictures(tmp_path / "c", pictures[:4], [""])
    with pytest.raises(InputError, match="has no labels, and the model is given labels"):
        applying.score_file(model, str(tmp_path / "c"), tmp_path / "out.npz")
    applying.sample_file(model, 4, tmp_path / "drawn.npy", "dog")
    assert np.load(tmp_path / "drawn.npy").dtype == np.uint8
    with pytest.raises(InputError, match="pictures do not fit into"):
        applying.sample_file(model, 4, tmp_path / "drawn.csv", "dog")
    (tmp_path / "d").mkdir()
    colours = draw.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    write_pictures(tmp_path / "d", colours, ["cat"])
    with pytest.raises(InputError, match="has colours, and the model was trained on greys"):
        applying.score_file(model, str(tmp_path / "d"), tmp_path / "out.npz")


def test_data_sets_with_names_are_scored(tmp_path: Path) -> None:
    model = train(tmp_path, "--data", "digits")
    applying.score_file(model, "digits", tmp_path / "out.npz", 2)
    assert len(np.load(tmp_path / "out.npz")["log_p"]) == sum(
        len(part) for part in (lambda d: (d.train, d.validation, d.test))(data.load("digits"))
    )
