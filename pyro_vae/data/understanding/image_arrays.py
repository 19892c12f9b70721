"""Images and series, as arrays: which axis is which, and what the pixels are."""

from dataclasses import replace

import numpy as np

from pyro_vae.data.column_spec import ColumnSpec
from pyro_vae.data.rows import RowReader
from pyro_vae.data.source import ReadOptions
from pyro_vae.data.understanding.given_kinds import ALL, check_names, given_numbers, parse_kind
from pyro_vae.data.understanding.missing_values import percent_as_text
from pyro_vae.data.understanding.parts import Understood
from pyro_vae.data.understanding.rules import infer_pixels
from pyro_vae.data.understanding.skewness import skewness_of_rows
from pyro_vae.data.understanding.storing import stored
from pyro_vae.data.understanding.summaries import (
    Column,
    Summary,
    describe_column,
    sample_rows,
    summarise,
)
from pyro_vae.errors import InputError

PIXELS = 1_000_000  # of a sample
CHANNELS = (1, 3, 4)  # of grey images, RGB, and RGB with opacity


def understand_pixels(
    array: np.ndarray | RowReader, options: ReadOptions, where: str, summary: Summary | None = None
) -> Understood:
    """Return what the numbers [N, H, W], [N, C, H, W] or [N, H, W, C] are.

    Args:
        array: the numbers, or what reads them; that has channels first.
        options: what the user says about the data.
        where: the name of the file or object, for messages.
        summary: the facts about all numbers, if they are there already.

    Raises:
        InputError: if it is not clear which axis is which, or the numbers cannot be used.
    """
    check_names(options, [], where)
    notes: list[str] = []
    if isinstance(array, np.ndarray):
        array, notes = channels_first(array, where)
    summary = summarise(array) if summary is None else summary
    if summary.num_infinite[0]:
        raise InputError(
            f"{where} has {summary.num_infinite[0]:,} infinite values: replace them, or remove "
            "their examples",
            "name",
        )
    num_missing = int(summary.num_missing[0])
    if num_missing == array.size:
        raise InputError(f"{where} has no values: all are missing (NaN)", "name")
    if num_missing:
        notes.append(
            f"missing: {percent_as_text(num_missing / array.size)} of all pixels; log p(x) is that "
            "of the observed ones"
        )
    sample = sample_rows(array, max(1, PIXELS * len(array) // array.size)).reshape(-1)
    low, high = summary.ends()
    asks_all = sample.size < array.size and low > 0 and not summary.whole[0]
    skewnesses = skewness_of_rows(array, None)[0] if asks_all else None
    column = describe_column(
        sample, array.size, low, high, bool(summary.whole[0]), skewnesses=skewnesses
    )
    if ALL in options.columns:
        spec = _given(options.columns[ALL], column)
    else:
        spec, more = infer_pixels(summary, column)
        notes += more
    examples = stored(array, spec, num_missing > 0)
    return Understood(examples, (spec,), (), notes, has_missing=num_missing > 0)


def channels_first(array: np.ndarray, where: str) -> tuple[np.ndarray, list[str]]:
    """Return images with channels first, as a view, and a note if they had them last.

    Raises:
        InputError: if it is not clear where the channels are.
    """
    if array.ndim != 4:
        return array, []
    count, first, middle, last = array.shape
    if last in CHANNELS and first not in CHANNELS:
        note = (
            f"{where} has channels last, [N, {first}, {middle}, {last}]: taken as images "
            f"[N, {last}, {first}, {middle}]"
        )
        return np.moveaxis(array, -1, 1), [note]
    if first in CHANNELS or first < min(middle, last):
        return array, []
    raise InputError(
        f"{where} has shape {[count, first, middle, last]}, and it is not clear which axis holds "
        f"the channels: transpose it to [N, C, H, W] with fewer channels than rows and columns, or "
        "reshape it to vectors [N, D]",
        "name",
    )


def _given(text: str, column: Column) -> ColumnSpec:
    """Return what the user says that all pixels are.

    Raises:
        InputError: if the pixels are not of this kind.
    """
    kind, _ = parse_kind(ALL, text)
    if kind in ("categories", "ordered"):
        raise InputError(f"pixels cannot be {kind}: choose levels, for example", "columns")
    if kind != "binary":
        return replace(given_numbers(ALL, text, column), name="")
    if not column.whole or column.low < 0 or column.high > 1:
        raise InputError(
            "the pixels cannot be binary: this kind needs whole numbers from 0 to 1, and they are "
            f"numbers from {column.low:g} to {column.high:g}: choose another kind",
            "columns",
        )
    return ColumnSpec("", kind, levels=2)
