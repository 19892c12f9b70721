"""A data set, loaded from one of the sources and split into three."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.data.column_spec import ColumnSpec, kind_of_values
from pyro_vae.data.fingerprint import fingerprint, row_hashes
from pyro_vae.data.rows import LARGE, Rows
from pyro_vae.data.source import PARTS, Part, Reader, ReadOptions, Source
from pyro_vae.data.sources.anndata_files import read_h5ad
from pyro_vae.data.sources.digits import read_digits
from pyro_vae.data.sources.image_folders import read_image_folder
from pyro_vae.data.sources.in_memory import source_of_object
from pyro_vae.data.sources.numpy_files import read_npy, read_npz
from pyro_vae.data.sources.table_files import read_parquet, read_text_table
from pyro_vae.data.sources.torch_files import read_torch
from pyro_vae.data.sources.torchvision_sets import TORCHVISION, read_torchvision
from pyro_vae.data.splitting import check_alike, note_repeats, split
from pyro_vae.data.understanding.arrays import source_of_arrays, to_array
from pyro_vae.errors import InputError
from pyro_vae.kinds import Incomplete, Kind

# By the name of a data set, or by the suffix of a file, with its dot; "/" stands for a folder.
SOURCES: dict[str, Reader] = {
    "digits": read_digits,
    **dict.fromkeys(TORCHVISION, read_torchvision),
    ".npy": read_npy,
    ".npz": read_npz,
    ".csv": read_text_table,
    ".tsv": read_text_table,
    ".parquet": read_parquet,
    ".pt": read_torch,
    ".h5ad": read_h5ad,
    "/": read_image_folder,
}

# What to do with files of other types, by their suffix.
CURES = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".tar"), "unpack it"),
    **dict.fromkeys((".txt", ".dat", ".data"), "if it is a table of text, call it .csv"),
    **dict.fromkeys((".xls", ".xlsx", ".ods"), "save the sheet as .csv"),
}


def describe_sources() -> str:
    """Return what `load` accepts as a name, for help and error messages."""
    names = ", ".join(name for name in SOURCES if name[0] not in "./")
    suffixes = " or ".join(name for name in SOURCES if name[0] == ".")
    return f"{names}, or the path of a {suffixes} file, or of a folder of pictures"


@dataclass(frozen=True)
class Dataset:
    """Three sets of examples that have none in common.

    Attributes:
        kind: what the examples are, without statistics.
        train: training examples, shape [N, *shape], as they are stored: `uint8`, `int32`, `float32`
            or `float64`. `Rows` of large data are read when they are needed.
        validation: validation examples, of the same type; they serve to choose between models.
        test: test examples, of the same type; they are used once, at the end.
        validation_labels: the labels of the validation examples, shape [N], if there are labels.
        test_labels: the labels of the test examples.
        train_labels: the labels of the training examples.
        columns: what the values are: one for each column of a table, or one for all columns or
            pixels.
        names: the names of the columns of a vector, if they have names.
        label_names: what the labels 0, 1, .. stand for, if they have names.
        notes: sentences to print: what was done to the data, and what may be wrong with them.
        fingerprint: what identifies all examples, in whatever order; see `fingerprint.py`.
        conditions: what the conditions are that examples have beside them, a column each.
    """

    kind: Kind
    train: Tensor | Rows
    validation: Tensor
    test: Tensor
    validation_labels: Tensor | None = None
    test_labels: Tensor | None = None
    train_labels: Tensor | None = None
    columns: tuple[ColumnSpec, ...] = ()
    names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    conditions: tuple[ColumnSpec, ...] = ()


def load(
    name: str,
    root: str | Path = "data",
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    columns: dict[str, str] | None = None,
    drop: list[str] | None = None,
    labels: str | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Load a data set and split it.

    A data set with its own test or validation set keeps it. Otherwise the test set and then the
    validation set are drawn from the training examples, the same ones for the same seed: of files
    and folders by the examples' content, so that neither their order nor their path matters; of
    data sets with names by their order.

    Args:
        name: a data set's name; the path of a file whose suffix is known, see `SOURCES`; or the
            path of a folder of pictures.
        root: the folder for data sets that are downloaded.
        validation_fraction: the share of the training examples that is set aside for validation.
        test_fraction: the share of the examples that is set aside for testing.
        seed: the seed of the split.
        columns: kinds of columns by name, instead of those that the rules infer
            (`understanding/rules.py`); see `ReadOptions`.
        drop: names of columns to leave out.
        labels: the name of the column or array that holds labels; it is left out of the examples.
        image_size: the height and width of pictures in a folder, in pixels.

    Raises:
        InputError: if there is no such data set, or its contents cannot be used.
    """
    if name in SOURCES and (columns or drop or labels or image_size):
        raise InputError(
            f"{name} is read as it is: columns, drop, labels and image_size are for files and "
            "folders: leave them out",
            "columns" if columns else "drop" if drop else "labels" if labels else "image_size",
        )
    path, suffix = Path(name), Path(name).suffix.lower()
    read = SOURCES.get(name) or SOURCES.get(suffix)
    if path.is_dir() and name not in SOURCES and suffix != ".parquet":  # that may be a folder
        read = SOURCES["/"]
    if read is None and suffix in CURES and path.exists():
        raise InputError(f"{name} cannot be read: {CURES[suffix]}", "name")
    if read is None:
        raise InputError(f"there is no data set '{name}': choose {describe_sources()}", "name")
    options = ReadOptions(dict(columns or {}), tuple(drop or ()), labels, image_size)
    source = _infer(read(name, Path(root), options), options, name)
    fractions = (validation_fraction, test_fraction)
    return _dataset(name, source, fractions, seed, by_content=name not in SOURCES)


def from_object(
    x: Any,
    labels: Any = None,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    columns: dict[str, str] | None = None,
    drop: list[str] | None = None,
) -> Dataset:
    """Split data that are in memory, as `load` splits a file's.

    Args:
        x: examples: an array or a tensor [N, D], [N, H, W], [N, C, H, W] or [N, H, W, C]; a pandas
            DataFrame; AnnData; a sparse matrix of SciPy [N, D]; or a dict of arrays with the names
            that a `.npz` file may have.
        labels: a label for each example, or the name of the column that holds them.
        validation_fraction: see `load`.
        test_fraction: see `load`.
        seed: see `load`.
        columns: see `load`.
        drop: see `load`.

    Raises:
        InputError: if the data cannot be used.
    """
    column = labels if isinstance(labels, str) else None
    options = ReadOptions(dict(columns or {}), tuple(drop or ()), column)
    try:
        source = source_of_object(x, None if column else labels, options)
        fractions = (validation_fraction, test_fraction)
        return _dataset("the data", source, fractions, seed, by_content=True)
    except InputError as error:
        parameter = {"name": "x"}.get(error.parameter or "", error.parameter)
        raise InputError(str(error), parameter) from error


def _dataset(
    name: str, source: Source, fractions: tuple[float, float], seed: int, by_content: bool
) -> Dataset:
    """Return a data set from a source, split by the shares for validation and for testing."""
    parts = _parts(source)
    check_alike(name, parts)
    hashes = {key: row_hashes(part.examples, part.pages) for key, part in parts.items()}
    notes = (*source.notes, *note_repeats(hashes))
    mark = _fingerprint(source, hashes, by_content)
    train, validation, test = split(name, source, hashes["train"], fractions, seed, by_content)
    validation, test = validation.read(), test.read()
    assert isinstance(validation.examples, Tensor) and isinstance(test.examples, Tensor)
    kind = kind_of_values(source.columns, train.examples.shape[1:], source.names)
    kind.usual = source.usual or kind.usual
    if source.has_missing:
        kind = Incomplete(kind)
    return Dataset(
        kind,
        train.examples,
        validation.examples,
        test.examples,
        validation.labels,
        test.labels,
        train.labels,
        source.columns,
        source.names,
        source.label_names,
        notes,
        mark,
    )


def _parts(source: Source) -> dict[str, Part]:
    """Return the parts that a source has, by their names."""
    found = {part: getattr(source, part) for part in PARTS}
    return {name: part for name, part in found.items() if part is not None}


def _fingerprint(source: Source, hashes: dict[str, np.ndarray], by_content: bool) -> str:
    """Return what identifies all examples, what they are, and which part each is in."""
    parts_alone = [(key, len(own), int(own.sum(dtype=np.uint64))) for key, own in hashes.items()]
    about = repr((source.columns, source.names, parts_alone))
    examples = source.train.examples
    if by_content and examples.shape.numel() * 4 > LARGE:  # a run of an older version, which
        about += "2"  # split such data in another way, is refused as one of other data
    return fingerprint(examples, np.concatenate(list(hashes.values())), about)


def _infer(source: Source, options: ReadOptions, name: str) -> Source:
    """Return a source that says what its values are, by the rules if its reader did not.

    Raises:
        InputError: if the values cannot be used, or are not all there to be looked at.
    """
    if source.columns:
        return source
    parts = _parts(source)
    arrays = {
        key: to_array(part.examples)
        for key, part in parts.items()
        if isinstance(part.examples, Tensor) and not part.examples.is_sparse_csr
    }
    if len(arrays) < len(parts):
        raise InputError(
            f"{name}: rows that are read when they are needed, and sparse matrices, are used as "
            "their source describes them: let it give Source.columns",
            "name",
        )
    inferred = source_of_arrays(arrays, {}, options, name, source.names)
    own_labels = source.train.labels is not None and options.labels is None
    labelled: dict[str, Any] = {
        key: replace(getattr(inferred, key), labels=part.labels)
        for key, part in parts.items()
        if own_labels
    }
    return replace(
        inferred,
        **labelled,
        label_names=source.label_names if own_labels else inferred.label_names,
        notes=(*source.notes, *inferred.notes),
        usual=source.usual,
        has_missing=source.has_missing or inferred.has_missing,
    )
