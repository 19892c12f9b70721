"""What a column can be, and the kind of a data set whose columns or pixels are these."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pyro_vae import kinds
from pyro_vae.kinds import Kind

KindName = Literal[
    "binary", "levels", "unit_interval", "real", "positive", "counts", "categories", "ordered"
]
KIND_NAMES: tuple[str, ...] = get_args(KindName)


@dataclass(frozen=True)
class ColumnSpec:
    """What a column is, or what all columns or pixels are if a source has one of these only.

    Attributes:
        name: the column's name; empty if this describes all columns or pixels.
        kind: the kind of its values.
        categories: what the codes 0, 1, .. stand for, of binary, categories and ordered; for values
            that are stored as they are it is empty.
        levels: the number of levels, of binary and levels; otherwise 0.
    """

    name: str
    kind: KindName
    categories: tuple[str, ...] = ()
    levels: int = 0


def kind_of_values(
    columns: Sequence[ColumnSpec], shape: Sequence[int], names: Sequence[str] = ()
) -> Kind:
    """Return what examples are, without statistics.

    Args:
        columns: what the values are: one for each column of a table, or one for all columns or
            pixels.
        shape: the shape of one example.
        names: the names of the columns of a vector, if they have names.
    """
    if len(columns) == 1 and not columns[0].name:
        return _kind(columns[0], shape, names or None, [columns[0]] * shape[0])
    names = [column.name for column in columns]
    groups: dict[tuple[str, int], list[int]] = {}
    for place, column in enumerate(columns):
        groups.setdefault((column.kind, column.levels), []).append(place)
    parts = []
    for places in groups.values():
        group = [columns[place] for place in places]
        kind = _kind(group[0], [len(places)], [column.name for column in group], group)
        parts.append((kind, places))
    return parts[0][0] if len(parts) == 1 else kinds.Columns(parts, names)


def _kind(
    spec: ColumnSpec,
    shape: Sequence[int],
    names: Sequence[str] | None,
    columns: Sequence[ColumnSpec],
) -> Kind:
    """Return the kind of values that are all alike, but for their categories."""
    match spec.kind:
        case "binary":
            return kinds.Binary(shape, names, levels=2)
        case "levels":
            return kinds.Levels(shape, names, levels=spec.levels)
        case "unit_interval":
            return kinds.UnitInterval(shape, names, levels=None)
        case "real":
            return kinds.Real(shape, names)
        case "positive":
            return kinds.Positive(shape, names)
        case "counts":
            return kinds.Counts(shape, names)
        case "categories":
            return kinds.Categories(shape, names, [column.categories for column in columns])
        case "ordered":
            return kinds.Ordered(shape, names, [column.categories for column in columns])
