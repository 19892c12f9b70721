"""Files as people have them: each is read as they mean it, or refused with a cure."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from pyro_vae import InputError, data

N = 60
draw = np.random.default_rng(5)
reals = draw.normal(100, 20, N).round(2).tolist()
counts = draw.poisson(30, N).tolist()


def load(folder: Path, text: str, suffix: str = ".csv", **options: Any) -> data.Dataset:
    path = folder / f"t{suffix}"
    path.write_text(text, encoding="utf-8")
    return data.load(str(path), **options)


def table(*columns: list[Any], names: str = "a,b", separator: str = ",") -> str:
    rows = [separator.join(map(str, row)) for row in zip(*columns, strict=True)]
    return "\n".join(([names] if names else []) + rows) + "\n"


def test_empty_rows_and_columns_of_a_spreadsheet_are_left_out(tmp_path: Path) -> None:
    blank = [""] * N
    plain = load(tmp_path, table(reals, counts))
    text = table(reals, counts, blank, blank, names="a,b,,")
    loaded = load(tmp_path, text + ",,,\n,,,\n")
    assert loaded.fingerprint == plain.fingerprint
    assert loaded.notes == ("t.csv: 2 rows are empty: left out",)
    named = load(tmp_path, table(reals, blank, counts, names="a,note,b"))
    assert named.fingerprint == plain.fingerprint
    assert named.notes == ("left out, because they are empty: note",)
    with pytest.raises(InputError, match=r"column note of .* has no values"):
        load(tmp_path, table(reals, blank, names="a,note"), columns={"note": "real"})


def test_a_first_column_without_a_name_is_an_index(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": reals, "b": counts})
    plain = load(tmp_path, frame.to_csv(index=False))
    for index, what in (
        (range(N), "counts the rows"),
        (range(1, N + 1), "counts the rows"),
        (draw.permutation(N), "counts the rows"),
        (1000 + 7 * draw.permutation(N), "differs in all rows"),
        ([f"row {i}" for i in range(N)], "differs in all rows"),
    ):
        loaded = load(tmp_path, frame.set_index(pd.Index(index)).to_csv())
        assert loaded.fingerprint == plain.fingerprint
        assert loaded.notes == (f"t.csv: the first column has no name and {what}: left out",)
    twice = frame.reset_index().rename(columns={"index": "Unnamed: 0"}).to_csv()
    assert load(tmp_path, twice).fingerprint == plain.fingerprint
    groups = frame.set_index(pd.Index([f"g{i % 3}" for i in range(N)]))
    assert load(tmp_path, groups.to_csv()).names[0] == "Unnamed: 0"


REFUSED = [
    (
        table([f"{x} cm" for x in reals], counts),
        "not a number, such as '.* cm'.*write plain numbers",
    ),
    (table([f"({x})" if i % 2 else x for i, x in enumerate(reals)], counts), "write plain numbers"),
    (table([f"\u2212{x}" for x in reals], counts), "write plain numbers"),
    (table([f"{1000 + i}\u00a0{i + 100}" for i in range(N)], counts), "write plain numbers"),
    (table([f"<{x}" if x < 90 else x for x in reals], counts), "write plain numbers"),
    (table([10**20 + i for i in range(N)], reals), "too many digits, such as '10+': convert them"),
    ("The title\n\n" + table(reals, counts), "remove the lines before the table"),
    (table([f"r{i}" for i in range(N)], reals, counts), "as R writes names of rows: give it one"),
    ("a,b\n1.5,2\n", "has one row, which says nothing about others"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_text_that_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)


def test_doses_and_ranks_are_categories(tmp_path: Path) -> None:
    for words in (["1st", "2nd", "3rd"], ["10 mg", "20 mg", "40 mg"], ["<5", "5-10", ">10"]):
        loaded = load(tmp_path, table([words[i % 3] for i in range(N)], reals))
        assert set(loaded.columns[0].categories) == set(words)


def test_leading_zeros_are_kept(tmp_path: Path) -> None:
    codes = [["01234", "00700", "12345", ""][i % 3] for i in range(N)]
    for separator in ",;\t":
        loaded = load(tmp_path, table(codes, reals, separator=separator, names=f"zip{separator}b"))
        assert loaded.columns[0].categories == ("00700", "01234", "12345")
        assert "numbers with leading zeros in zip: taken as text" in loaded.notes[0]
    blank = [""] * N
    loaded = load(tmp_path, table(blank, reals, codes, reals, names=",a,zip,b") + ",,,\n")
    assert loaded.names == ("a", "zip", "b") and loaded.columns[1].categories[0] == "00700"
    text = table(reals, codes, names="")
    assert load(tmp_path, text).columns[1].kind == "categories"
    assert load(tmp_path, text, columns={"1": "counts"}).columns[1].kind == "counts"
    assert load(tmp_path, table(reals, codes), labels="b").label_names[0] == "00700"
    with pytest.raises(InputError, match="60 different strings in 60 rows"):
        load(tmp_path, table([f"{i:05}" for i in range(N)], reals))
    numbers = [f"0{x}" for x in reals]  # with decimals
    loaded = load(tmp_path, table(numbers, counts))
    assert loaded.columns[0].kind == "real" and not loaded.notes
    late = [*range(1, N), "007"]
    with pytest.raises(InputError, match="60 different strings"):
        load(tmp_path, table(late, reals))
    holes = load(tmp_path, table([["007", "", "8"][i % 3] for i in range(N)], reals))
    assert holes.columns[0].categories == ("007", "8")
    assert any("as empty cells" in note and "a (20)" in note for note in holes.notes)


def test_codes_of_missing_values_are_noted(tmp_path: Path) -> None:
    note = "one value lies apart from all others in a"
    for code in (-999, -9, 999, 9999):
        column = [code if i % 9 == 0 else x for i, x in enumerate(reals)]
        assert note in " ".join(load(tmp_path, table(column, counts)).notes)
    for column in (
        reals,
        [x - 100 for x in reals],
        [99 if i % 9 == 0 else x for i, x in enumerate(reals)],
    ):
        assert not any(note in said for said in load(tmp_path, table(column, counts)).notes)


def test_identifiers_of_many_digits_are_refused() -> None:
    identifiers = pd.Series([2**60 + 999 * i for i in range(N)])
    for dtype in ("int64", "Int64", "object", "int64[pyarrow]"):
        with pytest.raises(InputError, match="does not keep all digits"):
            data.from_object(pd.DataFrame({"a": reals, "b": identifiers.astype(dtype)}))


def test_cells_that_hold_several_numbers() -> None:
    for cell in ([1.0, 2.0], (1, 2), np.zeros(3)):
        with pytest.raises(InputError, match="give each number a column of its own"):
            data.from_object(pd.DataFrame({"a": reals, "b": [cell] * N}))
    with pytest.raises(InputError, match="holds values of type dict"):
        data.from_object(pd.DataFrame({"a": reals, "b": [{"c": 1}] * N}))


def test_sparse_matrices_of_scipy(tmp_path: Path) -> None:
    dense = draw.poisson(0.5, (N, 8))
    plain = data.from_object(sparse.csr_matrix(dense))
    for layout in (sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix):
        sparse.save_npz(tmp_path / "a.npz", layout(dense))
        loaded = data.load(str(tmp_path / "a.npz"))
        assert loaded.columns == plain.columns and torch.equal(loaded.test, plain.test)
    for broken, said in (
        (sparse.csr_matrix((0, 3)), "is empty: its shape is"),
        (sparse.csr_matrix(dense + 1j), "holds complex128: expected numbers"),
    ):
        sparse.save_npz(tmp_path / "a.npz", broken)
        with pytest.raises(InputError, match=said):
            data.load(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", format=1, shape=2, data=3)
    with pytest.raises(InputError, match="is not a NumPy array file"):
        data.load(str(tmp_path / "a.npz"))


def test_arrays_that_are_more_than_arrays() -> None:
    matrix = draw.normal(size=(N, 4))
    plain = data.from_object(matrix)
    assert data.from_object(matrix.view(np.matrix)).fingerprint == plain.fingerprint
    assert data.from_object(np.ma.array(matrix)).fingerprint == plain.fingerprint


examples, labels = torch.randn(N, 4), torch.zeros(N, 3)
OBJECTS = [
    ((examples, labels), r"tuple of 2 tensors \[60, 4\], \[60, 3\] \(labels have one dimension"),
    (list(examples), r"list of 60 tensors \[4\].*join them by torch.stack"),
    ({"epoch": 3, "model": {"w": examples}}, r"holds epoch \(int\), model \(dict\)"),
    ({"age": examples[:, 0], "visits": labels[:, 0]}, r"holds columns \(age, visits\): join them"),
]


@pytest.mark.parametrize(("held", "said"), OBJECTS)
def test_torch_files_that_say_what_they_hold(tmp_path: Path, held: Any, said: str) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(InputError, match=said):
        data.load(str(tmp_path / "a.pt"))


def test_a_single_tensor_in_a_tuple(tmp_path: Path) -> None:
    torch.save((examples,), tmp_path / "a.pt")
    assert data.load(str(tmp_path / "a.pt")).fingerprint == data.from_object(examples).fingerprint


def test_options_that_would_do_nothing(tmp_path: Path) -> None:
    text = table(reals, counts)
    np.save(tmp_path / "a.npy", np.array(reals)[:, None])
    torch.save(examples, tmp_path / "a.pt")
    for suffix in (".csv", ".npy", ".pt"):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(InputError, match="image_size is for a folder of pictures") as caught:
            data.load(str(tmp_path / f"a{suffix}"), image_size=8)
        assert caught.value.parameter == "image_size"
    for options in ({"drop": ["b"]}, {"labels": "b"}):
        with pytest.raises(InputError, match=r"column b is .*, so it has no kind") as caught:
            load(tmp_path, text, columns={"b": "real"}, **options)  # type: ignore[arg-type]
        assert caught.value.parameter == "columns"
    assert load(tmp_path, text, columns={"all": "real"}, drop=["b"]).names == ("a",)


def test_long_texts(tmp_path: Path) -> None:
    """They were no categories that a page could show, and took minutes to read."""
    words = ["x" * 5_000_000, *("ab" * (N // 2))]
    with pytest.raises(InputError, match=r"column b of .* text of 5,000,000 .*'xxxxx") as caught:
        load(tmp_path, table([*reals, 1.0], words))
    assert caught.value.parameter == "drop" and len(str(caught.value)) < 300
    words[0] = "x" * 1000
    assert load(tmp_path, table([*reals, 1.0], words)).columns[1].kind == "categories"
    with pytest.raises(
        InputError, match=r"a column of .* has a name of 1,001 characters"
    ) as caught:
        load(tmp_path, table(reals, counts).replace("b", "b" * 1001, 1))
    labelled = load(tmp_path, table([*reals, 1.0], ["y" * 1001, *words[1:]]), labels="b")
    assert labelled.train_labels is None
    assert any("is a text of 1,001 characters" in note for note in labelled.notes)


def test_text_alone_without_names(tmp_path: Path) -> None:
    """As the mushrooms of the UCI repository are written."""
    rows = [[["p", "e"][i % 2], ["x", "b", "s"][i % 3], "nt"[i % 7 > 3]] for i in range(N)]
    text = "\n".join(",".join(row) for row in rows) + "\n"
    loaded = load(tmp_path, text)
    assert loaded.names == ("0", "1", "2")
    assert len(loaded.train) + len(loaded.validation) + len(loaded.test) == N
    assert "its first line has values, so it has no names of columns" in loaded.notes[0]
    assert load(tmp_path, "p,shape,n\n" + text).names == ("p", "shape", "n")
    with pytest.raises(InputError, match=r"column a of t\.csv holds numbers, and text .* 'a'"):
        load(tmp_path, 2 * table(reals, counts))  # two files, one after the other


def test_names_that_repeat_are_numbered(tmp_path: Path) -> None:
    loaded = load(tmp_path, table(reals, reals, counts, names="a, a,b"))
    assert loaded.notes[0] == "t.csv has several columns a: numbered, as in a.1"
    assert len(loaded.names) == 3 and not load(tmp_path, table(reals, counts)).notes


def test_a_column_that_is_called_all(tmp_path: Path) -> None:
    text = table(reals, counts, names="a,all")
    assert load(tmp_path, text).names == ("a", "all")
    with pytest.raises(InputError, match="column called all, which stands for all columns"):
        load(tmp_path, text, columns={"all": "real"})


def test_a_quote_that_is_not_closed(tmp_path: Path) -> None:
    rows = [f"00{i},{i}.5\n" for i in range(40_000)]
    rows[300] = '"5 inch,1.5\n'
    with pytest.raises(InputError, match=r"starting at row 301\): a quote is not closed") as caught:
        load(tmp_path, "a,b\n" + "".join(rows))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("t.csv.gz", "cannot be read: unpack it"),
        ("t.TXT", "cannot be read: if it is a table of text, call it .csv"),
        ("t.xlsx", "cannot be read: save the sheet as .csv"),
        ("gone.txt", "no data set .*gone.txt': choose digits, mnist"),
        ("folder.csv", "there are no pictures in .*folder.csv: put them there"),
    ],
)
def test_other_files_are_refused_with_a_cure(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    for file in ("t.csv.gz", "t.TXT", "t.xlsx"):
        (tmp_path / file).write_text("-")
    with pytest.raises(InputError, match=said):
        data.load(str(tmp_path / name))
