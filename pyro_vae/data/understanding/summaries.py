"""The facts about numbers that the rules in `rules.py` ask for."""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pyro_vae.data.rows import RowReader
from pyro_vae.data.rows.row_chunks import find_pages, give_back, row_chunks
from pyro_vae.data.understanding.skewness import skewness

MOST_DISTINCT = 20
SAMPLE = 100_000  # rows in which values that repeat, and values that are frequent, are sought
SAMPLE_BYTES = 2**28
FEWEST = 1000  # rows of a sample, however wide they are
BLOCK = 2**25  # bytes in which repeated values are counted
NARROW = 32  # columns
GRID_ERROR = 1e-4  # of 255 x; single precision is off by 2e-5 at most


@dataclass(frozen=True)
class Summary:
    """Facts about each of some columns; an array of pixels is one column. All have shape [D].

    Attributes:
        low: the least finite value; infinity if there is none.
        high: the largest finite value.
        whole: whether all values are whole numbers.
        num_missing: how many values are NaN.
        num_infinite: how many values are infinite.
        zeros: the share of values that are 0; counted for pixels alone, floats in [0, 1].
        ones: the share of values that are 1, counted for the same.
        on_grid: whether all values are floats, and multiples of 1/255; found for pixels alone.
    """

    low: np.ndarray
    high: np.ndarray
    whole: np.ndarray
    num_missing: np.ndarray
    num_infinite: np.ndarray
    zeros: np.ndarray
    ones: np.ndarray
    on_grid: np.ndarray

    def of_columns(self, places: np.ndarray) -> "Summary":
        """Return the facts about some of the columns."""
        return Summary(*(getattr(self, each.name)[places] for each in fields(self)))

    def ends(self) -> tuple[float, float]:
        """Return the least and the largest value of all columns."""
        return float(self.low.min()), float(self.high.max())


def summarise(array: Any, by_column: bool = False) -> Summary:
    """Summarise numbers in one pass, which takes little memory if they are mapped from a file.

    Args:
        array: booleans, whole numbers or floats [N, ...], a sparse matrix of SciPy [N, D], or what
            reads rows.
        by_column: whether to summarise each column of [N, D], not all numbers together.
    """
    running = Summariser(array.dtype, array.shape[1] if by_column else None)
    for _, chunk in row_chunks(array):
        running.add(chunk)
    return running.result()


class Summariser:
    """Summarises numbers that come in chunks.

    Args:
        dtype: the numbers' type.
        width: the number of columns, if each is summarised; by default all numbers are together.
    """

    def __init__(self, dtype: np.dtype, width: int | None = None) -> None:
        self._by_column, self._width = width is not None, width or 1
        width = self._width
        self._by_rows = width > NARROW  # narrow rows are faster when they are transposed
        self._is_float = dtype.kind == "f"
        self._low, self._high = np.full(width, np.inf), np.full(width, -np.inf)
        self._whole = np.ones(width, bool)
        self._on_grid = np.full(width, self._is_float and not self._by_column)
        self._num_missing, self._num_infinite = np.zeros((2, width), np.int64)
        self._zeros, self._ones = np.zeros((2, width), np.int64)
        self._num_values = self._absent = 0

    def add(self, chunk: np.ndarray) -> None:
        """Take account of more numbers, [N, D] or of any shape if they are all together."""
        by_rows, is_float = self._by_rows, self._is_float
        axis = 0 if by_rows else 1
        values = chunk if by_rows else np.ascontiguousarray(chunk.reshape(-1, self._width).T)
        self._num_values += chunk.size
        with np.errstate(invalid="ignore"):
            least, largest = values.min(axis), values.max(axis)
        if is_float and not (np.isfinite(least).all() and np.isfinite(largest).all()):
            missing, infinite = np.isnan(values), np.isinf(values)
            self._num_missing += missing.sum(axis)
            self._num_infinite += infinite.sum(axis)
            finite = ~(missing | infinite)
            least = values.min(axis, where=finite, initial=np.inf)
            largest = values.max(axis, where=finite, initial=-np.inf)
            values = np.where(finite, values, 0)
        self._low = np.minimum(self._low, least)
        self._high = np.maximum(self._high, largest)
        if is_float and self._whole.any():
            self._whole &= (values == np.rint(values)).all(axis)
        if self._on_grid.any():
            steps = 255.0 * values
            self._on_grid &= (np.abs(steps - np.rint(steps)) < GRID_ERROR).all(axis)
        if is_float and not self._by_column and self._low >= 0 and self._high <= 1:
            missing = int((self._num_missing + self._num_infinite).sum()) - self._absent
            self._absent += missing
            self._zeros += np.count_nonzero(values == 0) - missing  # which were replaced by 0
            self._ones += np.count_nonzero(values == 1)

    def result(self) -> Summary:
        """Return the facts about all numbers so far."""
        count = np.maximum(1, self._num_values // self._width - self._num_missing)
        return Summary(
            self._low,
            self._high,
            self._whole,
            self._num_missing,
            self._num_infinite,
            self._zeros / count,
            self._ones / count,
            self._on_grid,
        )


@dataclass(frozen=True)
class Column:
    """Facts about the numbers of one column that are not missing; none of them is infinite.

    Attributes:
        low: the least value.
        high: the largest value.
        whole: whether all values are whole numbers.
        num_rows: the number of values.
        distinct: the distinct values in rising order, if they are `MOST_DISTINCT` or fewer.
        counts: how often each of them occurs.
        top_value: the most frequent value, in a sample.
        top_share: its share of the sample.
        skewness: the third standardised moment.
        log_skewness: the same of the values' logarithms, if all are positive; otherwise infinite.
        apart: a value of a sample that several rows share and that lies far below or above all
            others, if there is one.
    """

    low: float
    high: float
    whole: bool
    num_rows: int
    distinct: np.ndarray | None
    counts: np.ndarray | None
    top_value: float
    top_share: float
    skewness: float
    log_skewness: float
    apart: float | None = None


Counted = tuple[np.ndarray, np.ndarray] | None  # distinct values and their numbers, if few


def sample_rows(array: np.ndarray | RowReader, most: int = SAMPLE) -> np.ndarray:
    """Return evenly spaced rows: `most` of them, or as many as fit into `SAMPLE_BYTES`.

    All rows of an array that has no more are returned, without a copy.
    """
    row_bytes = max(1, math.prod(array.shape[1:]) * array.dtype.itemsize)
    step = -(-len(array) // min(most, max(FEWEST, SAMPLE_BYTES // row_bytes)))
    if isinstance(array, RowReader):
        return array.read(np.arange(0, len(array), max(1, step)))
    if step <= 1:
        return array
    rows = array[::step]
    sample = np.empty(rows.shape, rows.dtype)
    pages = find_pages(array)
    for start, chunk in row_chunks(rows, BLOCK // step):
        sample[start : start + len(chunk)] = chunk
        if pages is not None:  # also of the rows between those of the sample
            give_back(pages)
    return sample


def count_distinct(matrix: np.ndarray | RowReader, sample: np.ndarray) -> list[Counted]:
    """Count the distinct values of each column [N, D] that has few, in one pass over the rows.

    Columns with many values are found from the sample.
    """
    found = [_merge(None, sample[:, j]) for j in range(matrix.shape[1])]
    few = [j for j, counted in enumerate(found) if counted is not None]
    if len(sample) == len(matrix) or not few:
        return found
    for j in few:
        found[j] = (np.empty(0), np.empty(0, np.int64))
    for _, block in row_chunks(matrix, BLOCK):
        for j in few:
            found[j] = _merge(found[j], block[:, j])
        few = [j for j in few if found[j] is not None]
    return found


def _merge(counted: Counted, values: np.ndarray) -> Counted:
    """Return what was counted together with more values; None if these are many together."""
    numbers = np.asarray(values, np.float64)
    distinct, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
    if counted is not None and len(distinct) <= MOST_DISTINCT:
        both = np.concatenate([counted[0], distinct])
        distinct, inverse = np.unique(both, return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([counted[1], counts])).astype(np.int64)
    return (distinct, counts) if len(distinct) <= MOST_DISTINCT else None


def describe_column(
    sample: np.ndarray,
    num_rows: int,
    low: float,
    high: float,
    whole: bool,
    counted: Counted = None,
    skewnesses: tuple[float, float] | None = None,
) -> Column:
    """Describe numbers that are finite, or missing.

    Args:
        sample: some of the numbers.
        num_rows: how many numbers there are.
        low: the least of all.
        high: the largest of all.
        whole: whether all are whole.
        counted: the distinct ones, if they are few; see `count_distinct`.
        skewnesses: of all numbers and of their logarithms; by default they are those of the sample.
    """
    values = sample.astype(np.float64)
    values = values[~np.isnan(values)]
    if len(values) == 0:  # the few that there are lie between the rows of the sample
        values = np.array([low, high])
    distinct, counts = np.unique(values, return_counts=True)
    top = int(counts.argmax())
    if skewnesses is None:
        skewnesses = skewness(values), skewness(np.log(values)) if low > 0 else np.inf
    return Column(
        low,
        high,
        whole,
        num_rows,
        None if counted is None else counted[0],
        None if counted is None else counted[1],
        float(distinct[top]),
        float(counts[top] / len(values)),
        *skewnesses,
        _find_apart(distinct, counts),
    )


def _find_apart(distinct: np.ndarray, counts: np.ndarray) -> float | None:
    """Return an end that repeats, and is as far from the other values as these are from another.

    A negative number among others that are not negative counts as far away.
    """
    if len(distinct) < 3:
        return None
    low, second, last, high = distinct[0], distinct[1], distinct[-2], distinct[-1]
    if counts[0] > 1 and (second - low >= high - second or low < 0 <= second):
        return float(low)
    if counts[-1] > 1 and high - last >= last - low:
        return float(high)
    return None
