"""New rows fit a model or are refused: a model gives every array of the right shape a number."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from pyro_vae import InputError, data
from pyro_vae.runs.applying.new_rows import stored_rows
from pyro_vae.runs.applying.own_form import in_own_form
from pyro_vae.runs.data_form import DataForm

draw = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "visits": draw.poisson(30, 100),
        "city": draw.choice(["Rome", "Oslo", "Bern"], 100),
        "height": draw.normal(170, 10, 100),
        "smoker": draw.choice([True, False], 100),
        "grade": draw.choice([0.5, 1, 2.5], 100),
    }
)


def form_of(x: Any, ignored: tuple[str, ...] = (), **options: Any) -> DataForm:
    dataset = data.from_object(x, **options)
    kind = dataset.kind.fitted(dataset.train)
    is_array = isinstance(x, np.ndarray)
    return DataForm.of(dataset, kind, ignored=ignored, is_array=is_array)


def stored(form: DataForm, x: Any) -> np.ndarray:
    return stored_rows(form, x).numpy()


@pytest.fixture(scope="module")
def table() -> DataForm:
    return form_of(TABLE)


GREY = draw.integers(0, 256, (60, 5, 4), dtype=np.uint8)


def test_tables_are_read_as_in_training(table: DataForm) -> None:
    expected = data.from_object(TABLE)
    whole = torch.cat([expected.train[:], expected.validation, expected.test]).numpy()
    rows = stored(table, TABLE)
    np.testing.assert_array_equal(np.sort(rows, 0), np.sort(whole, 0))
    assert rows.dtype == np.float64
    mixed = TABLE[["grade", "height", "smoker", "city", "visits"]]
    np.testing.assert_array_equal(stored(table, mixed), rows)
    other_types = TABLE.assign(
        visits=TABLE["visits"].astype("Int64"),
        city=TABLE["city"].astype("category"),
        smoker=TABLE["smoker"].astype(int),
        grade=TABLE["grade"].astype("float32"),
    )
    np.testing.assert_array_equal(stored(table, other_types), rows)
    np.testing.assert_array_equal(stored(table, TABLE.iloc[[7]]), rows[[7]])
    for columns in (TABLE.to_dict("list"), TABLE.to_records(index=False)):
        np.testing.assert_array_equal(stored(table, columns), rows)
    as_text = TABLE.assign(grade=[f"{grade:g}" for grade in TABLE["grade"]])
    np.testing.assert_array_equal(stored(table, as_text), rows)


def test_additional_columns_are_named_and_ignored(table: DataForm) -> None:
    more = TABLE.assign(name="x", weight=3)
    with pytest.warns(UserWarning, match="not trained on are ignored: name, weight"):
        rows = stored(table, more)
    np.testing.assert_array_equal(rows, stored(table, TABLE))
    dropped = form_of(TABLE, ("city", "grade"), drop=["city"], labels="grade")
    assert stored(dropped, TABLE).shape == (100, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.drop(columns=["city", "height"]), "no column city, height: it needs"),
        (lambda x: x.assign(city="Paris"), "'city' has the unknown categories Paris: in training"),
        (lambda x: x.assign(grade=3.0), "'grade' has the unknown categories 3: in training they"),
        (lambda x: x.assign(smoker=2), "'smoker' has the unknown categories 2"),
        (lambda x: x.assign(visits=-1), "column 'visits' has the value -1, and counts data are"),
        (lambda x: x.assign(visits=1.5), "column 'visits' has the value 1.5, and counts data are"),
        (lambda x: x.assign(height="tall"), "'height' holds text, such as 'tall' in row 0 "),
        (
            lambda x: x.assign(height=["1", *["tall"] * (len(x) - 1)]),
            r"'height' holds text, such as 'tall' in row 1 \(from 0\), and had numbers in training",
        ),
        (lambda x: x.assign(height=["1"] * 70 + ["tall"] * 30)[20:], "'tall' in row 70 "),
        (lambda x: x.assign(height=["1"] * 71 + ["tall"] * 29)[::-2], "'tall' in row 99 "),
        (
            lambda x: x.assign(height=["1"] * 70 + ["tall"] * 30).set_index("city", drop=False)[9:],
            "'tall' in row 61 ",
        ),
        (lambda x: x.assign(height=np.nan), "has missing values .NaN. in height, and the training"),
        (lambda x: x.assign(city=None), "has missing values .NaN. in city"),
        (lambda x: x.assign(height=np.inf), "column 'height' has the value inf"),
        (lambda x: x.iloc[:0], "the table has no rows"),
        (lambda x: pd.concat([x, x[["city"]]], axis=1), "several columns city: rename them"),
        (lambda x: x.to_numpy(), "x holds object: give numbers"),
        (lambda x: x[["visits", "height"]].to_numpy(), r"shape \[100, 2\], and .* the columns vis"),
        (lambda x: "a", "x holds <U1"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table: DataForm, change: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        stored_rows(table, change(TABLE.copy()))
    assert caught.value.parameter == "x"


def test_holes_are_allowed_where_training_had_some() -> None:
    holes = TABLE.mask(draw.random(TABLE.shape) < 0.2)
    form = form_of(holes)
    rows = stored(form, holes)
    np.testing.assert_array_equal(np.isnan(rows), holes.isna().to_numpy())
    assert np.isnan(stored(form, TABLE.assign(city=None, height=np.nan)))[:, 1:3].all()
    np.testing.assert_array_equal(stored(form, TABLE)[:, 0], TABLE["visits"])


def test_arrays_have_any_type_that_holds_their_values() -> None:
    form = form_of(GREY)
    for same in (
        GREY,
        GREY.astype(np.int64),
        GREY.astype(np.float16),
        GREY.astype(">u2"),
        torch.from_numpy(GREY),
        torch.from_numpy(GREY).to(torch.bfloat16),
        GREY[:, ::-1][:, ::-1],
        np.asfortranarray(GREY),
        np.ma.array(GREY),
    ):
        rows = stored(form, same)
        assert rows.dtype == np.uint8
        np.testing.assert_array_equal(rows, GREY)
    fixed = GREY.copy()
    fixed.setflags(write=False)
    np.testing.assert_array_equal(stored(form, fixed), GREY)
    counts = draw.poisson(3, (80, 4))
    np.testing.assert_array_equal(stored(form_of(counts), sparse.csr_matrix(counts)), counts)


def test_dark_rows_are_levels_and_black_pictures_too() -> None:
    rows = draw.integers(0, 30, (60, 4))
    form = form_of(rows, columns={"all": "levels"})
    np.testing.assert_array_equal(stored(form, np.array([[0, 1, 0, 1]])), [[0, 1, 0, 1]])
    assert (stored(form_of(GREY), np.zeros((2, 5, 4))) == 0).all()


def test_colours_may_be_last() -> None:
    colours = draw.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    form = form_of(colours)
    np.testing.assert_array_equal(stored(form, colours), np.moveaxis(colours, -1, 1))
    np.testing.assert_array_equal(
        stored(form, np.moveaxis(colours, -1, 1)), colours.transpose(0, 3, 1, 2)
    )


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (GREY / 255, "values from 0 to 1, and in training they were whole numbers from 0 to 255"),
        ((GREY > 100).astype(float), "values from 0 to 1, and in training"),
        ((GREY > 100).astype(np.uint8), "values from 0 to 1, and in training"),
        (GREY > 100, "values from 0 to 1, and in training"),
        (GREY.astype(int) + 1, "the data have the value 256, and levels data are whole numbers"),
        (GREY.astype(float) - 0.5, "the data have the value"),
        (GREY[0], r"shape \[5, 4\], and .* \[N, 5, 4\]: a single row is given as x\[None\]"),
        (GREY[:, :4], r"shape \[60, 4, 4\], and the model was trained on \[N, 5, 4\]"),
        (GREY.reshape(60, 20), r"shape \[60, 20\]"),
        (GREY[:, None], r"shape \[60, 1, 5, 4\]"),
        (GREY[:0], "no rows"),
        (np.where(GREY > 200, np.nan, GREY), "missing values .NaN., and the training data had"),
        (pd.DataFrame(GREY.reshape(60, 20)), r"a table cannot be used: .* \[N, 5, 4\]"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(x: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        stored_rows(form_of(GREY), x)


def test_floats_are_refused_as_levels() -> None:
    floats = draw.random((60, 5, 4))
    form = form_of(floats)
    assert stored(form, floats).dtype == np.float32
    for x, said in ((GREY, "values up to 255, and in training they were from 0 to 1: divide"),):
        with pytest.raises(InputError, match=said):
            stored_rows(form, x)
    with pytest.raises(InputError, match="the data have the value -"):
        stored_rows(form, floats - 1)


def test_columns_that_were_left_out_of_an_array_may_be_there() -> None:
    array = np.column_stack([draw.normal(size=80), np.full(80, 3.0), draw.choice([1.0, 2, 5], 80)])
    form = form_of(array)
    assert form.kind.names == ("0", "2")
    with pytest.warns(UserWarning, match="not trained on are ignored: 1"):
        rows = stored(form, array)
    np.testing.assert_array_equal(rows, stored(form, array[:, [0, 2]]))
    assert set(rows[:, 1]) == {0, 1, 2}
    few = in_own_form(form, torch.from_numpy(rows).float())
    np.testing.assert_array_equal(few, array[:, [0, 2]].astype(np.float32))
    with pytest.raises(InputError, match="column '2' has the unknown categories 6, 7, 10"):
        stored_rows(form, array[:, [0, 2]] + [0, 5])


def test_years_are_names_and_no_positions() -> None:
    years = pd.DataFrame(draw.normal(size=(80, 2)), columns=["2020", "2019"])
    form = form_of(years)
    rows = stored(form, years)
    np.testing.assert_array_equal(stored(form, years[["2019", "2020"]]), rows)
    np.testing.assert_array_equal(stored(form, years.to_numpy()), rows)
    shown = in_own_form(form, torch.from_numpy(rows))
    assert list(shown.columns) == ["2020", "2019"]


def test_what_is_remembered_is_read_back(table: DataForm, tmp_path: Path) -> None:
    table.save(tmp_path)
    again = DataForm.read(tmp_path)
    assert again.columns == table.columns and again.fingerprint == table.fingerprint
    assert again.dtype == "float64" and again.kind.names == table.kind.names
    np.testing.assert_array_equal(stored(again, TABLE), stored(table, TABLE))
    whole = torch.load(tmp_path / "data.pt", weights_only=True)
    torch.save({"version": 99}, tmp_path / "data.pt")
    with pytest.raises(InputError, match="newer version of pyro_vae"):
        DataForm.read(tmp_path)
    for damage in (
        {},
        {**whole, "dtype": "load"},
        {**whole, "columns": 3},
        {**whole, "ignored": 1},
    ):
        torch.save({"version": 1} | damage, tmp_path / "data.pt")
        with pytest.raises(InputError, match="is damaged"):
            DataForm.read(tmp_path)
