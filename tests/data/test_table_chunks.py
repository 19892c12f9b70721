"""Tables that are read in chunks have the values that they have when they are read as a whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyro_vae import InputError
from pyro_vae.data.plain_rows import open_rows
from pyro_vae.data.source import ReadOptions
from pyro_vae.data.sources import equal_chunks, text_format
from pyro_vae.data.sources.parquet_chunks import ParquetChunks
from pyro_vae.data.sources.table_files import read_parquet_frame, read_text_frame
from pyro_vae.data.sources.text_chunks import survey_text
from pyro_vae.data.understanding.data_frames import read_column

draw = np.random.default_rng(0)


@pytest.fixture(autouse=True, params=[3, 64])
def _block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equal_chunks, "ROWS", request.param)


def values(column: Any) -> list[Any]:
    """Return numbers as floats, strings, and None where a value is missing."""
    found = read_column(column, "a", "the table")
    if isinstance(found, np.ndarray):
        return [None if np.isnan(value) else value for value in found.astype(float).tolist()]
    words = [0.0, 1.0] if found.is_binary else found.categories
    return [None if code < 0 else words[code] for code in found.codes]


def same(frames: list[Any], whole: Any, size: int) -> None:
    """Check that chunks have the rows, the columns and the values of a whole table."""
    sizes = [len(frame) for frame in frames]
    assert sizes[:-1] == [size] * (len(sizes) - 1) and sum(sizes) == len(whole)
    for frame in frames:
        assert list(frame.columns) == list(whole.columns)
    for name in whole.columns:
        found = [value for frame in frames for value in values(frame[name])]
        assert found == values(whole[name]), name


def lines(header: str, *rows: str, times: int = 4) -> str:
    return "\n".join([header, *rows * times]) + "\n"


TABLES = {
    "whole numbers, then real ones": "a,b\n" + "1,2\n" * 9 + "1.5,2\n" * 9,
    "numbers, then text": "a,b\n" + "1.0,2\n" * 9 + "x,2\n" * 9,
    "text, then numbers": "a,b\n" + "x,2\n" * 9 + "1.0,2\n" * 9,
    "digits that are all of a chunk": lines("a,b", "1,x", "2,1", "3,2", "4,3", "5,4"),
    "leading zeros late": "a,b\n" + "12,3\n" * 9 + "007,4\n" * 3,
    "leading zeros beside fractions": "a,b\n" + "007,3\n" * 9 + "1.5,4\n" * 3,
    "missing values": lines("a,b,c", "1,x,", ",NA,2.5", "3,,null", "NA,y,7"),
    "a column that is missing for long": "a,b\n" + ",1\n" * 12 + "x,1\n2,1\n",
    "an empty column": lines("a,b", ",1", ",2"),
    "an index": pd.DataFrame({"a": range(20), "b": 0.5}).to_csv(),
    "names of rows, as R writes them": '"","a","b"\n'
    + "".join(f'"r{i}",{i},{i / 4}\n' for i in range(20)),
    "decimal commas": "a;b\n" + "1;2,5\n" * 9 + "1,25;3\n" * 9,
    "spaces": lines("a  b", "1   x", "2.5  y"),
    "spaces beside values": lines("a , b", "1.5 , x ", "2, y"),
    "spaces in quotes": lines("a b c", '1 2.5 "x y"', "2 3 x", "3 4 y", "4 5 z"),
    "booleans": lines("a,b", "True,1", "FALSE,2", "true,3"),
    "missing booleans": "a,b\n" + "True,1\n" * 9 + ",2\nFalse,3\nTRUE,4\n",
    "booleans among numbers": "a,b\n" + "True,1\n" * 9 + "0,1\n" * 9,
    "blank rows": "a,b\n" + "1,2\n" * 4 + ",\n" * 5 + "3,4\n" * 4,
    "lines that end with a separator": lines("a,b,", "1,2,", "3,,"),
    "comments": "# by x\n\n" + lines("a,b", "1,2"),
    "no names": lines("1,2.5", "3,4.5"),
    "names that repeat": lines("a,a,a.1", "1,x,2.5", "2,y,3"),
    "large numbers": lines("a,b", f"{2**60},1", f"{2**60 + 999},2.5", f"{2**63 + 9},2"),
    "digits of doubles": "a\n" + "".join(f"{value!r}\n" for value in draw.normal(size=30)),
    "quoted line ends": lines("a,b", '"x\ny",1', '"z ""q""",2'),
    "Windows": lines("a,b", "1,x", "2,y").replace("\n", "\r\n"),
    "one row": "a,b\n1,x\n",
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_text_in_chunks_is_the_whole(name: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(TABLES[name].encode(encoding))
    whole, notes = read_text_frame(path, ReadOptions())
    chunks = survey_text(path, ReadOptions())
    assert chunks.num_rows == len(whole) and chunks.names == list(whole.columns)
    for size in (4, 7, 100):
        same(list(chunks.frames(size)), whole, size)
    assert [note.replace(" and counts the rows", "").replace(" and differs in all rows", "")
            for note in notes] == list(chunks.notes)  # fmt: skip


def test_what_options_say_holds_for_all_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",code,b\n" + "".join(f"{i},00{i},2\n" for i in range(20)))
    for options in (
        ReadOptions({"code": "counts"}),
        ReadOptions({"code": "categories", "Unnamed: 0": "real"}),
        ReadOptions(drop=("Unnamed: 0",)),
    ):
        whole, _ = read_text_frame(path, options)
        same(list(survey_text(path, options).frames(7)), whole, 7)


def test_letters_of_another_encoding_may_come_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    monkeypatch.setattr(equal_chunks, "ROWS", 10_000)
    path.write_bytes(("a,b\n" + "1.5,x\n2.5,y\n" * 9000 + "1.0,é\n").encode("cp1252"))
    chunks = survey_text(path, ReadOptions())
    assert list(chunks.frames(20_000))[-1]["b"].iloc[-1] == "é"
    assert chunks.notes == ("a.csv: the text is not UTF-8: read as Windows-1252",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "a,b\n" + "1.5,x\n" * 30 + "1.5,x,y\n",
        "a,b,c\n" + "1.5,x,y\n" * 9 + "1.5,x\n",
        "a,b\n" + "1.5,x,7\n" * 30,
        "a b\n" + "1.5 2\n" * 30 + "1.5 2 7\n",
        "a,b\n" + "3,4\n" * 9 + '1,"x\n',
        b"a,b\n" + b"1,2\n" * 99 + b"\x81,\xe9\n",
    ],
)
def test_what_is_wrong_is_the_same(
    text: str | bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if isinstance(text, bytes):
        monkeypatch.setattr(text_format, "SNIFFED", 99)
    with pytest.raises(InputError) as expected:
        read_text_frame(path, ReadOptions())
    with pytest.raises(InputError) as found:
        survey_text(path, ReadOptions())
    assert str(found.value) == str(expected.value) and "\n" not in str(found.value)


def test_parquet_in_chunks_is_the_whole(tmp_path: Path) -> None:
    rows = 23
    frame = pd.DataFrame(
        {
            "whole": np.arange(rows),
            "holes": pd.array([None if i > 9 else i for i in range(rows)], "Int64"),
            "real": draw.normal(size=rows),
            "flag": [None if i % 7 == 0 and i > 9 else i % 2 == 0 for i in range(rows)],
            "city": pd.Categorical(draw.choice(["Rome", "Oslo"], rows)),
            "word": ["x" if i < 9 else None for i in range(rows)],
        },
        index=pd.Index([f"r{i}" for i in range(rows)], name="id"),
    )
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=5)
    (tmp_path / "b.parquet").mkdir()
    for part, rows_of in ((0, frame[:10]), (1, frame[10:])):
        rows_of.to_parquet(tmp_path / f"b.parquet/part{part}.parquet")
    for name in ("a.parquet", "b.parquet"):
        chunks = ParquetChunks(tmp_path / name)
        assert chunks.num_rows == rows
        for size in (4, 7, 100):
            same(list(chunks.frames(size)), read_parquet_frame(tmp_path / name), size)


def test_parquet_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        ParquetChunks(tmp_path / "none.parquet")
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(InputError, match=r"a\.parquet is not a Parquet file"):
        ParquetChunks(tmp_path / "a.parquet")


def test_chunks_begin_anywhere_and_have_their_labels(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(20.0), "y": np.arange(20) % 3})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", frame.to_numpy())
    for suffix in ("csv", "parquet", "npy"):
        rows = open_rows(str(tmp_path / f"a.{suffix}"), options=ReadOptions(labels="y"))
        (x, y), (last, _) = rows.chunks(8, first=1)
        np.testing.assert_array_equal(np.asarray(x), frame[8:16])
        assert len(rows) == 20 and len(last) == 4
        if suffix != "npy":
            np.testing.assert_array_equal(y, frame["y"][8:16])
