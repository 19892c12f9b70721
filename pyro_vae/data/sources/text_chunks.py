"""A table of text, read in chunks: any number of rows in little memory, with the same values.

What a column is follows from all of its values: it holds text if one of them is text, and numbers
with fractions if one has a fraction. So the file is read twice. The first pass finds the types of
the columns, as pandas would find them from the whole, and the second one reads rows of these types.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.source import ReadOptions
from pyro_vae.data.sources.equal_chunks import equal_chunks, rows_of
from pyro_vae.data.sources.table_files import (
    LAST_ENCODING,
    csv_options,
    find_codes,
    is_nameless,
    named_errors,
    note_blank,
    notes_on_text,
    ragged,
)
from pyro_vae.data.sources.text_format import TextFormat, sniff

BOOLEANS = {"true": True, "false": False}
EMPTY = {"missing"}  # what a column without values holds


@dataclass(frozen=True)
class TextChunks:
    """A table of text whose columns are known.

    Attributes:
        path: the path of the file.
        how: how the file is written.
        types: the type of each column, by the name that pandas gives it: `int64`, `float64`,
            `bool`, `str`, or `booleans` if some of these are missing.
        left_out: the places of columns that are not read.
        has_blank: whether rows without values are left out.
        num_rows: the number of rows.
        notes: sentences about what is not read.
    """

    path: Path
    how: TextFormat
    types: dict[Any, str]
    left_out: frozenset[int]
    has_blank: bool
    num_rows: int
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The names of the columns that are read."""
        return [str(name).strip() for j, name in enumerate(self.types) if j not in self.left_out]

    def frames(self, size: int) -> Iterator[Any]:
        """Yield DataFrames of so many rows, and a last one of fewer."""
        import pandas as pd

        def join(frames: list[Any]) -> Any:
            return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]

        yield from equal_chunks(
            self._blocks(), size, join, lambda frame, start, stop: frame.iloc[start:stop]
        )

    def _blocks(self) -> Iterator[Any]:
        types = {name: "str" if t == "booleans" else t for name, t in self.types.items()}
        kept = [j for j in range(len(types)) if j not in self.left_out]
        for frame in _blocks(self.path, self.how, types):
            if self.has_blank:
                frame = frame[~frame.isna().all(axis=1)]
            frame = frame.iloc[:, kept].reset_index(drop=True)
            for place, j in enumerate(kept):
                type_of_column = list(self.types.values())[j]
                if type_of_column in ("str", "booleans") and not frame.iloc[:, place].isna().all():
                    text = frame.iloc[:, place].str.strip()
                    is_text = type_of_column == "str"
                    frame.isetitem(place, text if is_text else text.str.lower().map(BOOLEANS))
            yield frame.set_axis(self.names, axis=1)


def survey_text(path: Path, options: ReadOptions) -> TextChunks:
    """Read a table of text once, to know its columns and the number of its rows.

    The first columns without a name are left out, unless the options name them: programs write the
    index or the names of the rows there.

    Args:
        path: the path of the file.
        options: what is known about the columns.

    Raises:
        InputError: if there is no such file, or it is no table.
    """
    how = sniff(path)
    try:
        return _survey(path, how, options)
    except UnicodeDecodeError:
        return _survey(path, replace(how, encoding=LAST_ENCODING), options)


def _survey(path: Path, how: TextFormat, options: ReadOptions) -> TextChunks:
    found: list[set[str]] = []
    names: list[Any] = []
    num_rows = num_blank = 0
    for frame in _blocks(path, how):
        names = names or list(frame.columns)
        found = found or [set() for _ in names]
        num_rows += len(frame)
        if frame.iloc[:, 0].isna().any():
            num_blank += int(frame.isna().all(axis=1).sum())
        for place, seen in enumerate(found):
            seen |= _seen(frame.iloc[:, place])
    with named_errors(path, how):
        codes = find_codes(path, how, names, options)
    left_out = set()
    is_short = "missing" in found[-1]  # pandas fills short lines up
    if is_short or how.has_long_lines(path):  # and cuts a long line that is the first of a chunk
        odd = ragged(path, how)
        if odd is not None:
            raise odd
    if is_short:
        left_out = {j for j, name in enumerate(names) if is_nameless(name) and not found[j] - EMPTY}
    has_blank = num_blank > 0 and len(names) - len(left_out) > 1
    notes = notes_on_text(path, how, names, codes, options)
    if has_blank:
        notes.append(note_blank(path, num_blank))
    known = {options.labels, *options.drop, *options.columns}
    left = [j for j in range(len(names)) if j not in left_out]
    while len(left) > 1 and str(names[left[0]]).startswith("Unnamed: 0"):
        if str(names[left[0]]).strip() in known:
            break
        notes.append(f"{path.name}: the first column has no name: left out")
        left_out.add(left.pop(0))
    types = [_type(seen) for seen in found]
    for j in codes:
        types[j] = "str"
    num_rows -= num_blank if has_blank else 0
    return TextChunks(
        path,
        how,
        dict(zip(names, types, strict=True)),
        frozenset(left_out),
        has_blank,
        num_rows,
        tuple(notes),
    )


def _blocks(path: Path, how: TextFormat, types: dict[Any, str] | None = None) -> Iterator[Any]:
    """Yield the lines of a table as DataFrames, as pandas reads them.

    Args:
        path: the path of the file.
        how: how the file is written.
        types: the types of the columns; by default pandas finds those of each DataFrame.
    """
    import pandas as pd

    with named_errors(path, how):
        reader = pd.read_csv(**csv_options(path, how), chunksize=rows_of(how.width), dtype=types)
    with reader:
        while True:
            with named_errors(path, how):
                try:
                    frame = next(reader)
                except StopIteration:
                    return
            yield frame


def _seen(column: Any) -> set[str]:
    """Return what a part of a column holds: numbers, text, .., and whether values are missing."""
    import pandas as pd

    missing = column.isna()
    found = EMPTY if missing.any() else set()
    if missing.all():
        return found
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufb":
        return {column.dtype.name, *found}
    is_boolean = pd.api.types.infer_dtype(column, skipna=True) == "boolean"
    return {"bool" if is_boolean else "str", *found}


def _type(seen: set[str]) -> str:
    """Return the type of a column, from what all its parts hold."""
    kinds = seen - EMPTY
    if kinds == {"bool"}:
        return "booleans" if "missing" in seen else "bool"
    if kinds == {"int64"} and "missing" not in seen:
        return "int64"
    return "str" if kinds & {"bool", "str"} else "float64"
