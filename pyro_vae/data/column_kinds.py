"""Columns, each of its own kind: numbers or strings, in; codes and their meaning, out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pyro_vae.data.given_kinds import ALL, given_numbers, given_strings, number_texts, parse_kind
from pyro_vae.data.parts import Understood
from pyro_vae.data.row_reader import RowReader, SomeColumns
from pyro_vae.data.rows import Rows
from pyro_vae.data.rules import has_atom, infer_column, note_atoms
from pyro_vae.data.source import ColumnSpec, listed
from pyro_vae.data.summaries import (
    Column,
    Counted,
    Summary,
    count_distinct,
    describe_column,
    sample_rows,
    summarise,
)
from pyro_vae.errors import InputError

DATES = re.compile(
    r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
    r"|\d{1,2}[ -][A-Za-z]{3,9}[ ,-]*\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4})([T ,].*)?"
    r"|\s*\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*"
)
NUMBERS = re.compile(r"\s*[-+$€£]?\s*\d[\d.,' ]*([eE][-+]?\d+)?\s*[%€]?\s*")
ONE_VALUE = ("binary", "levels", "counts")  # kinds that a constant column can be of
EARLIEST, LATEST = 1900_01_01, 2100_12_31  # dates that are written as whole numbers
LARGEST_WHOLE = 2**53  # up to which double precision has all whole numbers
MOSTLY = 0.8  # the share of distinct strings by which a column is known
SHORTEST = 20  # rows of a table in which row numbers and identifiers are looked for


@dataclass(frozen=True)
class Words:
    """A column of strings.

    Attributes:
        categories: the distinct strings, sorted, or in the order that pandas has for them.
        codes: their numbers, shape [N]; -1 stands for a missing value.
        is_ordered: whether pandas calls the column ordered.
    """

    categories: list[str]
    codes: np.ndarray
    is_ordered: bool = False


@dataclass(frozen=True)
class _Facts:
    """What is known about the columns of numbers [N, D]."""

    num_rows: int
    summary: Summary
    sample: np.ndarray
    counted: list[Counted]

    @staticmethod
    def of(matrix: np.ndarray | RowReader, summary: Summary | None = None) -> "_Facts":
        sample = sample_rows(matrix)
        summary = summarise(matrix, by_column=True) if summary is None else summary
        return _Facts(len(matrix), summary, sample, count_distinct(matrix, sample))

    def describe(self, at: int) -> Column:
        own = self.summary
        ends = float(own.low[at]), float(own.high[at])
        whole = bool(own.whole[at])
        return describe_column(self.sample[:, at], self.num_rows, *ends, whole, self.counted[at])


def understand_columns(
    columns: Mapping[str, np.ndarray | Words],
    kinds: dict[str, str],
    where: str,
    summary: Summary | None = None,
    matrix: np.ndarray | RowReader | None = None,
) -> Understood:
    """Return what columns are, and their values as `float64` [N, D].

    Args:
        columns: numbers or strings [N], by the column's name, in the columns' order.
        kinds: the kinds that the user gives, by the column's name.
        where: the name of the file or object, for messages.
        summary: the facts about the columns, if they are all numbers.
        matrix: the same numbers as an array [N, D]. They are shared if they are floats and each
            column is stored as it is. If it is what reads rows, the kinds of all columns are given
            and have no codes, and `columns` has the names alone.

    Raises:
        InputError: if the values of a column are not of the kind that is given, or strings look
            like dates, identifiers or numbers.
    """
    specs: list[ColumnSpec] = []
    values: list[np.ndarray] = []
    notes: list[str] = []
    constant: list[str] = []
    atoms: dict[str, Column] = {}
    facts = None if matrix is None or summary is None else _Facts.of(matrix, summary)
    for j, (name, column) in enumerate(columns.items()):
        given = kinds.get(name, kinds.get(ALL))
        if isinstance(column, Words):
            if len(column.categories) == 1:
                constant.append(name)
                continue
            spec, codes = _understand_words(name, column, given, where)
        else:
            own, at = (_Facts.of(column[:, None]), 0) if facts is None else (facts, j)
            about = own.describe(at)
            if about.low == about.high and (
                given is None or parse_kind(name, given)[0] not in ONE_VALUE
            ):
                constant.append(name)
                continue
            spec, codes = _understand_numbers(name, column, about, given, where)
            if has_atom(about, spec.kind):
                atoms[name] = about
        specs.append(spec)
        values.append(codes)
    named = [name for name in constant if name in kinds]
    if named:
        raise InputError(
            f"column {listed(named)} of {where} has one value in all rows, which tells nothing "
            "about them: drop it",
            "columns",
        )
    if constant:
        notes.append(f"left out, because they have one value in all rows: {listed(constant)}")
    notes += note_atoms(atoms)
    if not specs:
        raise InputError(
            f"each column of {where} has one value in all rows: give other data", "name"
        )
    names = tuple(spec.name for spec in specs)
    if isinstance(matrix, RowReader):
        kept = [j for j, name in enumerate(columns) if name in names]
        is_shared = matrix.dtype.kind == "f" and len(kept) == len(columns)
        rows = SomeColumns(matrix, kept).stored_as(matrix.dtype if is_shared else np.dtype("f8"))
        return Understood(Rows(rows), tuple(specs), names, notes)
    if matrix is not None and matrix.dtype.kind == "f" and matrix.shape[1] == len(specs):
        if not any(spec.categories for spec in specs):
            shared = matrix if matrix.flags.writeable else matrix.copy()
            return Understood(torch.from_numpy(shared), tuple(specs), names, notes)
    examples = np.empty((len(values[0]), len(values)))
    for j, column_values in enumerate(values):
        examples[:, j] = column_values
    return Understood(torch.from_numpy(examples), tuple(specs), names, notes)


def _understand_numbers(
    name: str,
    column: np.ndarray,
    about: Column,
    given: str | None,
    where: str,
) -> tuple[ColumnSpec, np.ndarray]:
    """Return what a column of numbers is, and its values or codes."""
    if given is not None:
        spec = given_numbers(name, given, about)
    else:
        _refuse_odd_numbers(name, column, about, where)
        kind = infer_column(about)
        if kind == "ordered" and about.distinct is not None:
            spec = ColumnSpec(name, kind, tuple(number_texts(about.distinct)))
        elif kind == "binary":
            words = ("False", "True") if column.dtype == np.bool_ else ()
            return ColumnSpec(name, kind, words, levels=2), column
        else:
            spec = ColumnSpec(name, kind)
    if not spec.categories:
        return spec, column
    assert about.distinct is not None  # otherwise there were no categories
    codes = [spec.categories.index(text) for text in number_texts(about.distinct)]
    return spec, np.array(codes)[np.searchsorted(about.distinct, column)]


def _understand_words(
    name: str, column: Words, given: str | None, where: str
) -> tuple[ColumnSpec, np.ndarray]:
    """Return what a column of strings is, and its codes."""
    if given is None:
        _refuse_odd_words(name, column, where)
        kind = "ordered" if column.is_ordered else "categories"
        return ColumnSpec(name, kind, tuple(column.categories)), column.codes  # type: ignore[arg-type]
    spec = given_strings(name, given, column.categories)
    order = [spec.categories.index(category) for category in column.categories]
    return spec, np.array(order)[column.codes]


def _refuse_odd_numbers(name: str, column: np.ndarray, about: Column, where: str) -> None:
    """Refuse a column that counts the rows, of dates, or of numbers that are too large."""
    num_rows = len(column)
    if not about.whole:
        return
    if column.dtype.kind in "iu" and max(-about.low, about.high) > LARGEST_WHOLE:
        raise InputError(
            f"column {name} of {where} has whole numbers up to {about.high:.0f}, of which double "
            "precision does not keep all digits: drop the column if it identifies the rows, or "
            "call it real",
            "drop",
        )
    if EARLIEST <= about.low and about.high <= LATEST and _are_dates(column):
        raise InputError(
            f"column {name} of {where} holds dates, such as {about.low:.0f}: drop it, or replace "
            "it by numbers, such as the days since the first one",
            "drop",
        )
    if num_rows < SHORTEST or about.low not in (0, 1):
        return
    if about.high == about.low + num_rows - 1 and (np.diff(column.astype(np.float64)) == 1).all():
        raise InputError(
            f"column {name} of {where} counts the rows from {about.low:.0f} to {about.high:.0f}, "
            f"so it tells nothing about them: drop it, or give its kind",
            "drop",
        )


def _are_dates(column: np.ndarray) -> bool:
    """Return whether whole numbers are years, months and days, such as 20260131."""
    months, days = column // 100 % 100, column % 100
    are_dates = (months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)
    return bool(are_dates.all())


def _refuse_odd_words(name: str, column: Words, where: str) -> None:
    """Refuse dates, numbers that were not read as such, and identifiers."""
    words, num_rows = column.categories, len(column.codes)
    if _share(words, DATES) >= MOSTLY:
        raise InputError(
            f"column {name} of {where} holds dates or times, such as '{words[0]}': drop it, or "
            "replace it by numbers, such as the days since the first one",
            "drop",
        )
    if _share(words, NUMBERS) >= MOSTLY and len(words) > 2:
        odd = [word for word in words if not _is_number(word)]
        raise InputError(
            f"column {name} of {where} holds numbers, and text that is no number, such as "
            f"{listed([repr(word) for word in odd], 3)}: write plain numbers (1234.5), and leave "
            "the cells of missing values empty; or call the column categories",
            "columns",
        )
    is_long = num_rows >= SHORTEST
    if len(words) == num_rows or (is_long and 2 * len(words) > num_rows):
        raise InputError(
            f"column {name} of {where} has {len(words):,} different strings in {num_rows:,} rows, "
            "so it identifies the rows: drop it, or call it categories",
            "drop",
        )


def _share(words: list[str], pattern: re.Pattern[str]) -> float:
    return sum(bool(pattern.fullmatch(word)) for word in words) / len(words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
