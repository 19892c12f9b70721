"""Missing values of all kinds and sources."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_vae import data, kinds
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError

N = 120
draw = np.random.default_rng(0)
IMAGES = draw.integers(0, 256, (N, 5, 4)).astype(np.uint8)


def hole(values: np.ndarray, share: float = 0.2) -> np.ndarray:
    numbers = values.astype(np.float64)
    numbers[draw.random(values.shape) < share] = np.nan
    return numbers


def everything(loaded: Dataset) -> torch.Tensor:
    assert isinstance(loaded.train, torch.Tensor)
    return torch.cat([loaded.train, loaded.validation, loaded.test]).double()


def ordered(rows: Any) -> np.ndarray:
    table = np.asarray(rows, np.float64).reshape(len(rows), -1)
    return table[np.lexsort(np.nan_to_num(table, nan=-1e9).T)]


COLUMNS: dict[str, Any] = {
    "real": draw.normal(size=N),
    "positive": draw.lognormal(5, 1, N),
    "counts": draw.poisson(400, N),
    "few counts": draw.poisson(1, N),
    "grades": draw.choice([1, 2, 3], N),
    "halves": draw.choice([0.5, 1.5], N),
    "coin": draw.integers(0, 2, N),
    "word": draw.choice(["a", "b", "c"], N),
    "flag": draw.choice([True, False], N),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_has_the_same_kind_with_and_without_holes(name: str) -> None:
    import pandas as pd

    values = COLUMNS[name]
    other = draw.normal(size=N)
    whole = data.from_object(pd.DataFrame({"x": values, "y": other}))
    missing = draw.random(N) < 0.2
    gaps = pd.DataFrame({"x": pd.Series(values).astype(object).mask(missing), "y": other})
    found = data.from_object(gaps)
    assert found.columns == whole.columns
    assert isinstance(found.kind, kinds.Incomplete) and not isinstance(whole.kind, kinds.Incomplete)
    assert type(found.kind.whole) is type(whole.kind)
    rows, expected = everything(found).numpy(), everything(whole).numpy()
    order, known = np.argsort(rows[:, 1]), np.argsort(expected[:, 1])
    x, y = rows[order, 0], expected[known, 0]
    assert np.isnan(x).sum() == missing.sum()
    assert (x[~np.isnan(x)] == y[~np.isnan(x)]).all()
    found.kind.check(found.train)
    (note,) = [note for note in found.notes if note.startswith("missing")]
    assert f"x ({missing.sum()})" in note and "in 1 of 2 columns" in note
    assert note.startswith(f"missing: {50 * missing.mean():.2g} % of all values")


@pytest.mark.parametrize(
    ("whole", "kind"),
    [
        (draw.integers(0, 2, (N, 6)), "binary"),
        (draw.poisson(9, (N, 6)), "counts"),
        (IMAGES.reshape(N, -1), "levels"),
        (IMAGES, "levels"),
        (IMAGES > 99, "binary"),
        (draw.random((N, 3, 4)), "unit_interval"),
        (draw.normal(size=(N, 3, 4)), "real"),
        (draw.lognormal(3, 1, (N, 3, 4)), "positive"),
        (draw.integers(0, 17, (N, 8, 8)), "levels"),
    ],
)
def test_arrays_with_holes(whole: np.ndarray, kind: str) -> None:
    gaps = hole(whole)
    loaded = data.from_object(gaps)
    assert {column.kind for column in loaded.columns} == {kind}
    assert data.from_object(whole).columns == loaded.columns
    assert ordered(everything(loaded)) == pytest.approx(ordered(gaps), nan_ok=True)
    assert isinstance(loaded.kind, kinds.Incomplete)
    loaded.kind.check(loaded.train)


def test_a_mask_beside_the_data(tmp_path: Path) -> None:
    missing = draw.random(IMAGES.shape) < 0.3
    expected = data.from_object(np.where(missing, np.nan, IMAGES.astype(np.float32)))
    for arrays in (
        {"images": IMAGES, "missing": missing},
        {"x": IMAGES, "observed": ~missing},
        {"x_train": IMAGES, "observed_train": (~missing).astype(np.int64)},
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        loaded = data.load(str(tmp_path / "a.npz"))
        assert loaded.fingerprint == expected.fingerprint
    masked = data.from_object(np.ma.masked_array(IMAGES, missing))
    assert masked.fingerprint == expected.fingerprint
    named = data.from_object({"x": np.ma.masked_array(IMAGES, missing)})
    assert named.fingerprint == expected.fingerprint
    for name in ("mask", "mask_train", "x_mask", "is_missing", "missing_test", "masks"):
        np.savez(tmp_path / "a.npz", x=IMAGES, **{name: missing})
        with pytest.raises(InputError, match=f"holds {name}, which may mark"):
            data.load(str(tmp_path / "a.npz"))
    parts = {"x_train": IMAGES[:80], "x_test": IMAGES[80:], "missing_train": missing[:80]}
    np.savez(tmp_path / "a.npz", **parts)
    assert data.load(str(tmp_path / "a.npz")).train.isnan().any()  # type: ignore[union-attr]
    masked_labels = np.ma.masked_array(np.arange(N) % 3, np.arange(N) == 5)
    with pytest.raises(InputError, match="1 labels are masked"):
        data.from_object(IMAGES, masked_labels)
    no_mask = (missing[:, 0], missing.astype("V1"), missing.astype("U1"), missing.astype("M8[s]"))
    for odd in no_mask:
        np.savez(tmp_path / "a.npz", x=IMAGES, missing=odd)
        with pytest.raises(InputError, match="missing has to hold 0 and 1 in the shape"):
            data.load(str(tmp_path / "a.npz"))


def test_all_missing_values_are_alike_to_a_fingerprint() -> None:
    rows = hole(draw.normal(size=(N, 3)))
    odd = rows.copy()
    odd.view(np.uint64)[np.isnan(rows)] = 0xFFF8000000000123
    assert np.isnan(odd).sum() == np.isnan(rows).sum()
    assert data.fingerprint(odd) == data.fingerprint(rows)
    assert data.fingerprint(np.nan_to_num(rows)) != data.fingerprint(rows)


def test_empty_columns_and_rows() -> None:
    rows = hole(draw.normal(size=(N, 3)))
    rows[:, 1] = np.nan
    rows[5] = np.nan
    loaded = data.from_object(rows)
    assert loaded.names == ("0", "2")
    assert "left out, because they are empty: 1" in loaded.notes
    assert everything(loaded).isnan().all(1).any()  # a row of which nothing is observed stays


def test_row_numbers_and_identifiers_with_holes_are_refused() -> None:
    import pandas as pd

    numbers = np.arange(N) + 1.0
    numbers[-5:] = np.nan
    frame = pd.DataFrame({"id": numbers, "y": draw.normal(size=N)})
    with pytest.raises(InputError, match="column id of the table counts the rows from 1 to 115"):
        data.from_object(frame)
    frame["id"] = [None if i % 3 == 0 else f"patient {i}" for i in range(N)]
    with pytest.raises(InputError, match="80 different strings in 80 rows"):
        data.from_object(frame)


def test_empty_columns_of_a_matrix_of_one_kind_are_left_out() -> None:
    counts = draw.poisson(9, (N, 6)).astype(float)
    counts[:, 2] = np.nan
    loaded = data.from_object(counts)
    assert loaded.names == ("0", "1", "3", "4", "5")
    assert "left out, because they are empty: 2" in loaded.notes
    assert not isinstance(loaded.kind, kinds.Incomplete)
