"""Labels, as files have them, made into whole numbers."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.understanding.odd_columns import LONGEST_TEXT
from pyro_vae.errors import InputError

MOST_CLASSES = 1000
FEW_CLASSES = 20  # of more than these, each has to occur 5 times on average
OFTEN = 5


def read_labels(
    values: Any, count: int, name: str
) -> tuple[Tensor | None, tuple[str, ...], str | None]:
    """Return labels as numbers, what the numbers stand for, and a note.

    Args:
        values: an array [N] or [N, 1] of whole numbers, booleans or strings, or one-hot [N, K].
        count: the number of examples.
        name: what the file calls the labels.

    Returns:
        `int64` labels [N], or None if the values are no labels, in which case the note says so; the
        names of the labels 0, 1, .., empty for whole numbers; and the note.

    Raises:
        InputError: if there are more or fewer labels than examples.
    """
    labels = np.asarray(values)
    if labels.ndim == 0 or len(labels) != count:
        number = len(labels) if labels.ndim else 1
        raise InputError(
            f"{name}: there are {number:,} labels for {count:,} examples: give one for each",
            "labels",
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and _is_one_hot(labels):
        return torch.from_numpy(labels.argmax(1).astype(np.int64)), (), None
    if labels.ndim != 1:
        return None, (), f"{name}: not used, because there are several for each example"
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise InputError(
                f"{name}: {(~np.isfinite(labels)).sum():,} are missing or infinite: remove these "
                "rows, or leave the labels out",
                "labels",
            )
        if (labels != np.rint(labels)).any():
            return (
                None,
                (),
                f"{name}: not used, because the numbers are not whole, so they are not classes",
            )
    if labels.dtype.kind in "biuf":
        distinct = len(np.unique(labels))
        if distinct > MOST_CLASSES or (distinct > FEW_CLASSES and OFTEN * distinct > count):
            return (
                None,
                (),
                f"{name}: not used, because {distinct:,} different numbers are not classes",
            )
        return torch.from_numpy(labels.astype(np.int64)), (), None
    if labels.dtype.kind in "OSUT":
        return _from_strings(labels, name)
    return None, (), f"{name}: not used, because they are {labels.dtype}, which are not classes"


def _from_strings(
    labels: np.ndarray, name: str
) -> tuple[Tensor | None, tuple[str, ...], str | None]:
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    missing = sum(value is None or value != value for value in labels.tolist())
    if missing:
        raise InputError(
            f"{name}: {missing:,} are missing: remove these rows, or leave the labels out",
            "labels",
        )
    longest = max((len(str(value)) for value in labels.tolist()), default=0)
    if longest > LONGEST_TEXT:
        return None, (), f"{name}: not used, because one is a text of {longest:,} characters"
    names, codes = np.unique(labels.astype(str), return_inverse=True)
    if len(names) > MOST_CLASSES or (len(names) > FEW_CLASSES and OFTEN * len(names) > len(labels)):
        return None, (), f"{name}: not used, because there are {len(names):,} different ones"
    return torch.from_numpy(codes.astype(np.int64)), tuple(names.tolist()), None


def _is_one_hot(labels: np.ndarray) -> bool:
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())
