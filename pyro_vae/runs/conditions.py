"""Conditions of a run: columns or labels that are known, and that p(x | z, y) is given."""

from dataclasses import replace

import torch
from torch import Tensor

from pyro_vae import kinds
from pyro_vae.data import Dataset
from pyro_vae.data.column_spec import ColumnSpec, kind_of_values
from pyro_vae.data.source import PARTS
from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Incomplete, Kind

LABELS = "labels"  # the name by which labels that are no column are a condition

Conditions = tuple[Tensor, Tensor, Tensor]  # of the three parts, shape [N, Dy]


def take_out(dataset: Dataset, names: list[str]) -> tuple[Dataset, Kind, Conditions]:
    """Take the conditions out of a data set.

    Args:
        dataset: the data set.
        names: names of columns, or `labels`.

    Returns:
        The data set without these columns, the kind of the conditions, and the conditions.

    Raises:
        InputError: if there are no such columns or labels, none would be left, some conditions are
            missing, or the data are larger than memory.
    """
    if not isinstance(dataset.train, Tensor):
        raise InputError("data that are larger than memory cannot have conditions yet", "condition")
    shown = dataset.names
    if names == [LABELS] and LABELS in shown and dataset.train_labels is not None:
        raise InputError(
            "labels may stand for the labels of the data, or for their column of this name: rename "
            "the column",
            "condition",
        )
    if names == [LABELS] and LABELS not in shown:
        kind, classes = _labels(dataset)
        spec = ColumnSpec("label", "categories", kind.categories[0])
        return replace(dataset, conditions=(spec,)), kind, classes
    chosen = _places(dataset, names)
    rest = [place for place in range(len(shown)) if place not in chosen]
    parts = [getattr(dataset, part) for part in PARTS]
    given = _kind_of(dataset, chosen)
    of = _kind_of(dataset, rest)
    if _has_missing(dataset, rest):
        of = Incomplete(of)
    columns = dataset.columns
    train, validation, test = (part[:, rest] for part in parts)
    changed = replace(
        dataset,
        kind=of,
        train=train,
        validation=validation,
        test=test,
        columns=tuple(columns[place] for place in rest) if len(columns) > 1 else columns,
        names=tuple(shown[place] for place in rest),
        conditions=tuple(
            columns[at] if len(columns) > 1 else replace(columns[0], name=shown[at])
            for at in chosen
        ),
    )
    train, validation, test = (part[:, chosen] for part in parts)
    return changed, given, (train, validation, test)


def put_back(dataset: Dataset, given: Kind, conditions: Conditions) -> Dataset:
    """Return a data set whose examples have their conditions beside them; see `Conditional`.

    Args:
        dataset: the data set without conditions.
        given: the kind of the conditions.
        conditions: what `take_out` returned.
    """
    kind = Conditional(dataset.kind, given)
    train, validation, test = (
        kind.packed(getattr(dataset, name), y) for name, y in zip(PARTS, conditions, strict=True)
    )
    return replace(dataset, kind=kind, train=train, validation=validation, test=test)


def _labels(dataset: Dataset) -> tuple[kinds.Categories, Conditions]:
    """Return the labels as one column of categories."""
    found = [getattr(dataset, f"{part}_labels") for part in PARTS]
    labels = [each for each in found if isinstance(each, Tensor)]
    if len(labels) < 3:
        raise InputError(
            "the data have no labels to be a condition: name them with labels, or name columns",
            "condition",
        )
    count = 1 + max(int(each.max()) for each in labels)
    if min(int(each.min()) for each in labels) < 0 or not 2 <= count <= 1000:
        raise InputError("labels as a condition have to be two or more classes 0, 1, ..", "labels")
    names = dataset.label_names or tuple(str(code) for code in range(count))
    train, validation, test = (each.unsqueeze(1) for each in labels)
    return kinds.Categories([1], ["label"], [names]), (train, validation, test)


def _places(dataset: Dataset, names: list[str]) -> list[int]:
    """Return the places of the columns that are conditions.

    Raises:
        InputError: if they cannot be conditions, with the reason.
    """
    shown = dataset.names
    if len(set(names)) < len(names):
        raise InputError(f"a condition is named twice in {', '.join(names)}", "condition")
    unknown = [name for name in names if name not in shown]
    if unknown:
        found = (
            f"their columns are {', '.join(shown[:20])}" if shown else "they have no named columns"
        )
        labels = ", and labels" if dataset.train_labels is not None else ""
        raise InputError(
            f"the data have no column {', '.join(unknown)} to be a condition: {found}{labels}",
            "condition",
        )
    chosen = [shown.index(name) for name in names]
    if len(chosen) == len(shown):
        raise InputError("all columns are conditions, and none is left: name fewer", "condition")
    missing = [name for name, at in zip(names, chosen, strict=True) if _has_missing(dataset, [at])]
    if missing:
        raise InputError(
            f"the condition {', '.join(missing)} has missing values, and conditions have to be "
            "known: fill them, remove their rows, or choose other conditions",
            "condition",
        )
    return chosen


def _has_missing(dataset: Dataset, places: list[int]) -> bool:
    parts = (getattr(dataset, part) for part in PARTS)
    return any(part.is_floating_point() and bool(part[:, places].isnan().any()) for part in parts)


def _kind_of(dataset: Dataset, places: list[int]) -> Kind:
    """Return what some columns are."""
    columns, names = dataset.columns, [dataset.names[place] for place in places]
    if len(columns) == 1:  # of all columns
        return kind_of_values(columns, torch.Size([len(places)]), names)
    return kind_of_values([columns[place] for place in places], [len(places)], names)
