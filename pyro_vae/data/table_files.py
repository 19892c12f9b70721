"""Users' own tables, from text files and Parquet."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyro_vae.data.parts import part_again
from pyro_vae.data.source import ReadOptions, Source, first_line
from pyro_vae.data.tables import understand_table
from pyro_vae.data.text_format import SPACES, TextFormat, sniff
from pyro_vae.errors import InputError


def read_text_table(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a `.csv` or `.tsv` file.

    The separator (comma, semicolon, tab, bar, spaces), the decimal point or comma, and whether the
    first line has the columns' names are found from the first lines. It has names if none of its
    fields is a number, if text stands above numbers in a column, or if it is 0, 1, 2, ... Comments
    (#) before the table are not read.

    Args:
        name: the path of the file.
        root: not used.
        options: what the user says about the data.

    Raises:
        InputError: if there is no such file, or its columns cannot be used.
    """
    path = Path(name)
    how = sniff(path)
    frame, notes = _read(path, how)
    unnamed = [column for column in frame.columns if _is_pandas_index(frame, column)]
    if unnamed and unnamed[0] not in (options.labels, *options.drop, *options.columns):
        frame = frame.drop(columns=unnamed)
        notes.append(f"{path.name}: the first column has no name and counts the rows: left out")
    return _source(frame, options, path.name, notes)


def read_parquet(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a `.parquet` file.

    Args:
        name: the path of the file.
        root: not used.
        options: what the user says about the data.

    Raises:
        InputError: if there is no such file, or its columns cannot be used.
    """
    import pandas as pd

    path = Path(name)
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}", "name") from error
    except ImportError as error:
        raise InputError(
            f"{path.name} cannot be read without pyarrow: install it (pip install pyarrow), or "
            "save the table as .csv",
            "name",
        ) from error
    except Exception as error:  # Arrow's readers raise many types of errors
        raise InputError(
            f"{path.name} is not a Parquet file ({first_line(error)})", "name"
        ) from error
    return _source(frame, options, path.name, [])


def _read(path: Path, how: TextFormat) -> tuple[Any, list[str]]:
    """Return the table as a DataFrame, and notes."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            warnings.filterwarnings("ignore", ".*float_precision.* is deprecated")  # pandas 3.1
            frame = pd.read_csv(
                path,
                sep=r"\s+" if how.separator == SPACES else how.separator,
                skiprows=how.skipped,
                decimal=how.decimal,
                encoding=how.encoding,
                header=0 if how.has_header else None,
                index_col=False,
                skipinitialspace=True,
                low_memory=False,
                float_precision="round_trip",  # the digits that repr wrote are the same number
            )
    except UnicodeDecodeError:  # it is found late in the file
        return _read(path, replace(how, encoding="cp1252"))
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path.name} is empty: it has no rows", "name") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise _ragged(path, how) or _no_table(path, error) from error
    except (OSError, ValueError) as error:
        raise _no_table(path, error) from error
    notes = []
    if how.skipped:
        notes.append(f"{path.name}: {how.skipped} lines before the table are not read")
    if not how.has_header:
        frame.columns = [str(j) for j in range(frame.shape[1])]
        notes.append(
            f"{path.name}: its first line has numbers, so it has no names of columns: they are "
            f"called 0 to {frame.shape[1] - 1}"
        )
    if how.encoding == "cp1252":
        notes.append(f"{path.name}: the text is not UTF-8: read as Windows-1252")
    if len(frame) and frame.iloc[:, -1].isna().any():  # pandas fills short lines up
        short = _ragged(path, how)
        if short is not None:
            raise short
        if str(frame.columns[-1]).startswith("Unnamed: ") and frame.iloc[:, -1].isna().all():
            frame = frame.iloc[:, :-1].copy()  # its lines end with a separator
    for column in frame.columns:
        if pd.api.types.infer_dtype(frame[column], skipna=True) == "string":
            frame[column] = frame[column].str.strip()
    frame.columns = [str(column).strip() for column in frame.columns]
    return frame, notes


def _ragged(path: Path, how: TextFormat) -> InputError | None:
    """Return the error of a file whose lines differ in their number of fields, if they do."""
    for number, fields in how.rows(path):
        if len(fields) != how.width:
            names = {"\t": "tabs", SPACES: "spaces"}
            separator = names.get(how.separator, f"'{how.separator}'")
            return InputError(
                f"{path.name}: line {number} has {len(fields)} fields, and the first line has "
                f"{how.width} (separated by {separator}): give all lines the same number of fields",
                "name",
            )
    return None


def _no_table(path: Path, error: Exception) -> InputError:
    return InputError(f"{path.name} is not a table of text ({first_line(error)})", "name")


def _is_pandas_index(frame: Any, column: str) -> bool:
    """Return whether a column is the index that pandas writes first, without a name."""
    if column != frame.columns[0] or not str(column).startswith("Unnamed: 0") or not len(frame):
        return False
    values = frame[column].to_numpy()
    return values.dtype.kind == "i" and bool((values == range(len(values))).all())


def _source(frame: Any, options: ReadOptions, where: str, notes: list[str]) -> Source:
    understood = understand_table(frame, options, where)
    source = part_again(understood, {"train": len(frame)}, {}, f"the labels of {where}")
    return replace(source, notes=(*notes, *source.notes))
