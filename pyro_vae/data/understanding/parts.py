"""The parts of a data set: joined to be understood as one, and parted again."""

from dataclasses import dataclass, field
from mmap import mmap
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.data.column_spec import ColumnSpec
from pyro_vae.data.rows import Rows
from pyro_vae.data.source import Part, Source
from pyro_vae.data.understanding.labels import read_labels


@dataclass(frozen=True)
class Understood:
    """Examples of all parts together, as they are stored, and what they are.

    Attributes:
        examples: shape [N, *event].
        columns: see `Source`.
        names: see `Source`.
        notes: see `Source`.
        label_column: the values of the column that holds the labels, shape [N], if one does.
        pages: the file that the examples are mapped from, if they are.
        has_missing: whether some values are missing: NaN.
    """

    examples: Tensor | Rows
    columns: tuple[ColumnSpec, ...]
    names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    label_column: Any = None
    pages: mmap | None = None
    has_missing: bool = False


def part_again(
    understood: Understood, lengths: dict[str, int], labels: dict[str, Any], label_name: str
) -> Source:
    """Return the parts of examples that are understood.

    Args:
        understood: the examples of all parts, in the order of `lengths`.
        lengths: the number of examples in each part, by its name.
        labels: labels by the part's name; not all parts need have some.
        label_name: what messages call the labels.

    Raises:
        InputError: if there are more or fewer labels than examples.
    """
    ends = np.cumsum(list(lengths.values()))
    rows = {
        part: slice(int(end) - lengths[part], int(end))
        for part, end in zip(lengths, ends, strict=True)
    }
    if understood.label_column is not None:
        labels = {part: understood.label_column[rows[part]] for part in rows}
    codes, label_names, notes = _read_all(labels, lengths, label_name)
    examples = understood.examples
    parts = {
        part: Part(
            examples if len(rows) == 1 else _take(examples, rows[part]),
            codes.get(part),
            understood.pages,
        )
        for part in rows
    }
    return Source(
        parts["train"],
        parts.get("validation"),
        parts.get("test"),
        understood.columns,
        understood.names,
        label_names,
        tuple(understood.notes + notes),
        has_missing=understood.has_missing,
    )


def _take(examples: Tensor | Rows, rows: slice) -> Tensor | Rows:
    return examples.subset(rows) if isinstance(examples, Rows) else examples[rows]


def _read_all(
    labels: dict[str, Any], lengths: dict[str, int], name: str
) -> tuple[dict[str, Tensor], tuple[str, ...], list[str]]:
    """Return the labels of the parts that have some, numbered alike in all parts."""
    with_labels = [part for part in lengths if part in labels]
    if not with_labels:
        return {}, (), []
    for part in with_labels:
        read_labels(np.zeros(len(labels[part])), lengths[part], f"{name}, {part} set")
    joined = np.concatenate([np.asarray(labels[part]) for part in with_labels])
    codes, label_names, note = read_labels(joined, len(joined), name)
    if codes is None:
        return {}, (), [note] if note else []
    split = codes.split([lengths[part] for part in with_labels])
    return dict(zip(with_labels, split, strict=True)), label_names, [note] if note else []
