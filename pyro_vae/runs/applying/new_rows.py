"""New data as a run stores its examples, or an error that says what does not fit.

Data that do not fit are refused, because a model gives every array of the right shape a number.
Other types of the same values fit. Columns of tables are found by their names; arrays have them in
the order of the training data.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data import ColumnSpec
from pyro_vae.data.number_types import readable
from pyro_vae.data.rows.sparse_rows import checked_csr
from pyro_vae.data.source import listed
from pyro_vae.data.understanding.arrays import to_array
from pyro_vae.data.understanding.missing_values import plain_array
from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Incomplete, Kind, column_names
from pyro_vae.runs.applying.new_columns import read_frame, read_values
from pyro_vae.runs.data_form import DataForm

FINE = 15  # the largest level of pictures of which none has no level above 1


def stored_rows(form: DataForm, x: Any, y: Any = None) -> Tensor:
    """Return new rows as stored examples, with their conditions beside them.

    Args:
        form: the form of the run's data.
        x: an array, a tensor or a DataFrame; or arrays of columns by their names.
        y: conditions of all rows, if x does not hold them; see `stored_conditions`.

    Raises:
        InputError: with what does not fit.
    """
    kind = form.kind
    if not isinstance(kind, Conditional):
        if y is not None:
            raise InputError("this model has no conditions: leave y out", "y")
        rows = _values(x, kind, form.columns, form.ignored, form.columns_are_positions)
    elif y is None:
        names = [spec.name for spec in form.conditions]
        if form.labels_are_given or kind.names is None:
            raise InputError(f"this model is given {listed(names)}: give them as y", "y")
        specs = (*_each(kind.of, form.columns), *form.conditions)
        rows = _values(x, kind, specs, form.ignored, form.columns_are_positions)
    else:
        ignored = (*form.ignored, *_names(form))
        own = _values(x, kind.of, form.columns, ignored, form.columns_are_positions)
        rows = kind.packed(own.double(), stored_conditions(form, y, len(own)))
    _check(rows, kind)
    return rows.to(form.stored_type)


def stored_conditions(form: DataForm, y: Any, count: int) -> Tensor:
    """Return conditions as they are stored, `float64`, shape [count, Dy].

    Args:
        form: the form of the run's data.
        y: a DataFrame with the conditions' columns; a dict of them; an array [N, Dy], or [N] of a
            single condition; or one value of a single condition, for all rows. Labels without
            names, and those of which no name is a number, may be codes 0, 1, ..
        count: the number of rows.

    Raises:
        InputError: with what does not fit.
    """
    import pandas as pd

    names = _names(form)
    if isinstance(y, Tensor):
        y = to_array(y)
    if isinstance(y, dict):
        y = pd.DataFrame({name: np.atleast_1d(values) for name, values in y.items()})
    if not hasattr(y, "columns"):
        array = np.atleast_1d(np.asarray(y))
        array = array[:, None] if array.ndim == 1 and len(names) == 1 else np.atleast_2d(array)
        if array.ndim != 2 or array.shape[1] != len(names):
            raise InputError(
                f"y has the shape {list(np.shape(y))}: it needs a column for each of "
                f"{listed(names)}",
                "y",
            )
        y = pd.DataFrame({name: array[:, place] for place, name in enumerate(names)})
        y = y.infer_objects()
    if len(y) not in (1, count):
        raise InputError(f"there are {len(y)} conditions y for {count} rows: give one each", "y")
    kind = form.kind
    assert isinstance(kind, Conditional)
    specs = list(form.conditions)
    if form.labels_are_given:
        specs = [_codes_or_names(specs[0], y)]
    stored = torch.from_numpy(read_frame(y, specs, y.columns)).expand(count, -1)
    if stored.isnan().any():
        raise InputError("some conditions y are missing, and they have to be known", "y")
    kind.given.check(stored)
    return stored


def _codes_or_names(spec: ColumnSpec, y: Any) -> ColumnSpec:
    """Return labels with names as codes, if codes are given and no name is a number."""
    are_codes = spec.name in y and y[spec.name].dtype.kind in "iub"
    if not are_codes or any(name.lstrip("-").isdecimal() for name in spec.categories):
        return spec
    return replace(spec, categories=tuple(str(code) for code in range(len(spec.categories))))


def _names(form: DataForm) -> list[str]:
    return [spec.name for spec in form.conditions]


def _by_position(array: np.ndarray, names: Sequence[str]) -> Any:
    """Return the columns of an array in the order of names that are their places.

    Columns that were left out in training may be there, or not.

    Args:
        array: numbers, shape [N, W].
        names: the names of the columns.

    Returns:
        An array [N, D], or a DataFrame whose columns have their places as names.
    """
    if array.shape[1] > max(len(names) - 1, *map(int, names)) and array.shape[1] > len(names):
        import pandas as pd

        return pd.DataFrame(array)
    if array.shape[1] != len(names):
        return array
    rising = sorted(names, key=int)
    return array[:, [rising.index(name) for name in names]]


def _each(kind: Kind, columns: Sequence[ColumnSpec]) -> list[ColumnSpec]:
    """Return what each column of vectors is."""
    if len(columns) == 1 and not columns[0].name:
        return [replace(columns[0], name=name) for name in column_names(kind)]
    return list(columns)


def _values(
    x: Any, kind: Kind, columns: Sequence[ColumnSpec], ignored: Sequence[str], by_position: bool
) -> Tensor:
    """Return numbers and codes, of a type that holds them, shape [N, *kind.shape].

    Args:
        x: see `stored_rows`.
        kind: what they are.
        columns: what each column is, or all values.
        ignored: names of columns that are left out without a warning.
        by_position: whether the names of columns are their places in arrays.
    """
    is_vector = len(kind.shape) == 1
    if isinstance(x, dict) or getattr(getattr(x, "dtype", None), "names", None):
        import pandas as pd  # columns with names

        x = pd.DataFrame(x)
    if hasattr(x, "columns") and hasattr(x, "set_axis"):
        if not is_vector:
            raise InputError(
                f"a table cannot be used: the model was trained on arrays [N, {_sizes(kind)}]", "x"
            )
        if len(x) == 0:
            raise InputError("the table has no rows: give one or more", "x")
        if kind.names is not None:
            return torch.from_numpy(read_frame(x, _each(kind, columns), ignored))
        x = x.to_numpy()
    array = _numbers(x, kind)
    if by_position and array.ndim == 2 and kind.names is not None:
        array = _by_position(array, kind.names)
        if not isinstance(array, np.ndarray):
            return torch.from_numpy(read_frame(array, _each(kind, columns), ignored))
    elif isinstance(kind, Conditional):
        names = listed(column_names(kind.given))
        raise InputError(
            f"the columns of an array have no names, and some of them are conditions: give a "
            f"DataFrame, or leave {names} out of x and give them as y",
            "x",
        )
    array = _fit_shape(array, kind)
    specs = _each(kind, columns) if is_vector else []
    if any(spec.categories for spec in specs):
        coded = [read_values(array[:, place], spec) for place, spec in enumerate(specs)]
        return torch.from_numpy(np.stack(coded, 1))
    _check_scale(array, kind, columns)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _numbers(x: Any, kind: Kind) -> np.ndarray:
    """Return an array of a type that torch has, or say what is wrong with it."""
    if isinstance(x, Tensor):
        x = to_array(x)
    elif hasattr(x, "tocsr"):
        x = checked_csr(x, "x", "x").toarray()
    elif isinstance(x, np.ndarray):
        x = plain_array(x, "the array")
    array = np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"x holds {array.dtype}: give numbers [N, {_sizes(kind)}], or a DataFrame of a table",
            "x",
        )
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return array.astype(np.int64 if array.max(initial=0) < 2**63 else np.float64)
    return np.ascontiguousarray(readable(array))


def _fit_shape(array: np.ndarray, kind: Kind) -> np.ndarray:
    """Return an array [N, *kind.shape]; channels may come last."""
    expected, found = tuple(kind.shape), array.shape
    if found[1:] == expected and len(found) == len(expected) + 1:
        if len(array) == 0:
            raise InputError("x has no rows: give one or more", "x")
        return array
    if array.ndim == 4 and (found[3], found[1], found[2]) == expected:
        return np.ascontiguousarray(np.moveaxis(array, -1, 1))
    cure = ": a single row is given as x[None]" if found == expected else ""
    names = f", the columns {listed(list(kind.names))}" if kind.names else ""
    raise InputError(
        f"x has the shape {list(found)}, and the model was trained on [N, {_sizes(kind)}]{names}"
        f"{cure or ': give such data'}",
        "x",
    )


def _sizes(kind: Kind) -> str:
    return ", ".join(map(str, kind.shape))


def _check_scale(array: np.ndarray, kind: Kind, columns: Sequence[ColumnSpec]) -> None:
    """Refuse pixels in [0, 1] where they were 0 to 255, and the other way round."""
    if len(columns) != 1:
        return
    spec, largest = columns[0], columns[0].levels - 1
    high = float(np.nanmax(array)) if np.isfinite(array).any() else 0.0
    # Whole numbers up to 1 may be levels of a dark row; they are no picture of many levels.
    of_unit_scale = array.dtype.kind in "fb" or (largest >= FINE and len(kind.shape) > 1)
    if spec.kind == "levels" and of_unit_scale and 0 < high <= 1 < largest:
        raise InputError(
            f"x has values from 0 to 1, and in training they were whole numbers from 0 to "
            f"{largest}: multiply by {largest}, and round",
            "x",
        )
    if spec.kind == "unit_interval" and high > 1:
        raise InputError(
            f"x has values up to {high:g}, and in training they were from 0 to 1: divide by the "
            "largest possible value",
            "x",
        )


def _check(rows: Tensor, kind: Kind) -> None:
    """Refuse missing values where training had none, and values that are not of the kind."""
    x, of = rows, kind
    if isinstance(kind, Conditional):
        x, of = kind.parted(rows)[0], kind.of
    if not isinstance(of, Incomplete) and x.is_floating_point() and x.isnan().any():
        where = ""
        if len(of.shape) == 1:
            holes = x.isnan().any(0).nonzero()[:, 0].tolist()
            where = f" in {listed([column_names(of)[place] for place in holes])}"
        raise InputError(
            f"x has missing values (NaN){where}, and the training data had none: fill them, or "
            "train on data with missing values",
            "x",
        )
    try:
        kind.check(rows)
    except InputError as error:
        raise InputError(str(error), "x") from error
