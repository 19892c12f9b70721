"""Matrices: numbers [N, D] that are of one kind, or a table of columns."""

from dataclasses import replace
from typing import Any

import numpy as np

from pyro_vae.data.number_types import readable
from pyro_vae.data.rows.row_reader import RowReader, SomeColumns
from pyro_vae.data.source import ReadOptions, listed
from pyro_vae.data.understanding.column_kinds import row_numbers, understand_columns
from pyro_vae.data.understanding.given_kinds import ALL, check_names, given_numbers, parse_kind
from pyro_vae.data.understanding.missing_values import note_missing, refuse_infinite
from pyro_vae.data.understanding.odd_columns import refuse_odd
from pyro_vae.data.understanding.parts import Understood
from pyro_vae.data.understanding.rules import infer_matrix
from pyro_vae.data.understanding.storing import stored
from pyro_vae.data.understanding.summaries import Summary, describe_column, summarise
from pyro_vae.errors import InputError

NUMBERS = ("levels", "unit_interval", "real", "positive", "counts")  # kinds without codes


def understand_matrix(
    matrix: Any, options: ReadOptions, where: str, names: tuple[str, ...] = ()
) -> Understood:
    """Return what the numbers [N, D] are: one kind for all columns, or a table of columns.

    Args:
        matrix: an array; a sparse matrix of SciPy, which stays sparse if all columns are of one
            kind; or what reads rows, which are not held in memory if all columns are of one kind,
            or are given as numbers.
        options: what the user says about the data.
        where: the name of the file or object, for messages.
        names: the names of the columns; by default they are 0, 1, ...

    Raises:
        InputError: if the numbers cannot be used.
    """
    if isinstance(matrix, np.ndarray):
        matrix = readable(matrix)
    shown = names or tuple(str(j) for j in range(matrix.shape[1]))
    check_names(options, list(shown), where)
    label_column = None
    if options.drop or options.labels:
        matrix, names, label_column = _columns_taken_away(matrix, options, shown)
        shown = names
    if matrix.shape[1] == 0:
        raise InputError(f"{where} has no columns left: drop fewer", "drop")
    if matrix.shape[0] == 1:
        raise InputError(
            f"{where} has one row, which says nothing about others: give two or more", "name"
        )
    summary = summarise(matrix, by_column=True)
    _refuse_unusable(matrix, summary, options, shown, where)
    notes = []
    empty = summary.num_missing == matrix.shape[0]
    if empty.any():
        left_out = [shown[j] for j in np.flatnonzero(empty)]
        notes.append(f"left out, because they are empty: {listed(left_out)}")
        left = np.flatnonzero(~empty)
        names = shown = tuple(shown[j] for j in left)
        matrix, summary = matrix[:, left], summary.of_columns(left)
    notes += note_missing(summary.num_missing, shown, matrix.shape[0], "")
    understood = None
    if not options.columns:
        understood = understand_whole(matrix, names, where, summary)
    elif set(options.columns) == {ALL}:
        understood = _understand_given(matrix, names, summary, options.columns[ALL])
    if understood is None:
        understood = _understand_columns(matrix, options, where, shown, summary)
    return replace(
        understood,
        label_column=label_column,
        notes=[*notes, *understood.notes],
        has_missing=bool(summary.num_missing.any()),
    )


def _columns_taken_away(
    matrix: Any, options: ReadOptions, names: tuple[str, ...]
) -> tuple[Any, tuple[str, ...], np.ndarray | None]:
    """Return a matrix without the dropped columns and the labels, its names, and the labels."""
    labels = None
    if options.labels:
        labels = matrix[:, names.index(options.labels)]
        labels = labels if isinstance(labels, np.ndarray) else labels.toarray()[:, 0]
    away = {*options.drop, options.labels}
    keep = [j for j, name in enumerate(names) if name not in away]
    matrix = SomeColumns(matrix, keep) if isinstance(matrix, RowReader) else matrix[:, keep]
    return matrix, tuple(names[j] for j in keep), labels


def _refuse_unusable(
    matrix: Any, summary: Summary, options: ReadOptions, names: tuple[str, ...], where: str
) -> None:
    """Refuse infinite values, and missing values where none can be left out.

    Raises:
        InputError: if there are such values.
    """
    refuse_infinite(summary.num_infinite, names, where)
    if int(summary.num_missing.sum()) == matrix.shape[0] * matrix.shape[1]:
        raise InputError(f"{where} has no values: all are missing (NaN)", "name")
    empty = np.flatnonzero(summary.num_missing == matrix.shape[0])
    named = [names[j] for j in empty if names[j] in options.columns]
    if named:
        raise InputError(
            f"column {listed(named)} of {where} has no values: all are missing: drop it", "columns"
        )
    if summary.num_missing.any() and not isinstance(matrix, np.ndarray):
        raise InputError(
            f"{where} has missing values (NaN), and is sparse or larger than memory: give a dense "
            "matrix that fits into memory",
            "name",
        )


def understand_sparse(matrix: Any, options: ReadOptions, where: str) -> Understood:
    """Return what the numbers of a sparse matrix of SciPy are, in the layout CSR.

    Raises:
        InputError: if they are no numbers, or there are none, or they cannot be used.
    """
    if matrix.dtype.kind not in "biuf":
        raise InputError(f"{where} holds {matrix.dtype}: expected numbers", "name")
    if 0 in matrix.shape:
        raise InputError(f"{where} is empty: its shape is {list(matrix.shape)}", "name")
    return understand_matrix(matrix, options, where)


def _understand_columns(
    matrix: Any, options: ReadOptions, where: str, names: tuple[str, ...], summary: Summary
) -> Understood:
    """Return a table of columns. Rows are read into memory if some columns may have codes."""
    kinds = options.columns
    if isinstance(matrix, RowReader):
        given = [kinds.get(name, kinds.get(ALL)) for name in names]
        if all(text is not None and parse_kind(ALL, text)[0] in NUMBERS for text in given):
            unread = dict.fromkeys(names, np.empty(0))  # the summary says all that is needed
            return understand_columns(unread, kinds, where, summary, matrix)
        dense = matrix.read(np.arange(len(matrix)))
        notes = [f"{where} is read whole, since its columns may be of several kinds"]
    else:
        dense = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
        notes = []
    columns = {name: dense[:, j] for j, name in enumerate(names)}
    understood = understand_columns(columns, kinds, where, summary, dense)
    return replace(understood, notes=notes + understood.notes)


def understand_whole(
    matrix: Any, names: tuple[str, ...], where: str, summary: Summary | None = None
) -> Understood | None:
    """Return a matrix of whole numbers as of one kind, or None if it is a table of columns.

    Args:
        matrix: numbers [N, D].
        names: the names of the columns, if they have names.
        where: the name of the file or object, for messages.
        summary: the facts about each column, if they are there already.

    Raises:
        InputError: if a column counts the rows, or each column has one value.
    """
    summary = summarise(matrix, by_column=True) if summary is None else summary
    spec, notes = infer_matrix(summary, str(matrix.dtype), matrix.shape[1])
    if spec is None:
        return None
    odd = []
    for j in np.flatnonzero(summary.high - summary.low == matrix.shape[0] - 1):
        column = matrix[:, j] if isinstance(matrix, np.ndarray) else matrix[:, [j]].toarray()[:, 0]
        ends = float(summary.low[j]), float(summary.high[j])
        odd.append(row_numbers(names[j] if names else str(j), column, *ends))
    refuse_odd([column for column in odd if column], where)
    constant = int((summary.low == summary.high).sum())
    if constant == matrix.shape[1]:
        raise InputError(
            f"each column of {where} has one value in all rows: give other data", "name"
        )
    if constant:
        notes.append(f"{constant:,} of {matrix.shape[1]:,} columns have one value in all rows")
    has_missing = bool(summary.num_missing.any())
    return Understood(stored(matrix, spec, has_missing), (spec,), names, notes)


def _understand_given(
    matrix: Any, names: tuple[str, ...], summary: Summary, text: str
) -> Understood | None:
    """Return a matrix as of the kind that the user gives, or None if its columns differ.

    They differ in their units if they are real, and in their codes if they are categories.
    """
    kind = parse_kind("all", text)[0]
    is_binary = summary.whole.all() and summary.low.min() >= 0 and summary.high.max() <= 1
    if kind not in ("levels", "counts") and not (kind == "binary" and is_binary):
        return None
    ends = summary.ends()  # of the facts about columns, these kinds need the ends alone
    column = describe_column(np.array(ends), matrix.shape[0], *ends, bool(summary.whole.all()))
    spec = replace(given_numbers(ALL, text, column), name="")
    has_missing = bool(summary.num_missing.any())
    return Understood(stored(matrix, spec, has_missing), (spec,), names)
