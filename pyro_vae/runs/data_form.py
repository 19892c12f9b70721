"""What a run remembers of its data, in `data.pt`: all that is needed to use the model without them.

The file holds plain numbers, strings and tensors. It has no example of the data.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pyro_vae import checkpoint, kinds
from pyro_vae.data import ColumnSpec, Dataset
from pyro_vae.data.column_spec import KIND_NAMES
from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Kind

NAME = "data.pt"
VERSION = 1
TYPES = {
    str(each).removeprefix("torch."): each
    for each in (torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64)
}


@dataclass(frozen=True)
class DataForm:
    """The form of a run's data.

    Attributes:
        kind: what the examples are, as the likelihood sees them, with its statistics.
        columns: what the stored values of x are: one for each column of a table, or one for all.
        conditions: what the conditions are, one for each column of them.
        labels_are_given: whether the condition is the labels.
        label_names: what the labels 0, 1, .. stand for, if they have names.
        ignored: names of columns that were left out of x: dropped ones, and labels.
        columns_are_positions: whether columns have no names but their places in an array.
        dtype: the type that examples are stored in, `uint8` for example.
        fingerprint: what identifies the data; see `Dataset`.
    """

    kind: Kind
    columns: tuple[ColumnSpec, ...]
    conditions: tuple[ColumnSpec, ...]
    labels_are_given: bool
    label_names: tuple[str, ...]
    ignored: tuple[str, ...]
    columns_are_positions: bool
    dtype: str
    fingerprint: str

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        kind: Kind,
        *,
        labels_are_given: bool = False,
        ignored: Sequence[str] = (),
        is_array: bool = False,
    ) -> "DataForm":
        """Return the form of a data set.

        Args:
            dataset: the data set of a run, whose conditions are beside its examples.
            kind: what the likelihood says that the data are, with its statistics.
            labels_are_given: whether the condition is the labels.
            ignored: names of columns that were left out.
            is_array: whether the data came as an array, whose columns have no names as a rule.
        """
        names = [*dataset.names, *(spec.name for spec in dataset.conditions)]
        return cls(
            kind,
            dataset.columns,
            dataset.conditions,
            labels_are_given,
            dataset.label_names,
            tuple(ignored),
            is_array and bool(dataset.names) and all(name.isdecimal() for name in names),
            str(dataset.validation.dtype).removeprefix("torch."),
            dataset.fingerprint,
        )

    @property
    def of_x(self) -> Kind:
        """The kind of x, without conditions."""
        return self.kind.of if isinstance(self.kind, Conditional) else self.kind

    @property
    def stored_type(self) -> torch.dtype:
        """The type that examples are stored in."""
        return TYPES[self.dtype]

    def save(self, folder: Path) -> None:
        """Write `data.pt`. If a kind cannot be saved, the file says so."""
        try:
            state = {
                "kind": kinds.to_state(self.kind),
                "columns": [_plain(column) for column in self.columns],
                "conditions": [_plain(column) for column in self.conditions],
                "labels_are_given": self.labels_are_given,
                "label_names": list(self.label_names),
                "ignored": list(self.ignored),
                "columns_are_positions": self.columns_are_positions,
                "dtype": self.dtype,
                "fingerprint": self.fingerprint,
            }
        except InputError as error:
            state = {"refused": str(error)}
        checkpoint.save(folder / NAME, {"version": VERSION, **state})

    @classmethod
    def read(cls, folder: Path) -> "DataForm":
        """Read `data.pt`.

        Args:
            folder: the folder of a run.

        Raises:
            InputError: if there is no such file, or it cannot be used.
        """
        path = folder / NAME
        if not path.exists():
            raise InputError(
                f"{folder} has no {NAME}, since it was made by an older version: resume it once "
                "with its data, which writes the file"
            )
        state = checkpoint.load(path)
        if "refused" in state:
            raise InputError(f"{folder} cannot be used without its data: {state['refused']}")
        try:
            if checkpoint.typed(state, "version", int) > VERSION:
                raise InputError(f"{path} is of a newer version of pyro_vae: install that one")
            if checkpoint.typed(state, "dtype", str) not in TYPES:
                raise ValueError(state["dtype"])
            kind = kinds.from_state(state["kind"])
            columns, conditions = _specs(state["columns"]), _specs(state["conditions"])
            of = kind.of if isinstance(kind, Conditional) else kind
            if len(columns) != (of.shape[0] if columns and columns[0].name else 1):
                raise ValueError(f"{len(columns)} columns")
            if len(conditions) != (kind.given.shape[0] if isinstance(kind, Conditional) else 0):
                raise ValueError(f"{len(conditions)} conditions")
            return cls(
                kind,
                columns,
                conditions,
                checkpoint.typed(state, "labels_are_given", bool),
                _texts(state, "label_names"),
                _texts(state, "ignored"),
                checkpoint.typed(state, "columns_are_positions", bool),
                state["dtype"],
                checkpoint.typed(state, "fingerprint", str),
            )
        except InputError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged: replace it with a complete copy") from error


def _plain(column: ColumnSpec) -> dict[str, Any]:
    return {**asdict(column), "categories": list(column.categories)}


def _specs(states: list[dict[str, Any]]) -> tuple[ColumnSpec, ...]:
    if not all(checkpoint.typed(state, "kind", str) in KIND_NAMES for state in states):
        raise ValueError("there is a column of an unknown kind")
    return tuple(
        ColumnSpec(
            checkpoint.typed(state, "name", str),
            state["kind"],
            _texts(state, "categories"),
            checkpoint.typed(state, "levels", int),
        )
        for state in states
    )


def _texts(state: dict[str, Any], name: str) -> tuple[str, ...]:
    texts = checkpoint.typed(state, name, list)
    if not all(isinstance(each, str) for each in texts):
        raise TypeError(f"{name} has something else than texts")
    return tuple(texts)
