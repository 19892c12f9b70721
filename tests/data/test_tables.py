"""Tables: how they are written, what their columns are, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_vae import InputError, data
from pyro_vae.data.sources.text_format import sniff
from pyro_vae.runs.run_data import split_names

N = 60


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def columns(draw: np.random.Generator) -> dict[str, list[Any]]:
    return {
        "size": draw.normal(size=N).round(6).tolist(),
        "visits": [*draw.poisson(3, N - 1).tolist(), 0],
        "city": draw.choice(["A", "B", "C"], N).tolist(),
    }


def write(
    columns: dict[str, list[Any]], separator: str = ",", decimal: str = ".", header: bool = True
) -> str:
    """Return a table as text."""
    rows = [
        [
            str(value).replace(".", decimal) if isinstance(value, float) else str(value)
            for value in row
        ]
        for row in zip(*columns.values(), strict=True)
    ]
    return "".join(separator.join(row) + "\n" for row in ([list(columns)] if header else []) + rows)


def load(folder: Path, text: str | bytes, suffix: str = ".csv", **options: Any) -> data.Dataset:
    path = folder / f"t{suffix}"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return data.load(str(path), **options)


def kinds(loaded: data.Dataset) -> dict[str, str]:
    return {column.name: column.kind for column in loaded.columns}


def test_all_ways_to_write_a_table_give_the_same_data(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    import pandas as pd

    plain = load(tmp_path, write(columns))
    assert kinds(plain) == {"size": "real", "visits": "counts", "city": "categories"}
    assert plain.columns[2].categories == ("A", "B", "C") and not plain.notes
    assert plain.train.shape == (49, 3) and str(plain.train.dtype) == "torch.float64"
    codes = {"A": 0.0, "B": 1.0, "C": 2.0}
    expected = sorted(
        (size, visits, codes[city]) for size, visits, city in zip(*columns.values(), strict=True)
    )
    parts = (plain.train, plain.validation, plain.test)
    assert sorted(tuple(row) for part in parts for row in part.tolist()) == expected
    frame = pd.DataFrame(columns)
    frame.to_parquet(tmp_path / "t.parquet")
    others = {
        "semicolons, decimal comma": load(tmp_path, write(columns, ";", ",")),
        "tabs": load(tmp_path, write(columns, "\t"), ".tsv"),
        "tabs in .csv": load(tmp_path, write(columns, "\t")),
        "tabs, decimal comma": load(tmp_path, write(columns, "\t", ","), ".tsv"),
        "decimal commas without names": load(tmp_path, write(columns, ";", ",", header=False)),
        "commas in .tsv": load(tmp_path, write(columns), ".tsv"),
        "bars": load(tmp_path, write(columns, "|")),
        "byte-order mark": load(tmp_path, write(columns).encode("utf-8-sig")),
        "UTF-16": load(tmp_path, write(columns).encode("utf-16")),
        "Windows' ends of lines": load(tmp_path, write(columns).replace("\n", "\r\n")),
        "spaces": load(tmp_path, write(columns).replace(",", ", ")),
        "no last end of line": load(tmp_path, write(columns).rstrip()),
        "quotes": load(tmp_path, write(columns).replace("A", '"A"')),
        "lines that end with a separator": load(tmp_path, write(columns).replace("\n", ",\n")),
        "comments": load(tmp_path, "# measured by x\n\n# in cm, g\n" + write(columns)),
        "Excel's first line": load(tmp_path, "sep=;\n" + write(columns, ";", ",")),
        "columns of spaces": load(tmp_path, write(columns).replace(",", "   ")),
        "spaces at the end": load(tmp_path, write(columns).replace("\n", "  \n")),
        "capitals": load(tmp_path, write(columns), ".CSV"),
        "the index of pandas": load(tmp_path, frame.to_csv()),
        "Parquet": data.load(str(tmp_path / "t.parquet")),
        "DataFrame": data.from_object(frame),
    }
    for name, other in others.items():
        assert torch.equal(other.test, plain.test), name
        if "without names" not in name:
            assert other.fingerprint == plain.fingerprint, name
            assert other.columns == plain.columns, name
    assert "counts the rows: left out" in others["the index of pandas"].notes[0]


def test_tables_without_names(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    loaded = load(tmp_path, write(columns, header=False))
    assert kinds(loaded) == {"0": "real", "1": "counts", "2": "categories"}
    assert "has no names of columns: they are called 0 to 2" in loaded.notes[0]
    two = load(tmp_path, write({name: columns[name] for name in [*columns][:2]}, header=False))
    assert "has no names of columns: they are called 0 and 1" in two.notes[0]


def test_names_that_are_numbers(tmp_path: Path, draw: np.random.Generator) -> None:
    import pandas as pd

    matrix = draw.normal(size=(N, 3))
    for text in (pd.DataFrame(matrix).to_csv(index=False), pd.DataFrame(matrix).to_csv()):
        loaded = load(tmp_path, text)
        assert loaded.names == ("0", "1", "2")
        assert len(loaded.train) + len(loaded.validation) + len(loaded.test) == N
        assert not any("no names" in note for note in loaded.notes)
    years = {"country": [f"c{i % 3}" for i in range(N)], "2018": matrix[:, 0], "2019": matrix[:, 1]}
    loaded = load(tmp_path, write({"id": list(matrix[:, 2]), **years}))
    assert loaded.names == ("id", "country", "2018", "2019")


def test_other_alphabets(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    columns["Straße"] = ["Köln" if i % 3 else "Bonn" for i in range(N)]
    for encoding, noted in (("utf-8", False), ("cp1252", True), ("utf-16", False)):
        loaded = load(tmp_path, write(columns).encode(encoding))
        assert loaded.columns[3] == data.ColumnSpec("Straße", "categories", ("Bonn", "Köln"))
        assert any("read as Windows-1252" in note for note in loaded.notes) == noted
    late = "a,b\n" + "1.5,x\n2.5,y\n" * 9000 + "1.0,é\n"  # after the part that is sniffed
    loaded = load(tmp_path, late.encode("cp1252"))
    assert loaded.columns[1].categories == ("x", "y", "é")


def test_long_files_are_sniffed_from_their_start(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a;b\n" + "1,25;xü\n" * 20_000)
    how = sniff(path)
    assert (how.separator, how.decimal, how.has_header, how.encoding) == (
        ";",
        ",",
        True,
        "utf-8-sig",
    )


def test_separators_that_could_be_decimals_or_texts(tmp_path: Path) -> None:
    two = "".join(f"{i},5;{7 * i},25\n" for i in range(N))  # three fields if commas separate
    assert load(tmp_path, two).train.shape == (49, 2)
    cities = "home town\n" + "New York\nLos Angeles\n" * 30
    assert load(tmp_path, cities).columns[0].categories == ("Los Angeles", "New York")
    streets = "size street\n" + "".join(f"{i}.5 Road {i % 3}\n" for i in range(N))
    with pytest.raises(InputError, match=r"line 2 has 3 fields, .* has 2 \(separated by spaces"):
        load(tmp_path, streets)


def test_all_kinds_of_columns(
    tmp_path: Path, columns: dict[str, list[Any]], draw: np.random.Generator
) -> None:
    columns |= {
        "flag": draw.choice([True, False], N).tolist(),
        "smoker": draw.choice(["yes", "no"], N).tolist(),
        "income": draw.lognormal(10, 1.5, N).round(2).tolist(),
        "grade": draw.integers(1, 4, N).tolist(),
        "whole": [float(value) for value in draw.integers(0, 300, N)],
    }
    loaded = load(tmp_path, write(columns))
    assert kinds(loaded) == {
        "size": "real",
        "visits": "counts",
        "city": "categories",
        "flag": "binary",
        "smoker": "categories",
        "income": "positive",
        "grade": "ordered",
        "whole": "counts",
    }
    assert loaded.columns[3] == data.ColumnSpec("flag", "binary", ("False", "True"), 2)
    assert loaded.columns[4].categories == ("no", "yes")


def test_columns_are_dropped_and_used_as_labels(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    loaded = load(tmp_path, write(columns), labels="city", drop=["visits"])
    assert loaded.names == ("size",) and loaded.label_names == ("A", "B", "C")
    city_of = dict(zip(columns["size"], columns["city"], strict=True))
    for part in ("train", "validation", "test"):
        rows, labels = getattr(loaded, part), getattr(loaded, f"{part}_labels")
        assert [loaded.label_names[label] for label in labels] == [
            city_of[size] for (size,) in rows.tolist()
        ]
    loaded = load(tmp_path, write(columns), labels="size")
    assert loaded.train_labels is None and "not classes" in loaded.notes[0]


def test_kinds_are_overridden(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    given = {"visits": "real", "city": "ordered C < A < B"}
    loaded = load(tmp_path, write(columns), columns=given)
    assert kinds(loaded) == {"size": "real", "visits": "real", "city": "ordered"}
    assert loaded.columns[2].categories == ("C", "A", "B")
    code = {"C": 0, "A": 1, "B": 2}
    city_of = dict(zip(columns["size"], columns["city"], strict=True))
    assert all(code[city_of[row[0]]] == row[2] for row in loaded.train.tolist())
    columns["two"] = ["low" if i % 3 else "high" for i in range(N)]
    loaded = load(tmp_path, write(columns), columns={"two": "binary: low < high"})
    assert loaded.columns[3] == data.ColumnSpec("two", "binary", ("low", "high"), 2)


@pytest.mark.parametrize(
    ("options", "said", "parameter"),
    [
        ({"labels": "klass"}, r"no column klass: its columns are size, visits, city$", "labels"),
        ({"drop": ["a", "b"]}, "no column a, b: its columns are", "drop"),
        ({"drop": ["size", "visits", "city"]}, "no columns left", "drop"),
        ({"columns": {"age": "real"}}, "no column age", "columns"),
        ({"columns": {"size": "integer"}}, "cannot be 'integer': choose binary", "columns"),
        ({"columns": {"size": "counts"}}, "cannot be counts: .* not whole", "columns"),
        ({"columns": {"size": "positive"}}, "cannot be positive: .* above 0", "columns"),
        ({"columns": {"size": "categories"}}, "20 distinct numbers at most", "columns"),
        ({"columns": {"city": "real"}}, "needs numbers, and the column has text", "columns"),
        ({"columns": {"city": "binary"}}, "needs two values", "columns"),
        ({"columns": {"city": "ordered A < B"}}, "has to name each of its values", "columns"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path,
    columns: dict[str, list[Any]],
    options: dict[str, Any],
    said: str,
    parameter: str,
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load(tmp_path, write(columns), **options)
    assert caught.value.parameter == parameter and "\n" not in str(caught.value)


ODD: list[tuple[list[Any], str, str | None]] = [
    (
        [f"u{i}" for i in range(N)],
        "60 different strings in 60 rows, so it identifies",
        "categories",
    ),
    ([f"u{i % 40}" for i in range(N)], "40 different strings in 60 rows", "categories"),
    (
        [f"202{i % 6}0{i % 9 + 1}{i % 28 + 1:02}" for i in range(N)],
        "dates, such as 20200101",
        "real",
    ),
    ([2**60 + 999 * i for i in range(N)], "whole numbers up to 1152921504606905", "real"),
    (list(range(N)), "counts the rows from 0 to 59", "real"),
    (list(range(1, N + 1)), "counts the rows from 1 to 60", "counts"),
    ([f"2020-01-{i % 28 + 1:02}" for i in range(N)], "dates or times, such as '2020-01-01'", None),
    ([f"{i % 28 + 1:02}.03.2021 12:30" for i in range(N)], "holds dates or times", None),
    ([f"{i % 12 + 1}/{i % 28 + 1}/21" for i in range(N)], "holds dates or times", None),
    ([f"{i % 28 + 1} March 2021" for i in range(N)], "holds dates or times", None),
    ([f"{i % 24:02}:30" for i in range(N)], "holds dates or times", None),
    (["?" if i % 9 == 0 else i * i for i in range(N)], "not a number, such as '\\?'", None),
    ([f'"{i},234.5"' for i in range(1, N + 1)], "not a number, such as '1,234.5'", None),
    ([f"{i}%" for i in range(N)], "not a number, such as '0%'", None),
    (
        ["inf" if i % 9 == 0 else i * 1.5 for i in range(N)],
        r"infinite values in 1 of 2.*x \(7\)",
        None,
    ),
]


@pytest.mark.parametrize(("values", "said", "allowed"), ODD)
def test_columns_that_are_refused(
    tmp_path: Path,
    columns: dict[str, list[Any]],
    values: list[Any],
    said: str,
    allowed: str | None,
) -> None:
    text = write({"size": columns["size"], "x": values})
    with pytest.raises(InputError, match=said) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)
    assert load(tmp_path, text, drop=["x"]).names == ("size",)
    if allowed is not None:
        loaded = load(tmp_path, text, columns={"x": allowed})
        assert kinds(loaded) == {"size": "real", "x": allowed}


def test_odd_columns_are_refused_together(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    """The names at the end are what `--drop` takes."""
    columns |= {
        "id": list(range(1, N + 1)),
        '"what, why"': [f"text {i}" for i in range(N)],
        "day": [f"2020-01-{i % 28 + 1:02}" for i in range(N)],
        "notes": ["long " * 201, *["short"] * (N - 1)],
    }
    with pytest.raises(InputError) as caught:
        load(tmp_path, write(columns))
    assert str(caught.value) == (
        "4 columns of t.csv cannot be used: id counts the rows from 1 to 60, so it tells nothing "
        "about them; what, why has 60 different strings in 60 rows, so it identifies the rows; "
        "day holds dates or times, such as '2020-01-01'; notes has a text of 1,004 characters, "
        "which begins with 'long long long long ': drop id,\"what, why\",day,notes"
    )
    assert caught.value.parameter == "drop"
    named = str(caught.value).rpartition("drop ")[2]
    loaded = load(tmp_path, write(columns), drop=split_names(named))
    assert loaded.names == ("size", "visits", "city")
    with pytest.raises(InputError, match=r"2 columns .*: drop day,notes$"):
        given = {"id": "counts", "what, why": "categories", "notes": "categories"}
        load(tmp_path, write(columns), columns=given)


def test_many_odd_columns_are_refused_in_a_short_line(tmp_path: Path) -> None:
    columns = {f"c{j}": [f"text {i}" for i in range(N)] for j in range(2000)}
    with pytest.raises(InputError) as caught:
        load(tmp_path, write(columns))
    said = str(caught.value)
    assert said.startswith("2,000 columns of t.csv cannot be used: c0 has 60 different")
    assert "c19 has" in said and "c20" not in said and said.count("and 1,980 more") == 2
    assert len(said) < 2500


def test_half_of_the_strings_may_differ(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    columns["word"] = [f"u{i % 30}" for i in range(N)]
    assert len(load(tmp_path, write(columns)).columns[3].categories) == 30
    columns["word"][0] = "another"
    with pytest.raises(InputError, match="31 different strings in 60 rows"):
        load(tmp_path, write(columns))


def test_constant_columns_are_left_out(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    columns |= {"year": [2020] * N, "state": ["on"] * N}
    loaded = load(tmp_path, write(columns))
    assert loaded.names == ("size", "visits", "city")
    assert loaded.notes == ("left out, because they have one value in all rows: year, state",)
    with pytest.raises(InputError, match=r"column year of t\.csv has one value in all rows"):
        load(tmp_path, write(columns), columns={"year": "real"})
    assert load(tmp_path, write(columns), columns={"year": "counts"}).names[3] == "year"
    with pytest.raises(InputError, match=r"each column of t\.csv has one value in all rows"):
        load(tmp_path, write({"year": [2020] * N}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty: it has no rows"),
        ("\n\n", "is empty: it has no rows"),
        ("a,b\n", "is empty: it has columns and no rows"),
        ("a,b\n" + "1.5,x\n" * 30 + "1.5,x,y\n", "line 32 has 3 fields, and the first line has 2"),
        ("a,b,c\n" + "1.5,x,y\n" * 9 + "1.5,x\n", "line 11 has 2 fields, and the first line has 3"),
        ("a,b\n" + "1.5,x,7\n" * 30, "line 2 has 3 fields, and the first line has 2"),
        (bytes(range(256)) * 9, "is not a text file"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load(tmp_path, text)
    assert caught.value.parameter == "name"


@pytest.mark.parametrize("name", ["none.csv", "none.tsv", "none.parquet"])
def test_files_that_are_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="there is no file"):
        data.load(str(tmp_path / name))


def test_parquet_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(InputError, match=r"a\.parquet is not a Parquet file"):
        data.load(str(tmp_path / "a.parquet"))
    frame = pd.DataFrame({"a": [[1.0, 2.0]] * 30})
    frame.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"column a of b\.parquet holds values of type ndarray"):
        data.load(str(tmp_path / "b.parquet"))

    def without(*args: Any, **kwargs: Any) -> Any:
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", without)
    with pytest.raises(InputError, match="cannot be read without pyarrow: install it"):
        data.load(str(tmp_path / "b.parquet"))


def test_pandas_types(draw: np.random.Generator) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "size": pd.Categorical(draw.choice(["S", "M", "L"], N), ["S", "M", "L"], ordered=True),
            "kind": pd.Categorical(draw.choice(["b", "a"], N), ["a", "b", "unused"]),
            "visits": pd.array(draw.integers(0, 99, N), "Int64"),
            "flag": pd.array(draw.choice([True, False], N), "boolean"),
            "real": pd.array(draw.normal(size=N), "Float64"),
            "word": pd.array(draw.choice(["u", "v"], N), "string"),
            "small": draw.normal(size=N).astype(np.float32),
        }
    )
    loaded = data.from_object(frame)
    assert loaded.columns == (
        data.ColumnSpec("size", "ordered", ("S", "M", "L")),
        data.ColumnSpec("kind", "categories", ("a", "b")),
        data.ColumnSpec("visits", "counts"),
        data.ColumnSpec("flag", "binary", ("False", "True"), 2),
        data.ColumnSpec("real", "real"),
        data.ColumnSpec("word", "categories", ("u", "v")),
        data.ColumnSpec("small", "real"),
    )
    for name in frame.columns:
        frame.loc[3, name] = None if name in ("size", "kind") else pd.NA
    holes = data.from_object(frame)
    assert holes.columns == loaded.columns
    assert sum(part.isnan().sum() for part in (holes.train, holes.validation, holes.test)) == 7


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([np.datetime64("2020-01-01")] * N, "dates or times"),
        ([np.timedelta64(1, "D")] * N, "dates or times"),
        ([[1]] * N, "values of type list, several numbers in a cell"),
        ([1, "a"] * 30, "numbers beside text"),
        ([b"x", b"y"] * 30, "values of type bytes"),
        ([1 + 2j] * N, "values of type complex"),
    ],
)
def test_pandas_types_that_are_refused(values: list[Any], said: str) -> None:
    import pandas as pd

    frame = pd.DataFrame({"x": values, "y": np.random.default_rng(0).normal(size=N)})
    with pytest.raises(InputError, match=f"column x of the table holds {said}"):
        data.from_object(frame)
    assert data.from_object(frame, drop=["x"]).names == ("y",)


def test_names_that_repeat_and_names_of_levels(draw: np.random.Generator) -> None:
    import pandas as pd

    frame = pd.DataFrame(draw.normal(size=(N, 2)), columns=["a", "a"])
    with pytest.raises(InputError, match="has several columns a: rename them"):
        data.from_object(frame)
    frame.columns = pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])
    assert data.from_object(frame).names == ("a x", "a y")


def test_mixed_table_of_the_cases(tmp_path: Path, draw: np.random.Generator) -> None:
    """A table as people have it: with holes it has the same columns, and says what is missing."""
    rows = [
        [
            draw.integers(18, 90),
            f"{draw.lognormal(10, 0.6):.2f}",
            draw.choice(["yes", "no"]),
            draw.choice(["A", "B", "C"]),
            draw.poisson(2),
            draw.choice(["x", "y"]),
        ]
        for _ in range(500)
    ]
    header = "age,income,smoker,city,visits,group\n"
    whole = header + "".join(",".join(map(str, row)) + "\n" for row in rows)
    assert kinds(load(tmp_path, whole, labels="group")) == {
        "age": "counts",
        "income": "positive",
        "smoker": "categories",
        "city": "categories",
        "visits": "counts",
    }
    holes = [["" if draw.random() < 0.05 else value for value in row] for row in rows]
    text = header + "".join(",".join(map(str, row)) + "\n" for row in holes)
    counts = [sum(value == "" for value in column) for column in zip(*holes, strict=True)]
    loaded = load(tmp_path, text, drop=["group"])
    assert kinds(loaded) == kinds(load(tmp_path, whole, labels="group"))
    most = max(counts[:5])
    assert f"({most})" in loaded.notes[0] and "in 5 of 5 columns" in loaded.notes[0]
    missing = [loaded.train, loaded.validation, loaded.test]
    assert sum(int(part.isnan().sum()) for part in missing) == sum(counts[:5])
    with pytest.raises(InputError, match=f"{counts[5]} are missing: remove these rows"):
        load(tmp_path, text, labels="group")


def test_pandas_is_imported_where_it_is_used() -> None:
    import subprocess
    import sys

    code = (
        "import sys, pyro_vae.data; print([m for m in ('pandas', 'anndata') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
