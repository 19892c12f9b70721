"""The rules by which the kind of data is inferred, where the user does not give it.

**Columns of a table** (a file of a table, a DataFrame, or floats [N, D] that are not all whole):

| values | kind |
|---|---|
| booleans, or the numbers 0 and 1 | binary |
| strings, or pandas' categories | categories; ordered, if pandas' categories are ordered |
| numbers with at most 20 distinct values, each occurring 5 times on average, and: | |
| - whole, from 0 on and 4 or more of them, or from 1 on and 6 or more of them; the largest value \
is less than a quarter as frequent as the most frequent one | counts |
| - whole, otherwise; or not whole, and 10 or fewer of them | ordered |
| other whole numbers from 0 to 2^24 = 16,777,216 | counts |
| other numbers, all above 0, with a skewness above 1 that the logarithm makes smaller | positive |
| other numbers | real |

Missing values are left aside. Floats that are whole numbers count as whole numbers. Columns that
say nothing about new rows are refused, unless their kind is given: dates and times; strings of
which more than half are different; whole numbers that count the rows, in any order; whole numbers
beyond 2^53; numbers among which there is text. A table of 20 or more columns whose values are all
whole numbers from 0 on is a matrix: see below. Columns that are constant or empty are left out,
unless their kind is given.

In a file of text, columns of digits of which some have leading zeros are strings.

No rule depends on the order of the rows: what decides is found from all of them. Notes (of frequent
values, and of values that may stand for missing ones) are from a sample of 100,000 rows, and how a
table of text is written is found from its first 200 lines.

**Matrices** [N, D] of booleans or of whole numbers, and wide tables of these:

| values | kind of all columns |
|---|---|
| booleans, or 0 and 1 alone | binary |
| unsigned bytes | levels: 17 if none is above 16, otherwise 256 |
| other numbers from 0 on, the largest exactly 255 | 256 levels: bytes that were stored otherwise |
| other numbers from 0 on, D = 64, the largest exactly 16 | 17 levels: scikit-learn's digits |
| other numbers from 0 to 2^24 | counts |
| others | a table: the rules for columns |

**Images and series** [N, H, W] and [N, C, H, W]:

| values | kind of all pixels |
|---|---|
| booleans, or 0 and 1 alone | binary |
| whole numbers from 0 to 16 | 17 levels |
| whole numbers from 0 to 255 | 256 levels |
| whole numbers from 0 to 65,535 | levels: the least power of 2 that is above the largest value |
| floats in [0, 1] | unit interval |
| floats above 0, with a skewness above 1 that the logarithm makes smaller | positive |
| others | real |
"""

import re

from pyro_vae.data.column_spec import ColumnSpec, KindName
from pyro_vae.data.source import listed
from pyro_vae.data.understanding.summaries import Column, Summary

LARGEST_COUNT = 2**24  # single precision has all whole numbers up to here
FEW_REALS = 10  # distinct values, with which numbers that are not whole are ordered
SHORTEST_TAIL = {0.0: 4, 1.0: 6}  # distinct values of counts, by the least one
OFTEN = 5  # times that each of few distinct values occurs on average
WIDE = 20  # columns
ATOM = 0.25  # the share of a value in a column that is warned of
ATOM_OF_PIXELS = 0.05


def infer_column(column: Column) -> KindName:
    """Return the kind of a column of numbers."""
    few = column.distinct is not None and OFTEN * len(column.distinct) <= column.num_rows
    if column.whole and (column.low, column.high) == (0, 1):
        return "binary"
    if few and column.whole:
        return "counts" if _has_tail(column) else "ordered"
    if few and column.distinct is not None and len(column.distinct) <= FEW_REALS:
        return "ordered"
    if column.whole and column.low >= 0 and column.high <= LARGEST_COUNT:
        return "counts"
    return "positive" if is_skewed(column) else "real"


def infer_matrix(summary: Summary, dtype: str, width: int) -> tuple[ColumnSpec | None, list[str]]:
    """Return what all columns of a matrix are, and notes; None if it is a table of columns.

    Args:
        summary: of all its values together.
        dtype: NumPy's name of the values' type.
        width: the number of columns.
    """
    low, high = summary.low.min(), summary.high.max()
    if not summary.whole.all() or low < 0 or high > LARGEST_COUNT:
        return None, []
    if high <= 1:
        return _whole_pixels(high)
    if dtype == "uint8":
        return _whole_pixels(high)
    if high == 255 or (width == 64 and high == 16):
        return ColumnSpec("", "levels", levels=int(high) + 1), [
            f"the values are whole numbers from 0 to {high:.0f}: taken as {high + 1:.0f} levels, 0 "
            f"to {high:.0f}, such as grey pixels have; if they are counts, give the kind counts "
            "for all columns"
        ]
    return ColumnSpec("", "counts"), []


def infer_pixels(summary: Summary, column: Column) -> tuple[ColumnSpec, list[str]]:
    """Return what all pixels are, and notes.

    Args:
        summary: of all values together.
        column: a description of the values.
    """
    low, high = float(summary.low[0]), float(summary.high[0])
    if summary.whole[0] and 0 <= low and high <= 65_535:
        return _whole_pixels(high)
    if 0 <= low and high <= 1:
        return ColumnSpec("", "unit_interval"), _notes_of_unit_interval(summary)
    return ColumnSpec("", "positive" if is_skewed(column) else "real"), []


def has_atom(column: Column, kind: KindName) -> bool:
    """Return whether many rows of a real or positive column share a value."""
    return kind in ("real", "positive") and column.top_share > ATOM


def note_atoms(columns: dict[str, Column]) -> list[str]:
    """Return a warning of values that many rows share.

    Args:
        columns: the columns that have such values, by their names.
    """
    if not columns:
        return []
    shown = [
        f"{name} ({100 * column.top_share:.0f} % are {column.top_value:g})"
        for name, column in columns.items()
    ]
    return [
        f"one value is frequent in {listed(shown, 4)}; a density can grow there without bound, so "
        "its log p(x) is not to be relied on: drop such columns, or call them ordered or categories"
    ]


def note_codes_of_missing(columns: dict[str, Column]) -> list[str]:
    """Return a warning of values such as -999, which may stand for missing ones.

    Args:
        columns: all columns of numbers, by their names.
    """
    shown = [
        f"{name} ({column.apart:.0f})"
        for name, column in columns.items()
        if column.apart is not None and re.fullmatch(r"-?9+", f"{column.apart:g}")
    ]
    if not shown:
        return []
    return [
        f"one value lies apart from all others in {listed(shown, 4)}: if it stands for missing "
        "values, they are taken for numbers; fill them, or remove their rows"
    ]


def is_skewed(column: Column) -> bool:
    """Return whether numbers are positive, and look more symmetric on a logarithmic scale."""
    return column.low > 0 and column.skewness > 1 and abs(column.log_skewness) < column.skewness


def _has_tail(column: Column) -> bool:
    """Return whether few whole numbers look like counts, the largest of which are rare."""
    if column.low not in SHORTEST_TAIL or column.counts is None:
        return False
    is_long = len(column.counts) >= SHORTEST_TAIL[column.low]
    return is_long and bool(4 * column.counts[-1] < column.counts.max())


def _whole_pixels(high: float) -> tuple[ColumnSpec, list[str]]:
    if high <= 1:
        return ColumnSpec("", "binary", levels=2), []
    if high <= 16:
        note = f"the values are whole numbers from 0 to {high:.0f}: taken as 17 levels, 0 to 16"
        return ColumnSpec("", "levels", levels=17), [note]
    levels = max(256, 2 ** int(high).bit_length())
    note = f"the values are whole numbers from 0 to {high:.0f}: taken as {levels:,} levels"
    return ColumnSpec("", "levels", levels=levels), [note] if levels > 256 else []


def _notes_of_unit_interval(summary: Summary) -> list[str]:
    if summary.on_grid[0]:
        return [
            "all values are multiples of 1/255, so they are levels stored as floats; a density can "
            "grow at these points without bound, so its log p(x) is not to be relied on: save "
            "round(255 x) as uint8 to have 256 levels"
        ]
    return [
        f"{100 * share:.0f} % of the values are exactly {value}; a density can grow there without "
        "bound, so its log p(x) is not to be relied on: give levels, if these are pixels"
        for value, share in ((0, summary.zeros[0]), (1, summary.ones[0]))
        if share > ATOM_OF_PIXELS
    ]
