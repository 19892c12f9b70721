"""DataFrames: what pandas holds, as columns of numbers or strings."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from pyro_vae.data.source import ReadOptions, listed
from pyro_vae.data.understanding.column_kinds import Words, understand_columns
from pyro_vae.data.understanding.given_kinds import check_names
from pyro_vae.data.understanding.matrices import understand_whole
from pyro_vae.data.understanding.missing_values import note_missing, refuse_infinite
from pyro_vae.data.understanding.parts import Understood
from pyro_vae.data.understanding.rules import WIDE
from pyro_vae.errors import InputError


def understand_table(frame: Any, options: ReadOptions, where: str, missing: str = "") -> Understood:
    """Return what the columns of a DataFrame are, and their values as `float64` [N, D].

    Args:
        frame: the DataFrame.
        options: what the user says about the data.
        where: the name of the file or object, for messages.
        missing: how missing values are written, for messages.

    Raises:
        InputError: if a column cannot be used.
    """
    frame = frame.set_axis([column_name(name) for name in frame.columns], axis=1)
    names = list(frame.columns)
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise InputError(f"{where} has several columns {listed(repeated)}: rename them", "name")
    check_names(options, names, where)
    if len(frame) == 0:
        raise InputError(f"{where} is empty: it has columns and no rows", "name")
    labels = None if options.labels is None else frame[options.labels].to_numpy()
    away = {*options.drop, options.labels}
    left = [name for name in names if name not in away]
    empty = [name for name in left if name not in options.columns and frame[name].isna().all()]
    columns = {name: read_column(frame[name], name, where) for name in left if name not in empty}
    if not columns:
        raise InputError(f"{where} has no columns left: drop fewer", "drop")
    if len(frame) == 1:
        raise InputError(
            f"{where} has one row, which says nothing about others: give two or more", "name"
        )
    holes = {
        name: column.codes < 0 if isinstance(column, Words) else np.isnan(column)
        for name, column in columns.items()
    }
    counts = np.array([hole.sum() for hole in holes.values()])
    infinite = [
        0 if isinstance(column, Words) else np.isinf(column).sum() for column in columns.values()
    ]
    refuse_infinite(np.array(infinite), tuple(columns), where)
    arrays = {name: array for name, array in columns.items() if isinstance(array, np.ndarray)}
    understood = None
    if len(arrays) == len(columns) >= WIDE and not options.columns:
        matrix = np.column_stack(list(arrays.values()))
        understood = understand_whole(matrix, tuple(columns), where)
    if understood is None:
        understood = understand_columns(columns, options.columns, where)
    notes = [f"left out, because they are empty: {listed(empty)}"] if empty else []
    notes += note_missing(counts, tuple(columns), len(frame), missing)
    return replace(
        understood,
        label_column=labels,
        notes=[*notes, *understood.notes],
        has_missing=bool(counts.any()),
    )


def read_column(series: Any, name: str, where: str) -> np.ndarray | Words:
    """Return a column of a DataFrame; missing numbers are NaN, missing strings have the code -1.

    Raises:
        InputError: if it holds neither numbers nor strings.
    """
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        series = series.cat.remove_unused_categories()
        words = [str(category) for category in series.cat.categories]
        return Words(words, series.cat.codes.to_numpy(np.int64), bool(series.cat.ordered))
    inferred = pd.api.types.infer_dtype(series, skipna=True)
    if inferred in ("string", "empty"):
        codes, categories = pd.factorize(series, sort=True)
        return Words([str(category) for category in categories], codes.astype(np.int64))
    if inferred in ("boolean", "integer", "floating", "mixed-integer-float", "decimal"):
        if dtype.kind in "biuf" and isinstance(dtype, np.dtype):
            return series.to_numpy()
        if inferred == "boolean" and not series.isna().any():
            return series.to_numpy(bool)
        if inferred == "boolean" and series.nunique() == 2:
            codes = series.astype(object).map({False: 0, True: 1}).fillna(-1)
            return Words(["False", "True"], codes.to_numpy(np.int64), is_binary=True)
        if inferred == "integer" and not series.isna().any() and abs(series).max() < 2**63:
            return series.to_numpy(np.int64)  # all digits are kept
        return series.astype(object).where(series.notna(), np.nan).to_numpy(np.float64)
    if any(word in inferred for word in ("date", "time", "period", "interval")):
        raise InputError(
            f"column {name} of {where} holds dates or times ({dtype}): drop it, or replace it by "
            "numbers, such as the days since the first one",
            "drop",
        )
    what = "numbers beside text" if inferred == "mixed-integer" else f"values of type {inferred}"
    if inferred == "mixed":
        found = {type(value).__name__ for value in series.dropna().iloc[:1000]}
        what = f"values of type {listed(sorted(found))}"
        if found <= {"list", "tuple", "ndarray"}:
            what += ", several numbers in a cell"
            raise InputError(
                f"column {name} of {where} holds {what}: give each number a column of its own, "
                "save them as an array [N, D], or drop the column",
                "drop",
            )
    raise InputError(
        f"column {name} of {where} holds {what}: give numbers or text alone, or drop it", "drop"
    )


def column_name(name: Any) -> str:
    """Return the name of a column of a DataFrame, which may have several parts, in one line."""
    parts = name if isinstance(name, tuple) else (name,)
    return " ".join(" ".join(str(part) for part in parts).split())
