"""Kinds that the user gives instead of the inferred ones, and whether the values are of them."""

import numpy as np

from pyro_vae.data.column_spec import KIND_NAMES, ColumnSpec, KindName
from pyro_vae.data.source import ReadOptions, listed
from pyro_vae.data.understanding.summaries import MOST_DISTINCT, Column
from pyro_vae.errors import InputError

ALL = "all"  # stands for all columns or pixels
MOST_LEVELS = 65_536


def refuse_image_size(options: ReadOptions, name: str) -> None:
    """Refuse a size of pictures for a file.

    Raises:
        InputError: if one is given.
    """
    if options.image_size is not None:
        raise InputError(
            f"image_size is for a folder of pictures, and {name} is a file: leave it out",
            "image_size",
        )


def check_names(options: ReadOptions, names: list[str], where: str) -> None:
    """Refuse names in the options that no column has, and columns that are asked two things of.

    Raises:
        InputError: with the names that there are.
    """
    if ALL in names and ALL in options.columns:
        raise InputError(
            f"{where} has a column called {ALL}, which stands for all columns here: rename it",
            "columns",
        )
    for away, what in ((options.drop, "left out"), ((options.labels,), "the labels")):
        both = [name for name in away if name in options.columns and name != ALL]
        if both:
            raise InputError(
                f"column {listed(both)} is {what}, so it has no kind: give no kind for it, or keep "
                "it",
                "columns",
            )
    given = {"columns": list(options.columns), "drop": list(options.drop)}
    if options.labels is not None:
        given["labels"] = [options.labels]
    for parameter, wanted in given.items():
        known = {*names, ALL} if parameter == "columns" else {*names}
        unknown = [name for name in wanted if name not in known]
        if unknown:
            columns = f"its columns are {listed(names, 20)}" if names else "it holds images"
            raise InputError(
                f"{where} has no column {listed(unknown)}: {columns}",
                parameter,
            )


def parse_kind(name: str, text: str) -> tuple[KindName, tuple[str, ...]]:
    """Return a kind, and the categories in order that follow it, if they do.

    Args:
        name: the column's name, for the message.
        text: a kind, such as `counts`, `ordered low < middle < high`, or `levels 17`.

    Raises:
        InputError: if there is no such kind.
    """
    kind, _, detail = text.strip().partition(" ")
    kind = kind.removesuffix(":")
    for known in KIND_NAMES:
        if kind == known:
            order = tuple(part.strip() for part in detail.split("<") if part.strip())
            if order and kind not in ("levels", "binary", "categories", "ordered"):
                raise InputError(
                    f"column {name} cannot be '{text}': {kind} has nothing after it", "columns"
                )
            return known, order  # type: ignore[return-value]
    raise InputError(f"column {name} cannot be '{kind}': choose {', '.join(KIND_NAMES)}", "columns")


def given_numbers(name: str, text: str, column: Column) -> ColumnSpec:
    """Return what the user says that a column of numbers is.

    Args:
        name: the column's name, or `all`.
        text: a kind; see `parse_kind`.
        column: a description of the numbers.

    Raises:
        InputError: if the numbers are not of this kind.
    """
    kind, order = parse_kind(name, text)
    low, high = column.low, column.high
    shown = f"numbers from {low:g} to {high:g}"
    if kind == "binary" and not order and column.whole and 0 <= low and high <= 1:
        return ColumnSpec(name, kind, levels=2)
    if kind in ("categories", "ordered", "binary"):
        levels = 2 if kind == "binary" else 0
        return ColumnSpec(name, kind, _categories(name, kind, order, column), levels)
    if kind in ("levels", "counts"):
        most = MOST_LEVELS - 1 if kind == "levels" else float("inf")
        if not column.whole or low < 0 or high > most:
            numbers = "0 to 65,535" if kind == "levels" else "0 on"
            fractions = "" if column.whole else ", some of which are not whole"
            raise _refusal(name, kind, f"needs whole numbers from {numbers}", shown + fractions)
        if kind == "counts":
            return ColumnSpec(name, kind)
        return ColumnSpec(name, kind, levels=_levels(name, order, high))
    if kind == "positive" and low <= 0:
        raise _refusal(name, kind, "needs numbers above 0", shown)
    if kind == "unit_interval" and not 0 <= low <= high <= 1:
        raise _refusal(name, kind, "needs numbers from 0 to 1", shown)
    return ColumnSpec(name, kind)


def given_strings(name: str, text: str, categories: list[str]) -> ColumnSpec:
    """Return what the user says that a column of strings is.

    Args:
        name: the column's name.
        text: a kind; see `parse_kind`.
        categories: the distinct strings, in order.

    Raises:
        InputError: if strings cannot be of this kind.
    """
    kind, order = parse_kind(name, text)
    if kind not in ("categories", "ordered", "binary"):
        raise _refusal(name, kind, "needs numbers", f"text such as '{categories[0]}'")
    if kind == "binary" and len(categories) != 2:
        raise _refusal(name, kind, "needs two values", f"{len(categories)} different ones")
    if kind == "ordered" and not order:
        raise InputError(
            f"column {name}: which order have {listed(categories)}? Give it, as in 'ordered "
            f"{' < '.join(categories[:3])}'",
            "columns",
        )
    levels = 2 if kind == "binary" else 0
    return ColumnSpec(name, kind, _in_order(name, order, categories), levels)


def number_texts(values: np.ndarray) -> list[str]:
    """Return how different numbers are written as categories: 3, not 3.0; short, but different."""
    for write in ("{:.6g}".format, repr):
        texts = [
            f"{value:.0f}" if value.is_integer() else write(value) for value in values.tolist()
        ]
        if len(set(texts)) == len(texts):
            break
    return texts


def _categories(
    name: str, kind: KindName, order: tuple[str, ...], column: Column
) -> tuple[str, ...]:
    if column.distinct is None:
        raise _refusal(
            name, kind, f"needs {MOST_DISTINCT} distinct numbers at most", "more than these"
        )
    if kind == "binary" and len(column.distinct) != 2:
        raise _refusal(name, kind, "needs two values", f"{len(column.distinct)} different ones")
    return _in_order(name, order, number_texts(column.distinct))


def _in_order(name: str, order: tuple[str, ...], categories: list[str]) -> tuple[str, ...]:
    if not order:
        return tuple(categories)
    absent = [category for category in categories if category not in order]
    if absent or len(set(order)) < len(order):
        raise InputError(
            f"column {name}: the order {' < '.join(order)} has to name each of its values once: "
            f"{listed(categories)}",
            "columns",
        )
    return order


def _levels(name: str, order: tuple[str, ...], high: float) -> int:
    if not order:
        return max(2, int(high) + 1)
    if not order[0].isdecimal() or not high < int(order[0]) <= MOST_LEVELS:
        raise InputError(
            f"column {name}: 'levels {order[0]}' has to be a number above the largest value, "
            f"{high:g}, and {MOST_LEVELS:,} at most",
            "columns",
        )
    return int(order[0])


def _refusal(name: str, kind: str, needs: str, has: str) -> InputError:
    return InputError(
        f"column {name} cannot be {kind}: this kind {needs}, and the column has {has}: choose "
        "another kind, or leave it out to have it inferred",
        "columns",
    )
