"""Missing values: NaN, or a mask beside the numbers; and infinite values, which are refused."""

import numpy as np

from pyro_vae.data.source import listed
from pyro_vae.errors import InputError


def refuse_infinite(counts: np.ndarray, names: tuple[str, ...], where: str) -> None:
    """Refuse columns with infinite values.

    Args:
        counts: how many each column has, shape [D].
        names: the names of the columns.
        where: the name of the file or object, for messages.

    Raises:
        InputError: with the columns' names, and how many values there are.
    """
    if counts.any():
        found = [f"{names[j]} ({counts[j]:,})" for j in np.flatnonzero(counts)]
        raise InputError(
            f"{where} has infinite values in {len(found):,} of {len(names):,} columns: "
            f"{listed(found)}; replace them, remove their rows, or drop the columns",
            "name",
        )


def percent_as_text(share: float) -> str:
    """Return a share in percent, to two digits: `3.4 %`, `34 %`."""
    return f"{100 * share:.{2 if share < 0.995 else 3}g} %"


def note_missing(counts: np.ndarray, names: tuple[str, ...], num_rows: int, how: str) -> list[str]:
    """Return a sentence about missing values, if there are some.

    Args:
        counts: how many each column has, shape [D].
        names: the names of the columns.
        num_rows: how many rows there are.
        how: how they are written, for the sentence.
    """
    if not counts.any():
        return []
    order = np.argsort(-counts, kind="stable")
    found = [f"{names[j]} ({counts[j]:,})" for j in order if counts[j]]
    share = counts.sum() / (num_rows * len(names))
    return [
        f"missing: {percent_as_text(share)} of all values{how}, in {len(found):,} of "
        f"{len(names):,} columns: {listed(found, 4)}; log p(x) is that of the observed values"
    ]


def hide(array: np.ndarray, mask: np.ndarray, name: str, where: str) -> np.ndarray:
    """Return an array with NaN where a mask beside it says that values are missing.

    Args:
        array: numbers.
        mask: booleans, or 0 and 1, of the same shape.
        name: the mask's name, `missing` or `observed`, which says what true means.
        where: the name of the file or object, for messages.

    Raises:
        InputError: if the mask has another shape, or other values.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where} holds {array.dtype}: expected numbers beside {name}", "name")
    is_mask = mask.dtype.kind in "biuf" and mask.shape == array.shape
    if not is_mask or not np.isin(mask, (0, 1)).all():
        raise InputError(
            f"{where}: {name} has to hold 0 and 1 in the shape of the examples, "
            f"{list(array.shape)}; its shape is {list(mask.shape)}",
            "name",
        )
    is_missing = mask.astype(bool) == (name == "missing")
    kept = array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    kept[is_missing] = np.nan
    return kept


def plain_array(array: np.ndarray, where: str) -> np.ndarray:
    """Return an array of a plain type, NaN where it is masked.

    Raises:
        InputError: if it is masked, and holds no numbers.
    """
    if np.ma.is_masked(array):
        return hide(np.ma.getdata(array), np.ma.getmaskarray(array), "missing", where)
    return np.asarray(array)  # of a subclass, such as np.matrix, products differ
