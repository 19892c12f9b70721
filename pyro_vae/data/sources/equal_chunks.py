"""Chunks of as many rows as are asked for, from tables of any sizes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

ROWS, FIELDS = 2**16, 2**21  # of a table that is read at once, at most


def rows_of(columns: int) -> int:
    """Return how many rows of so many columns are read at once."""
    return max(1, min(ROWS, FIELDS // max(1, columns)))


def equal_chunks(
    tables: Iterable[Any],
    size: int,
    join: Callable[[list[Any]], Any],
    part: Callable[[Any, int, int], Any],
) -> Iterator[Any]:
    """Yield tables of so many rows, and a last one of fewer.

    Args:
        tables: tables of any numbers of rows.
        size: the number of rows.
        join: returns several tables as one.
        part: returns the rows of a table from one place to before another.
    """
    waiting: list[Any] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += len(table)
        if count < size:
            continue
        joined, rest = join(waiting), count % size
        for start in range(0, count - rest, size):
            yield part(joined, start, start + size)
        waiting, count = [part(joined, count - rest, count)] if rest else [], rest
    if count:
        yield join(waiting)
