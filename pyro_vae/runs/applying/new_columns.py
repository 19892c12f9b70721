"""The columns of new tables: found by name, and read as those of the training data."""

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyro_vae.data import ColumnSpec
from pyro_vae.data.source import listed
from pyro_vae.data.understanding.column_kinds import Words, is_number
from pyro_vae.data.understanding.data_frames import column_name, read_column
from pyro_vae.errors import InputError


class IgnoredColumnsWarning(UserWarning):
    """A table has columns that the model was not trained on."""


def read_frame(frame: Any, specs: Sequence[ColumnSpec], ignored: Sequence[str] = ()) -> np.ndarray:
    """Return columns of a DataFrame as numbers and codes, `float64` [N, D]; NaN where missing.

    Args:
        frame: the DataFrame; its columns may be in any order. Additional ones are not read, and a
            warning names them.
        specs: what the columns are, in the order of the result.
        ignored: names of columns that are left out without a warning.

    Raises:
        InputError: if columns are missing or repeated, or a value cannot be one of its column.
    """
    frame = frame.set_axis([column_name(name) for name in frame.columns], axis=1)
    names, found = [spec.name for spec in specs], list(frame.columns)
    counts = Counter(found)
    missing = [name for name in names if not counts[name]]
    if missing:
        raise InputError(
            f"the table has no column {listed(missing)}: it needs the columns that the model was "
            f"trained on, in any order, and has {listed(found)}",
            "x",
        )
    repeated = [name for name in names if counts[name] > 1]
    if repeated:
        raise InputError(f"the table has several columns {listed(repeated)}: rename them", "x")
    known = {*names, *ignored}
    additional = [name for name in found if name not in known]
    if additional:
        warnings.warn(
            f"columns that the model was not trained on are ignored: {listed(additional)}",
            IgnoredColumnsWarning,
            stacklevel=2,
        )
    if not any(spec.categories for spec in specs):
        frame = frame[names]
        if all(isinstance(kind, np.dtype) and kind.kind in "biuf" for kind in frame.dtypes):
            return np.array(frame.to_numpy(np.float64))
    matrix = np.empty((len(frame), len(specs)))
    numbers = frame.index if hasattr(frame.index, "step") else range(len(frame))
    for place, spec in enumerate(specs):
        values = read_column(frame[spec.name], spec.name, "the table")
        matrix[:, place] = read_values(values, spec, numbers)
    return matrix


def read_values(
    values: np.ndarray | Words, spec: ColumnSpec, numbers: Sequence[int] | None = None
) -> np.ndarray:
    """Return the values of a column as numbers, or as codes of its categories; NaN where missing.

    Args:
        values: numbers or strings, shape [N].
        spec: what the column is.
        numbers: the numbers of the rows, for messages; by default from 0.

    Raises:
        InputError: if some are not among its categories, or are text where it has numbers.
    """
    if not isinstance(values, Words):
        values = np.asarray(values, np.float64)
        if not spec.categories:
            return values
        distinct, places = np.unique(values, return_inverse=True)
        codes = [_code_of_number(value, spec) for value in distinct.tolist()]
        _refuse_unknown([f"{v:g}" for v, c in zip(distinct, codes, strict=True) if c is None], spec)
        return np.array([np.nan if code is None else code for code in codes] or [0.0])[places]
    if values.is_binary and not spec.categories:  # booleans, as where none is missing
        return np.where(values.codes < 0, np.nan, values.codes)
    words = [" ".join(word.split()) for word in values.categories]
    if not spec.categories and words:
        example = next((word for word in words if not is_number(word)), words[0])
        place = int((values.codes == words.index(example)).argmax())
        row = place if numbers is None else numbers[place]
        raise InputError(
            f"column '{spec.name}' holds text, such as '{example}' in row {row} (from 0), and had "
            "numbers in training: give numbers",
            "x",
        )
    own = {" ".join(name.split()): code for code, name in enumerate(spec.categories)}
    _refuse_unknown([word for word in words if word not in own], spec)
    table = np.array([*(own[word] for word in words), np.nan])
    return table[values.codes]


def _code_of_number(value: float, spec: ColumnSpec) -> float | None:
    """Return the code of a number, NaN if it is missing, or None if there is no such category."""
    if np.isnan(value):
        return np.nan
    whole = [f"{value:.0f}"] if value.is_integer() else []
    for text in (*whole, f"{value:.6g}", repr(value)):
        if text in spec.categories:
            return spec.categories.index(text)
    if value in (0, 1) and spec.categories == ("False", "True"):  # booleans
        return value
    return None


def _refuse_unknown(words: list[str], spec: ColumnSpec) -> None:
    if words:
        raise InputError(
            f"column '{spec.name}' has the unknown categories {listed(words)}: in training they "
            f"were {listed(list(spec.categories), 12)}",
            "x",
        )
