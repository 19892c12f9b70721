"""What a source returns: the parts of a data set, and what their columns or pixels are."""

from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path

import torch
from torch import Tensor

from pyro_vae.data.column_spec import ColumnSpec
from pyro_vae.data.rows import LARGE, Rows
from pyro_vae.data.rows.mapped_rows import MappedRows
from pyro_vae.data.rows.sparse_rows import SparseRows
from pyro_vae.kinds import Kind

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Part:
    """Some examples.

    Attributes:
        examples: shape [N, *event]: `uint8`, `int32`, `float32` or `float64`; or a sparse matrix
            [N, D] in torch's CSR layout; or rows that are read when they are needed.
        labels: one for each example, shape [N], `int64`, if the data set has labels.
        pages: the file that the examples are mapped from, if they are; see `give_back`.
    """

    examples: Tensor | Rows
    labels: Tensor | None = None
    pages: mmap | None = None

    @property
    def is_large(self) -> bool:
        """Whether the examples are read when they are needed: there are too many to be copied."""
        if isinstance(self.examples, Rows):
            return True
        return self.pages is not None and self.examples.nbytes > LARGE

    def __getitem__(self, index: Tensor) -> "Part":
        """Return the examples at these indices, with their labels; large ones are not read yet."""
        labels = None if self.labels is None else self.labels[index]
        if isinstance(self.examples, Rows):
            return Part(self.examples.subset(index), labels)
        if self.examples.is_sparse_csr:
            return Part(Rows(SparseRows(self.examples), index), labels)
        if self.is_large:
            return Part(Rows(MappedRows(self.examples, self.pages), index), labels)
        return Part(self.examples[index], labels)

    def read(self) -> "Part":
        """Return the part with all its examples in memory, and dense."""
        if isinstance(self.examples, Rows):
            return Part(self.examples[:], self.labels)
        if self.examples.is_sparse_csr:
            return self[torch.arange(len(self.examples))].read()
        return self


@dataclass(frozen=True)
class Source:
    """The parts that a data set comes with.

    Attributes:
        train: the training examples.
        validation: the validation examples, or None: they are then split off from `train`.
        test: the test examples, or None: they are then split off from `train`, too.
        columns: what the values are: one for each column of a table, or one for all columns or
            pixels. If it is empty, `load` infers it by the rules in `understanding/rules.py`.
        names: the names of the columns of a vector, if they have names.
        label_names: what the labels 0, 1, .. stand for, if they have names.
        notes: sentences to print: what was done to the data, and what may be wrong with them.
        usual: the kind as which such data are usually modelled; None for their own.
        has_missing: whether some values are missing: NaN in the examples.
    """

    train: Part
    validation: Part | None = None
    test: Part | None = None
    columns: tuple[ColumnSpec, ...] = ()
    names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    usual: type[Kind] | None = None
    has_missing: bool = False


@dataclass(frozen=True)
class ReadOptions:
    """What a user may say about the data.

    Attributes:
        columns: kinds of columns by name, instead of the inferred ones. `ordered low < high` gives
            the order, too. The name `all` stands for all columns or pixels of an array.
        drop: names of columns that are left out.
        labels: the name of the column or array that holds the labels.
        image_size: the height and width of pictures in a folder, in pixels.
    """

    columns: dict[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    labels: str | None = None
    image_size: int | None = None


# The arguments are the name or path that the user gave, the folder for downloaded sets, and what
# the user says about the data. A reader raises InputError if there is no such data set or it cannot
# be used.
Reader = Callable[[str, Path, ReadOptions], Source]


def first_line(error: Exception, path: Path | None = None) -> str:
    """Return the first line of an error, at most 120 characters of it, without the file's path."""
    text = str(error) if path is None else str(error).replace(repr(str(path)), "")
    return text.strip(" :\n").split("\n")[0][:120] or type(error).__name__


def listed(items: list[str], most: int = 8) -> str:
    """Return items with commas; of more than `most`, the first ones and how many more."""
    rest = len(items) - most
    shown = [" ".join(item.split()) for item in items[:most]]  # a message is one line
    return ", ".join(shown) + (f" and {rest:,} more" if rest > 0 else "")
