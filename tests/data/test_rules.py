"""Kinds are inferred by the rules that `rules.py` lists."""

import numpy as np
import pytest

from pyro_vae import data

draw = np.random.default_rng(1)
N = 400


def kind_of(values: np.ndarray) -> data.ColumnSpec:
    """The kind of a column, beside one that keeps the array a table."""
    import pandas as pd

    frame = pd.DataFrame({"x": values, "other": draw.normal(size=len(values))})
    (column,) = (column for column in data.from_object(frame).columns if column.name == "x")
    return column


COLUMNS = {
    "binary": [
        draw.random(N) < 0.3,
        draw.integers(0, 2, N),
        draw.integers(0, 2, N).astype(float),
    ],
    "categories": [draw.choice(["yes", "no"], N), draw.choice(list("abcdef"), N)],
    "counts": [
        draw.poisson(2, N),
        draw.poisson(2, N).astype(float),
        1 + draw.poisson(2, N),
        draw.negative_binomial(2, 0.05, N),
        draw.integers(18, 90, N),  # ages
        draw.integers(0, 2**24 + 1, N),
        np.r_[0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 5, 1, 0, 0, 2, 1, 0, 0, 1, 4, 0, 0, 0, 0],
    ],
    "ordered": [
        draw.integers(1, 6, N),  # grades
        draw.integers(1, 6, N).astype(float),
        draw.integers(-2, 3, N),
        draw.integers(2018, 2023, N),
        draw.integers(1, 3, N),  # two values that are not 0 and 1
        draw.integers(0, 3, N),  # three classes are too few for counts
        draw.choice([0.5, 1.5], N),  # atoms, on which no density is finite
        draw.integers(0, 20, N),  # no tail
    ],
    "positive": [draw.lognormal(0, 1, N), draw.exponential(size=N)],
    "real": [
        draw.normal(size=N),
        100 + draw.normal(size=N),  # positive, but not skewed
        -draw.lognormal(0, 1, N),
        draw.random(N),
        draw.integers(-500, 500, N),
        draw.integers(0, 2**40, N) + 2**25,  # too large to count in single precision
        draw.normal(size=15),
        np.r_[0.0, draw.lognormal(0, 1, N)],
    ],
}


@pytest.mark.parametrize(
    ("kind", "index"), [(kind, i) for kind, columns in COLUMNS.items() for i in range(len(columns))]
)
def test_columns(kind: str, index: int) -> None:
    assert kind_of(COLUMNS[kind][index]).kind == kind


def test_at_most_twenty_values_that_repeat_are_few() -> None:
    twenty, more = np.arange(100) % 20, np.arange(105) % 21
    assert kind_of(twenty).kind == "ordered" and kind_of(more).kind == "counts"
    assert kind_of(twenty[:99]).kind == "counts"  # not five times on average
    assert kind_of(twenty / 3).kind == "real" and kind_of(twenty % 10 / 3).kind == "ordered"


def test_codes_mean_what_the_categories_say() -> None:
    import pandas as pd

    words, grades = draw.choice(["b", "a", "c"], N), draw.choice([10, 20, 35], N)
    loaded = data.from_object(pd.DataFrame({"words": words, "grades": grades}))
    assert loaded.columns == (
        data.ColumnSpec("words", "categories", ("a", "b", "c")),
        data.ColumnSpec("grades", "ordered", ("10", "20", "35")),
    )
    rows = np.concatenate([loaded.train, loaded.validation, loaded.test]).astype(int)
    named = [(loaded.columns[0].categories[a], loaded.columns[1].categories[b]) for a, b in rows]
    assert sorted(named) == sorted((str(a), str(b)) for a, b in zip(words, grades, strict=True))


whole = draw.integers(0, 5000, (N, 6, 5))
ARRAYS = [
    ((whole > 2500), "binary", 2, "uint8"),
    ((whole % 2).astype(np.uint8), "binary", 2, "uint8"),
    ((whole % 2).astype(np.float32), "binary", 2, "uint8"),
    ((whole % 17).astype(np.uint8), "levels", 17, "uint8"),
    ((whole % 5).astype(np.uint8), "levels", 17, "uint8"),
    ((whole % 18).astype(np.uint8), "levels", 256, "uint8"),
    ((whole % 256).astype(np.uint8), "levels", 256, "uint8"),
    ((whole % 256).astype(np.float64), "levels", 256, "uint8"),
    ((whole % 256).astype(np.int64), "levels", 256, "uint8"),
    ((whole % 4096).astype(np.uint16), "levels", 4096, "int32"),
    (whole % 257, "levels", 512, "int32"),
    ((13 * whole + 7).astype(np.uint16), "levels", 65536, "int32"),
    (20 * whole, "real", 0, "float32"),
    (whole / 5000, "unit_interval", 0, "float32"),
    (whole / 5000 - 1e-3, "real", 0, "float32"),
    (draw.lognormal(0, 1, (N, 6, 5)), "positive", 0, "float32"),
    (draw.lognormal(0, 1, (N, 3, 6, 5)).astype(np.float16), "positive", 0, "float32"),
    (whole[:, 0] > 2500, "binary", 2, "uint8"),
    (whole[:, 0] % 2.0, "binary", 2, "uint8"),
    ((whole[:, 0] % 200).astype(np.uint8), "levels", 256, "uint8"),
    ((whole[:, 0] % 9).astype(np.uint8), "levels", 17, "uint8"),
    (whole[:, 0] % 200, "counts", 0, "int32"),
    ((whole[:, 0] % 200).astype(np.int8) % 100, "counts", 0, "int32"),
    (whole[:, 0].astype(np.uint16), "counts", 0, "int32"),
    (whole[:, 0].astype(np.float32), "counts", 0, "int32"),
    (np.c_[whole[:, 0] % 200, np.full(N, 255)], "levels", 256, "uint8"),
    (np.c_[np.tile(whole[:, 0] % 17, 12), np.full((N, 4), 16)], "levels", 17, "uint8"),
    (np.c_[np.tile(whole[:, 0] % 17, 12), np.full((N, 3), 16)], "counts", 0, "int32"),
]


@pytest.mark.parametrize(("array", "kind", "levels", "dtype"), ARRAYS)
def test_arrays_of_one_kind(array: np.ndarray, kind: str, levels: int, dtype: str) -> None:
    loaded = data.from_object(array)
    assert loaded.columns == (data.ColumnSpec("", kind, (), levels),)  # type: ignore[arg-type]
    assert str(loaded.train.dtype) == f"torch.{dtype}"
    everything = np.concatenate([loaded.train, loaded.validation, loaded.test])
    expected = array.astype(dtype)
    assert sorted(row.tobytes() for row in everything) == sorted(row.tobytes() for row in expected)


def test_floats_are_a_table_of_columns() -> None:
    matrix = np.c_[draw.normal(size=N), draw.lognormal(0, 1, N), draw.integers(0, 2, N)]
    loaded = data.from_object(matrix)
    assert [column.kind for column in loaded.columns] == ["real", "positive", "binary"]
    assert loaded.names == ("0", "1", "2") and str(loaded.train.dtype) == "torch.float64"
    loaded = data.from_object(whole[:, 0] - 300)  # whole numbers, of which some are negative
    assert {column.kind for column in loaded.columns} == {"real"}


def test_a_wide_table_of_whole_numbers_is_a_matrix() -> None:
    import pandas as pd

    counts = pd.DataFrame(draw.poisson(0.3, (N, 20))).add_prefix("gene")
    loaded = data.from_object(counts)
    assert loaded.columns == (data.ColumnSpec("", "counts"),)
    assert loaded.names == tuple(counts.columns)
    narrow = data.from_object(counts.iloc[:, :19])
    assert len(narrow.columns) == 19


def said(array: np.ndarray) -> str:
    return " ".join(data.from_object(array).notes)


def test_notes_say_what_was_seen() -> None:
    pixels = np.asarray(whole % 256)
    assert "whole numbers from 0 to 16: taken as 17 levels" in said((whole % 17).astype(np.uint8))
    assert "taken as 4,096 levels" in said(whole % 4096)
    assert said(pixels.astype(np.uint8)) == ""
    on_grid = said((pixels / 255).astype(np.float32))
    assert "multiples of 1/255" in on_grid and "save round(255 x) as uint8" in on_grid
    assert said(pixels / 255.5) == ""
    atoms = np.where(pixels < 100, 0, draw.random(pixels.shape))
    assert "39 % of the values are exactly 0" in said(atoms)
    assert "39 % of the values are exactly 1" in said(1 - atoms)
    rain = np.where(draw.random((N, 2)) < 0.5, 0, draw.lognormal(0, 1, (N, 2)))
    assert "one value is frequent in 0 (" in said(rain)
    assert said(draw.normal(size=(N, 2))) == ""
    assert "left out, because they have one value in all rows: 1" in said(
        np.c_[draw.normal(size=N), np.full(N, 3.5)]
    )
    assert "1 of 6 columns have one value" in said(np.c_[whole[:, 0], np.zeros(N, int)])
    repeated = draw.normal(size=(N, 2))
    repeated[:7] = repeated[7]
    assert "duplicates: 7 of 400 examples repeat another one" in said(repeated)
