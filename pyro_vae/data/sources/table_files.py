"""Users' own tables, from text files and Parquet."""

import contextlib
import csv
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.source import ReadOptions, Source, first_line, listed
from pyro_vae.data.sources.text_format import SPACES, TextFormat, sniff
from pyro_vae.data.understanding.data_frames import understand_table
from pyro_vae.data.understanding.given_kinds import ALL, refuse_image_size
from pyro_vae.data.understanding.parts import part_again
from pyro_vae.errors import InputError

LAST_ENCODING = "cp1252"  # of text that is not UTF-8: Windows-1252

MOST_ALIKE = 1000  # columns of one name


def read_text_table(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a `.csv` or `.tsv` file.

    The separator (comma, semicolon, tab, bar, spaces), the decimal point or comma, and whether the
    first line has the columns' names are found from the first lines. It has names if none of its
    fields is a number (but not if the table is text alone, and all of them are values in other
    lines, too), if text stands above numbers in a column, or if it is 0, 1, 2, ... Comments (#)
    before the table are not read.

    Args:
        name: the path of the file.
        root: not used.
        options: what the user says about the data.

    Raises:
        InputError: if there is no such file, or its columns cannot be used.
    """
    refuse_image_size(options, name)
    path = Path(name)
    frame, notes = read_text_frame(path, options)
    missing = ", as empty cells, or as words such as NA, None and null"
    return _source(frame, options, path.name, notes, missing)


def read_text_frame(path: Path, options: ReadOptions) -> tuple[Any, list[str]]:
    """Return a table of text as a DataFrame, without a column that counts its rows, and notes.

    Args:
        path: the path of the file.
        options: what the user says about the data.

    Raises:
        InputError: if there is no such file, or it is no table.
    """
    import pandas as pd

    frame, notes = _read(path, sniff(path), options)
    while _is_index(frame) and frame.columns[0] not in (
        options.labels,
        *options.drop,
        *options.columns,
    ):
        index = frame.pop(frame.columns[0])
        counts = pd.api.types.is_integer_dtype(index) and index.max() - index.min() < len(index)
        what = "counts the rows" if counts else "differs in all rows"
        notes.append(f"{path.name}: the first column has no name and {what}: left out")
    return frame, notes


def read_parquet(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a `.parquet` file.

    Args:
        name: the path of the file.
        root: not used.
        options: what the user says about the data.

    Raises:
        InputError: if there is no such file, or its columns cannot be used.
    """
    refuse_image_size(options, name)
    path = Path(name)
    return _source(read_parquet_frame(path), options, path.name, [])


def read_parquet_frame(path: Path) -> Any:
    """Return a `.parquet` file as a DataFrame.

    Raises:
        InputError: if there is no such file, or it cannot be read.
    """
    import pandas as pd

    with named_parquet_errors(path):
        return pd.read_parquet(path)


@contextlib.contextmanager
def named_parquet_errors(path: Path) -> Iterator[None]:
    """Let errors of Arrow say what is wrong with a Parquet file."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}", "name") from error
    except ImportError as error:
        raise InputError(
            f"{path.name} cannot be read without pyarrow: install it (pip install pyarrow), or "
            "save the table as .csv",
            "name",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # Arrow's readers raise many types of errors
        raise InputError(
            f"{path.name} is not a Parquet file ({first_line(error)})", "name"
        ) from error


def _is_free(name: str, options: ReadOptions) -> bool:
    """Return whether the kind that the user gives to a column, if any, leaves it text."""
    kind = options.columns.get(name, options.columns.get(ALL, "categories"))
    return kind.strip().startswith(("categories", "ordered", "binary"))


def csv_options(path: Path, how: TextFormat) -> dict[str, Any]:
    """Return what pandas is told to read a table of text."""
    return {
        "filepath_or_buffer": path,
        "sep": r"\s+" if how.separator == SPACES else how.separator,
        "skiprows": how.skipped,
        "decimal": how.decimal,
        "encoding": how.encoding,
        "header": 0 if how.has_header else None,
        "index_col": False,
        "skipinitialspace": True,
        "low_memory": False,
        "float_precision": "round_trip",  # the digits that repr wrote are the same number
    }


@contextlib.contextmanager
def named_errors(path: Path, how: TextFormat) -> Iterator[None]:
    """Let errors of pandas say what is wrong with a table of text.

    `UnicodeDecodeError` comes through if another encoding may be right.

    Args:
        path: the path of the file.
        how: how the file is written.
    """
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            warnings.filterwarnings("ignore", ".*float_precision.* is deprecated")  # pandas 3.1
            yield
    except UnicodeDecodeError as error:  # it is found late in the file
        if how.encoding == LAST_ENCODING:
            raise _no_table(path, error) from error
        raise
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path.name} is empty: it has no rows", "name") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise ragged(path, how) or _no_table(path, error) from error
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise _no_table(path, error) from error


def find_codes(
    path: Path, how: TextFormat, names: Sequence[Any], options: ReadOptions
) -> list[int]:
    """Return the columns with leading zeros that are text; see `TextFormat.find_codes`.

    Args:
        path: the path of the file.
        how: how the file is written.
        names: the names of the columns, as pandas reads them.
        options: what the user says about the data.
    """
    return [j for j in how.find_codes(path) if _is_free(str(names[j]).strip(), options)]


def _check_names(path: Path, how: TextFormat) -> None:
    """Refuse many columns of one name: pandas takes minutes to number them.

    Raises:
        InputError: if there are more than `MOST_ALIKE`.
    """
    if how.has_header:
        counts = Counter(field.strip() for field in next(how.rows(path))[1])
        name, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
        if count > MOST_ALIKE:
            raise InputError(
                f"{path.name} has {count} columns {name}: give each its own name", "name"
            )


def _read(path: Path, how: TextFormat, options: ReadOptions) -> tuple[Any, list[str]]:
    """Return the table as a DataFrame, and notes."""
    import pandas as pd

    try:
        with named_errors(path, how):
            _check_names(path, how)
            frame = pd.read_csv(**csv_options(path, how))
            codes = find_codes(path, how, frame.columns, options)
            if codes:
                text = pd.read_csv(**csv_options(path, how), usecols=codes, dtype=str)
                for place, j in enumerate(codes):
                    frame.isetitem(j, text.iloc[:, place])
    except UnicodeDecodeError:
        return _read(path, replace(how, encoding=LAST_ENCODING), options)
    return _tidied(frame, path, how, notes_on_text(path, how, frame.columns, codes, options))


def notes_on_text(
    path: Path, how: TextFormat, columns: Sequence[Any], codes: list[int], options: ReadOptions
) -> list[str]:
    """Return sentences about how a table of text is read.

    Args:
        path: the path of the file.
        how: how the file is written.
        columns: the names of the columns, as pandas reads them.
        codes: the columns that are text because of leading zeros.
        options: what the user says about the data.
    """
    notes = []
    names = [str(columns[j]).strip() for j in codes]
    unasked = [name for name in names if name not in options.columns]
    if unasked and ALL not in options.columns:
        notes.append(
            f"{path.name}: numbers with leading zeros in {listed(unasked)}: taken as text; to "
            "have numbers, give the kind of the column"
        )
    if how.skipped:
        notes.append(f"{path.name}: {how.skipped} lines before the table are not read")
    if not how.has_header:
        last = len(columns) - 1
        numbered = f"0 {'to' if last > 1 else 'and'} {last}" if last else "0"
        notes.append(
            f"{path.name}: its first line has values, so it has no names of columns: they are "
            f"called {numbered}"
        )
    else:
        first = [field.strip() for field in next(how.rows(path))[1]]
        counts = Counter(field for field in first if field)
        repeated = sorted(field for field, count in counts.items() if count > 1)
        if repeated:
            notes.append(
                f"{path.name} has several columns {listed(repeated)}: numbered, as in "
                f"{repeated[0]}.1"
            )
    if how.encoding == LAST_ENCODING:
        notes.append(f"{path.name}: the text is not UTF-8: read as Windows-1252")
    return notes


def note_blank(path: Path, count: int) -> str:
    """Return a sentence about rows without values."""
    rows = "row is" if count == 1 else "rows are"
    return f"{path.name}: {count:,} {rows} empty: left out"


def is_nameless(name: Any) -> bool:
    """Return whether a column has no name in the file, by the name that pandas gives it."""
    return str(name).startswith("Unnamed: ")


def _tidied(frame: Any, path: Path, how: TextFormat, notes: list[str]) -> tuple[Any, list[str]]:
    """Return a table without what programs write beside it, and notes.

    Args:
        frame: the table as pandas reads it.
        path: the path of the file.
        how: how the file is written.
        notes: the notes so far.

    Raises:
        InputError: if some lines have fewer fields than others.
    """
    import pandas as pd

    if len(frame) and frame.iloc[:, -1].isna().any():  # pandas fills short lines up
        short = ragged(path, how)
        if short is not None:
            raise short
        nameless = [is_nameless(column) for column in frame.columns]
        frame = frame.loc[:, ~(np.array(nameless) & frame.isna().all().to_numpy())].copy()
    if frame.shape[1] > 1 and frame.iloc[:, 0].isna().any():
        blank = frame.isna().all(axis=1)  # lines of separators alone, as Excel writes them
        if blank.any():
            frame = frame[~blank].reset_index(drop=True)
            notes.append(note_blank(path, int(blank.sum())))
    for column in frame.columns:
        if pd.api.types.infer_dtype(frame[column], skipna=True) == "string":
            frame[column] = frame[column].str.strip()
    frame.columns = [str(column).strip() for column in frame.columns]
    return frame, notes


def ragged(path: Path, how: TextFormat) -> InputError | None:
    """Return the error of a file whose lines differ in their number of fields, if they do."""
    names = {"\t": "tabs", SPACES: "spaces"}
    separator = names.get(how.separator, f"'{how.separator}'")
    first, num_lines, num_odd, widths = (0, 0), 0, 0, set()
    try:
        for number, fields in how.rows(path):
            num_lines += 1
            if len(fields) != how.width:
                first = first if num_odd else (number, len(fields))
                num_odd += 1
                widths.add(len(fields))
    except csv.Error:  # a field that does not end
        return None
    if not num_odd:
        return None
    cure = "give all lines the same number of fields"
    if how.width == 1:
        cure = "remove the lines before the table, or give all lines the same number of fields"
    elif num_odd == num_lines - 1 > 1 and widths == {how.width + 1}:
        cure = "the first column has no name, as R writes names of rows: give it one"
    return InputError(
        f"{path.name}: line {first[0]} has {first[1]} fields, and the first line has {how.width} "
        f"(separated by {separator}): {cure}",
        "name",
    )


def _no_table(path: Path, error: Exception) -> InputError:
    quotes = ": a quote is not closed: close it, or write it twice within quotes"
    cure = quotes if "inside string" in str(error) else ""
    return InputError(f"{path.name} is not a table of text ({first_line(error)}){cure}", "name")


def _is_index(frame: Any) -> bool:
    """Return whether the first column has no name, and identifies the rows.

    Programs write the index or the names of the rows so: whole numbers or strings, all different.
    """
    if not str(frame.columns[0]).startswith("Unnamed: 0") or len(frame) < 2:
        return False
    return frame.shape[1] > 1 and frame.dtypes.iloc[0].kind in "iuO" and frame.iloc[:, 0].is_unique


def _source(
    frame: Any, options: ReadOptions, where: str, notes: list[str], missing: str = ""
) -> Source:
    understood = understand_table(frame, options, where, missing)
    source = part_again(understood, {"train": len(frame)}, {}, f"the labels of {where}")
    return replace(source, notes=(*notes, *source.notes))
