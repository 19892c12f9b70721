"""Columns, each of its own kind: numbers or strings, in; codes and their meaning, out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.column_spec import ColumnSpec, KindName
from pyro_vae.data.rows import Rows
from pyro_vae.data.rows.row_reader import RowReader, SomeColumns
from pyro_vae.data.source import listed
from pyro_vae.data.understanding.given_kinds import (
    ALL,
    given_numbers,
    given_strings,
    number_texts,
    parse_kind,
)
from pyro_vae.data.understanding.odd_columns import LONGEST_TEXT, OddColumn, refuse_odd
from pyro_vae.data.understanding.parts import Understood
from pyro_vae.data.understanding.rules import (
    LARGEST_COUNT,
    has_atom,
    infer_column,
    note_atoms,
    note_codes_of_missing,
)
from pyro_vae.data.understanding.skewness import skewness_of_rows
from pyro_vae.data.understanding.summaries import (
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
NUMBERS = re.compile(r"\s*[-+$€£\u2212]?\s*\d[\d.,'\s]*([eE][-+]?\d+)?\s*[%€]?\s*")
MEASUREMENTS = re.compile(  # with units, as <0.5, or with negative ones in brackets
    r"\s*\(?\s*[<>≤≥~≈]?=?\s*[-+\u2212]?\s*[$€£¥]?\s*\d[\d.,'\s]*([eE][-+]?\d+)?"
    r"\s*([%‰€$£¥°]|[a-zA-Zµμ°Ω]{1,5}[²³]?(/[a-zA-Zµμ]{1,5}[²³]?)?)?\s*\)?\s*"
)
ONE_VALUE = ("binary", "levels", "counts")  # kinds that a constant column can be of
EARLIEST, LATEST = 1900_01_01, 2100_12_31  # dates that are written as whole numbers
LARGEST_WHOLE = 2**53  # up to which double precision has all whole numbers
MOSTLY = 0.8  # the share of distinct strings by which a column is known
WITHOUT_DATES = "drop it, or replace it by numbers, such as the days since the first one"
SHORTEST = 20  # rows of a table in which row numbers and identifiers are looked for


@dataclass(frozen=True)
class Words:
    """A column of strings.

    Attributes:
        categories: the distinct strings, sorted, or in the order that pandas has for them.
        codes: their numbers, shape [N]; -1 stands for a missing value.
        is_ordered: whether pandas calls the column ordered.
        is_binary: whether they are the words of booleans.
    """

    categories: list[str]
    codes: np.ndarray
    is_ordered: bool = False
    is_binary: bool = False


@dataclass(frozen=True)
class _Facts:
    """What is known about the columns of numbers [N, D]."""

    num_rows: int
    summary: Summary
    sample: np.ndarray
    counted: list[Counted]
    skewnesses: dict[int, tuple[float, float]]  # if the sample has not all rows

    @staticmethod
    def of(matrix: np.ndarray | RowReader, summary: Summary | None = None) -> "_Facts":
        sample = sample_rows(matrix)
        summary = summarise(matrix, by_column=True) if summary is None else summary
        places: list[int] = []
        if len(sample) < len(matrix):
            places = np.flatnonzero(_may_be_positive(summary)).tolist()
        found = skewness_of_rows(matrix, places) if places else []
        skewnesses = dict(zip(places, found, strict=True))
        return _Facts(len(matrix), summary, sample, count_distinct(matrix, sample), skewnesses)

    def describe(self, at: int) -> Column:
        own = self.summary
        ends = float(own.low[at]), float(own.high[at])
        whole = bool(own.whole[at])
        return describe_column(
            self.sample[:, at],
            self.num_rows - int(own.num_missing[at]),
            *ends,
            whole,
            self.counted[at],
            self.skewnesses.get(at),
        )


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
    odd: list[OddColumn] = []
    atoms: dict[str, Column] = {}
    numbers: dict[str, Column] = {}
    facts = None if matrix is None or summary is None else _Facts.of(matrix, summary)
    for j, (name, column) in enumerate(columns.items()):
        given = kinds.get(name, kinds.get(ALL))
        if len(name) > LONGEST_TEXT:
            raise InputError(
                f"a column of {where} has a name of {len(name):,} characters, which begins with "
                f"{name[:20]!r}: give it a name of at most {LONGEST_TEXT:,}",
                "name",
            )
        if isinstance(column, Words):
            if len(column.categories) == 1:
                constant.append(name)
                continue
            if found := _odd_words(name, column, given, where):
                odd.append(found)
                continue
            spec, codes = _understand_words(name, column, given)
        else:
            own, at = (_Facts.of(column[:, None]), 0) if facts is None else (facts, j)
            if np.isinf(own.summary.low[at]):  # others that are empty were left out before
                raise InputError(
                    f"column {name} of {where} has no values: all are missing: drop it", "columns"
                )
            about = own.describe(at)
            if about.low == about.high and (
                given is None or parse_kind(name, given)[0] not in ONE_VALUE
            ):
                constant.append(name)
                continue
            if given is None and (found := _odd_numbers(name, column, about)):
                odd.append(found)
                continue
            spec, codes = _understand_numbers(name, column, about, given)
            if given is None:
                numbers[name] = about
            if has_atom(about, spec.kind):
                atoms[name] = about
        specs.append(spec)
        values.append(codes)
    refuse_odd(odd, where)
    named = [name for name in constant if name in kinds]
    if named:
        raise InputError(
            f"column {listed(named)} of {where} has one value in all rows, which tells nothing "
            "about them: drop it",
            "columns",
        )
    if constant:
        notes.append(f"left out, because they have one value in all rows: {listed(constant)}")
    notes += note_atoms(atoms) + note_codes_of_missing(numbers)
    if not specs:
        raise InputError(
            f"each column of {where} has one value in all rows: give other data", "name"
        )
    names = tuple(spec.name for spec in specs)
    examples = _stored_columns(specs, values, list(columns), matrix)
    return Understood(examples, tuple(specs), names, notes)


def _stored_columns(
    specs: Sequence[ColumnSpec],
    values: Sequence[np.ndarray],
    columns: Sequence[str],
    matrix: np.ndarray | RowReader | None,
) -> Tensor | Rows:
    """Return the columns that are kept, [N, D]; see `understand_columns` on what is shared.

    Args:
        specs: what they are.
        values: their numbers or codes.
        columns: the names of all columns of the matrix.
        matrix: all numbers, if there are no others.
    """
    if isinstance(matrix, RowReader):
        names = {spec.name for spec in specs}
        kept = [j for j, name in enumerate(columns) if name in names]
        is_shared = matrix.dtype.kind == "f" and len(kept) == len(columns)
        rows = SomeColumns(matrix, kept).stored_as(matrix.dtype if is_shared else np.dtype("f8"))
        return Rows(rows)
    if matrix is not None and matrix.dtype.kind == "f" and matrix.shape[1] == len(specs):
        if not any(spec.categories for spec in specs):
            shared = matrix if matrix.flags.writeable else matrix.copy()
            return torch.from_numpy(shared)
    examples = np.empty((len(values[0]), len(values)))
    for j, column_values in enumerate(values):
        examples[:, j] = column_values
    return torch.from_numpy(examples)


def _understand_numbers(
    name: str, column: np.ndarray, about: Column, given: str | None
) -> tuple[ColumnSpec, np.ndarray]:
    """Return what a column of numbers is, and its values or codes."""
    if given is not None:
        spec = given_numbers(name, given, about)
    else:
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
    places = np.where(np.isnan(column), -1, np.searchsorted(about.distinct, column))
    return spec, _recoded(codes, places)


def _understand_words(name: str, column: Words, given: str | None) -> tuple[ColumnSpec, np.ndarray]:
    """Return what a column of strings is, and its codes."""
    if given is None:
        kind: KindName = "ordered" if column.is_ordered else "categories"
        spec = ColumnSpec(name, kind, tuple(column.categories))
        if column.is_binary:
            spec = ColumnSpec(name, "binary", spec.categories, levels=2)
    else:
        spec = given_strings(name, given, column.categories)
    order = [spec.categories.index(category) for category in column.categories]
    return spec, _recoded(order, column.codes)


def _recoded(codes: list[int], places: np.ndarray) -> np.ndarray:
    """Return the codes at some places, `float64`; NaN at the place -1, of a missing value."""
    return np.where(places < 0, np.nan, np.array([*codes, -1], np.float64)[places])


def _odd_numbers(name: str, column: np.ndarray, about: Column) -> OddColumn | None:
    """Return a column that counts the rows, of dates, or of numbers that are too large."""
    if not about.whole:
        return None
    column = column[~np.isnan(column)]
    if column.dtype.kind in "iu" and max(-about.low, about.high) > LARGEST_WHOLE:
        return OddColumn(
            name,
            f"has whole numbers up to {about.high:.0f}, of which double precision does not keep "
            "all digits",
            "drop the column if it identifies the rows, or call it real",
        )
    if EARLIEST <= about.low and about.high <= LATEST and _are_dates(column):
        return OddColumn(name, f"holds dates, such as {about.low:.0f}", WITHOUT_DATES)
    return row_numbers(name, column, about.low, about.high)


def row_numbers(name: str, column: np.ndarray, low: float, high: float) -> OddColumn | None:
    """Return a column of whole numbers if it counts the rows, in any order, and None otherwise.

    It does if each whole number from `low` to `high` occurs once.

    Args:
        name: the column's name.
        column: its values, shape [N].
        low: the least of them.
        high: the largest of them.
    """
    column = column[~np.isnan(column)]
    num_rows = len(column)
    if num_rows < SHORTEST or high != low + num_rows - 1:
        return None
    places = (column.astype(np.float64) - low).astype(np.int64)
    if np.bincount(places, minlength=num_rows).max() > 1:
        return None
    return OddColumn(
        name,
        f"counts the rows from {low:.0f} to {high:.0f}, so it tells nothing about them",
        "drop it, or give its kind",
    )


def _may_be_positive(summary: Summary) -> np.ndarray:
    """Return whether the rules ask for the skewness of each column."""
    return (summary.low > 0) & ~(summary.whole & (summary.high <= LARGEST_COUNT))


def _are_dates(column: np.ndarray) -> bool:
    """Return whether whole numbers are years, months and days, such as 20260131."""
    months, days = column // 100 % 100, column % 100
    are_dates = (months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)
    return bool(are_dates.all())


def _odd_words(name: str, column: Words, given: str | None, where: str) -> OddColumn | None:
    """Return a column of long texts, dates or identifiers; if its kind is given, of long texts.

    Raises:
        InputError: if they are numbers that were not read as such.
    """
    words, num_rows = column.categories, int((column.codes >= 0).sum())
    longest = max(words, key=len, default="")
    if len(longest) > LONGEST_TEXT:
        return OddColumn(
            name,
            f"has a text of {len(longest):,} characters, which begins with {longest[:20]!r}",
            f"a category has at most {LONGEST_TEXT:,}: drop the column",
        )
    if given is not None:
        return None
    if _share(words, DATES) >= MOSTLY:
        return OddColumn(name, f"holds dates or times, such as '{words[0]}'", WITHOUT_DATES)
    identify = len(words) == num_rows or (num_rows >= SHORTEST and 2 * len(words) > num_rows)
    pattern = MEASUREMENTS if identify else NUMBERS
    if _share(words, pattern) >= MOSTLY and len(words) > 2 and not _are_codes(words):
        odd = [repr(word) for word in words if not is_number(word)]
        if not odd:
            raise InputError(
                f"column {name} of {where} holds numbers that are stored as text, or have too many "
                f"digits, such as '{words[0]}': convert them to numbers, drop the column if it "
                "identifies the rows, or call it categories",
                "columns",
            )
        raise InputError(
            f"column {name} of {where} holds numbers, and text that is not a number, such as "
            f"{listed(odd, 3)}: write plain numbers (1234.5), and leave the cells of missing "
            "values empty; or call the column categories",
            "columns",
        )
    if not identify:
        return None
    return OddColumn(
        name,
        f"has {len(words):,} different strings in {num_rows:,} rows, so it identifies the rows",
        "drop it, or call it categories",
    )


def _share(words: list[str], pattern: re.Pattern[str]) -> float:
    return sum(bool(pattern.fullmatch(word)) for word in words) / len(words)


def _are_codes(words: list[str]) -> bool:
    """Return whether strings are digits alone, some with leading zeros, such as postal codes."""
    return all(word.isdecimal() for word in words) and any(
        len(w) > 1 and w[0] == "0" for w in words
    )


def is_number(word: str) -> bool:
    """Return whether a word is a number, as Python reads it."""
    try:
        float(word)
    except ValueError:
        return False
    return True
