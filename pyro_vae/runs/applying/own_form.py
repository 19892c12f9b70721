"""Examples in the form that the data had: tables with names of categories, or arrays."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data import ColumnSpec
from pyro_vae.data.understanding.given_kinds import number_texts
from pyro_vae.kinds import Binary, Conditional, Incomplete, Kind, Pixels, UnitInterval
from pyro_vae.runs.data_form import DataForm


def in_own_form(form: DataForm, x: Tensor, are_means: bool = False) -> Any:
    """Return examples in the form that the data had.

    Args:
        form: the form of the run's data.
        x: examples as the likelihood sees them, with their conditions, shape [N, *event].
        are_means: whether values may be means, which lie between the levels of pixels and between
            counts.

    Returns:
        A DataFrame of a table whose columns have names, with its conditions; otherwise an array. Of
        pictures and of labels as conditions it is x alone.
    """
    return from_stored(form, as_stored(form, x.cpu(), are_means), are_means)


def as_stored(form: DataForm, x: Tensor, are_means: bool = False) -> Tensor:
    """Return examples with values on the scale on which they are stored, of the same shape."""
    if not isinstance(form.kind, Conditional):
        return _unscaled(form.kind, x, are_means)
    own, y = form.kind.parted(x)
    return form.kind.packed(_unscaled(form.kind.of, own, are_means), y)


def from_stored(form: DataForm, stored: Tensor, are_means: bool = False) -> Any:
    """Return examples on their stored scale in the form that the data had; see `in_own_form`."""
    kind, columns = form.kind, list(form.columns)
    own = stored
    if isinstance(kind, Conditional):
        own = kind.parted(stored)[0]
    names = form.of_x.names
    if names is None:
        return (own.float() if are_means else own.to(_type_of_x(form))).numpy()
    columns = _with_names(columns, names)
    if isinstance(kind, Conditional) and not form.labels_are_given:
        own, columns = stored, [*columns, *form.conditions]
    table = _table(own.double().numpy(), columns)
    if form.columns_are_positions:
        table = table[sorted(table.columns, key=int)]
        if all(dtype.kind in "bif" for dtype in table.dtypes):
            return table.to_numpy(np.float64)
    return table


def columns_of_numbers(form: DataForm) -> list[str]:
    """Return the names of the columns of x that hold numbers, and neither categories nor bits."""
    columns = _with_names(form.columns, form.of_x.names or ())
    return [spec.name for spec in columns if spec.kind not in ("binary", "categories", "ordered")]


def _with_names(columns: Sequence[ColumnSpec], names: Sequence[str]) -> list[ColumnSpec]:
    """Return what each column is, where one of them may stand for all."""
    if len(columns) == 1 and not columns[0].name:
        return [replace(columns[0], name=name) for name in names]
    return list(columns)


def _type_of_x(form: DataForm) -> torch.dtype:
    """Return the type of x alone; that with conditions is wider for some."""
    largest = form.columns[0].levels if len(form.columns) == 1 else 0
    if isinstance(form.kind, Conditional) and 0 < largest <= 256:
        return torch.float32 if isinstance(form.of_x, Incomplete) else torch.uint8
    return form.stored_type


def _unscaled(kind: Kind, x: Tensor, are_means: bool) -> Tensor:
    whole = kind.whole if isinstance(kind, Incomplete) else kind
    if isinstance(whole, Binary):
        return x * whole.largest
    if isinstance(whole, UnitInterval) and isinstance(whole.levels, int):
        levels = x * whole.levels
        return (levels - 0.5 if are_means else levels.floor()).clamp(0, whole.largest)
    return x.clamp(0, whole.largest) if isinstance(whole, Pixels) else x


def _table(values: np.ndarray, columns: Sequence[ColumnSpec]) -> Any:
    """Return a DataFrame of numbers and codes [N, D]."""
    import pandas as pd

    return pd.DataFrame(
        {spec.name: _column(values[:, place], spec) for place, spec in enumerate(columns)}
    )


def _column(values: np.ndarray, spec: ColumnSpec) -> Any:
    """Return the values of a column: names of the nearest categories, or numbers."""
    if spec.categories:
        words, last = _meanings(spec.categories), len(spec.categories) - 1
        codes = np.rint(np.nan_to_num(values)).clip(0, last).astype(np.int64)
        if not np.isnan(values).any():
            return words[codes]
        return np.where(np.isnan(values), None, words[codes].astype(object))
    is_whole = spec.kind in ("binary", "levels", "counts") and not np.isnan(values).any()
    if is_whole and (values == np.rint(values)).all():
        return values.astype(np.int64)
    return values


def _meanings(categories: Sequence[str]) -> np.ndarray:
    """Return what codes stand for: booleans, numbers if the names are such, or the names."""
    if tuple(categories) == ("False", "True"):
        return np.array([False, True])
    try:
        numbers = np.array([float(name) for name in categories])
    except ValueError:
        return np.array(categories, object)
    if number_texts(numbers) != list(categories):  # with leading zeros, for example
        return np.array(categories, object)
    whole = all(number.is_integer() for number in numbers.tolist())
    return numbers.astype(np.int64) if whole else numbers
