"""The rows of a file as they are, in its order: neither understood nor split.

A model that is trained already knows what its data are, and reads new rows so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.data.dataset import SOURCES, describe_sources
from pyro_vae.data.rows import RowReader
from pyro_vae.data.rows.row_chunks import find_pages, give_back
from pyro_vae.data.source import PARTS, ReadOptions, listed
from pyro_vae.data.sources.anndata_files import numbered, read_cells
from pyro_vae.data.sources.image_folders import find_pictures
from pyro_vae.data.sources.named_arrays import find_roles
from pyro_vae.data.sources.numpy_files import load_arrays, load_numpy, load_sparse
from pyro_vae.data.sources.parquet_chunks import ParquetChunks
from pyro_vae.data.sources.picture_files import BIT, open_picture
from pyro_vae.data.sources.text_chunks import TextChunks, survey_text
from pyro_vae.data.sources.torch_files import load_tensors
from pyro_vae.data.understanding.arrays import to_array
from pyro_vae.data.understanding.missing_values import hide
from pyro_vae.errors import InputError


@dataclass(frozen=True)
class PlainRows:
    """Rows as a file has them.

    Attributes:
        values: a table, in chunks; an array [N, ...], which may be mapped from a file; a sparse
            matrix of SciPy [N, D]; what reads rows; or the paths of pictures.
        names: the names of the columns of a matrix, if they have names.
        labels: a label for each row, as the file has it, if it has labels beside the rows; of a
            table the name of their column.
        layout: the shape of each picture, [H, W] or [3, H, W], and the largest value of a pixel.
        size: the height and width that pictures are scaled and cut to, if they are.
        notes: sentences about what is not read.
    """

    values: Any
    names: tuple[str, ...] = ()
    labels: np.ndarray | str | None = None
    layout: tuple[tuple[int, ...], int] = ((), 255)
    size: int | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        values = self.values
        if isinstance(values, TextChunks | ParquetChunks):
            return values.num_rows
        return len(values) if isinstance(values, list) else int(values.shape[0])

    def chunks(self, size: int, first: int = 0) -> Iterator[tuple[Any, np.ndarray | None]]:
        """Yield DataFrames or dense arrays of so many rows or fewer, and their labels.

        The index of DataFrames of text and of .parquet counts the rows of the file, from 0.

        Args:
            size: the number of rows.
            first: the number of the first chunk, from 0.
        """
        values, labels = self.values, self.labels
        if isinstance(values, TextChunks | ParquetChunks):
            for number, frame in enumerate(islice(values.frames(size), first, None), first):
                frame.index = range(number * size, number * size + len(frame))
                yield frame, None if labels is None else frame[labels].to_numpy()
            return
        pages = find_pages(values)
        for start in range(first * size, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield self._read(rows), None if labels is None else labels[rows]  # type: ignore[misc]
            if pages is not None:
                give_back(pages)

    def _read(self, rows: slice) -> Any:
        values = self.values
        if isinstance(values, list):
            return np.stack([self._open(path) for path in values[rows]])
        if isinstance(values, RowReader):
            array = values.read(np.arange(rows.start, rows.stop))
        else:
            array = values[rows]
            array = array if isinstance(array, np.ndarray) else array.toarray()
        if not self.names:
            return array
        import pandas as pd

        return pd.DataFrame(array, columns=list(self.names))

    def _open(self, path: Path) -> np.ndarray:
        """Return a picture in grey or in colours, as the layout has it."""
        image, _ = open_picture(path, self.size)
        shape, largest = self.layout
        if image.dtype == BIT:
            image = image.astype(np.uint8) * largest
        if len(shape) == 3 and image.ndim == 2:
            return np.broadcast_to(image, (3, *image.shape))
        if image.ndim == 3 and len(shape) == 2:
            if (image != image[..., :1]).any():
                raise InputError(
                    f"the picture {path} has colours, and the model was trained on greys: save it "
                    "as grey",
                    "data",
                )
            return image[..., 0]
        return np.moveaxis(image, -1, 0) if image.ndim == 3 else image


def open_rows(
    name: str,
    root: str | Path = "data",
    options: ReadOptions | None = None,
    layout: tuple[tuple[int, ...], int] = ((), 255),
) -> PlainRows:
    """Open a file, a folder, or a data set with a name, to read all its rows in order.

    The parts of what has several are joined: training, validation, test.

    Args:
        name: see `data.load`.
        root: the folder for data sets that are downloaded.
        options: what the user said about the training data.
        layout: the shape of pictures, and the largest value of a pixel.

    Raises:
        InputError: if there is no such data set, or it cannot be read.
    """
    options = options or ReadOptions()
    path, suffix = Path(name), Path(name).suffix.lower()
    if name in SOURCES and name[0] not in "./":
        return _of_source(name, Path(root))
    if path.is_dir() and suffix != ".parquet":
        return _of_folder(path, options, layout)
    match suffix:
        case ".csv" | ".tsv":
            return _of_table(survey_text(path, options), options)
        case ".parquet":
            return _of_table(ParquetChunks(path), options)
        case ".npy":
            return PlainRows(load_numpy(path))
        case ".npz":
            matrix = load_sparse(path)
            if matrix is not None:
                return PlainRows(matrix)
            arrays, notes = load_arrays(path, options.labels)
            return _of_arrays(arrays, path.name, options, notes)
        case ".pt":
            loaded = load_tensors(path)
            if isinstance(loaded, Tensor):
                return PlainRows(to_array(loaded))
            if isinstance(loaded, list | tuple):
                keys = ("x", "y")[: len(loaded)]
                loaded = dict(zip(keys, loaded, strict=False))
            tensors = {
                str(key): to_array(value) if isinstance(value, Tensor) else value
                for key, value in loaded.items()
                if isinstance(value, Tensor | np.ndarray)
            }
            return _of_arrays(tensors, path.name, options, [])
        case ".h5ad":
            cells, notes = read_cells(path)
            if cells.matrix is None:
                raise InputError(f"{path.name} has no matrix X, and no layer named counts", "data")
            names = numbered(tuple(map(str, cells.var_names)))
            return PlainRows(cells.matrix, names, _column(cells.obs, options), notes=tuple(notes))
    raise InputError(f"there is no data set '{name}': choose {describe_sources()}", "data")


def _of_table(table: TextChunks | ParquetChunks, options: ReadOptions) -> PlainRows:
    labels = options.labels if options.labels in table.names else None
    return PlainRows(table, labels=labels, notes=tuple(table.notes))


def _column(frame: Any, options: ReadOptions) -> np.ndarray | None:
    """Return the column of the labels, if the table has it."""
    if options.labels is None or options.labels not in frame.columns:
        return None
    labels: np.ndarray = frame[options.labels].to_numpy()
    return labels


def _of_arrays(
    arrays: dict[str, np.ndarray], where: str, options: ReadOptions, notes: list[str]
) -> PlainRows:
    """Return the rows of arrays with names; see `find_roles`."""
    own = options.labels if options.labels in arrays and len(arrays) > 1 else None
    roles = find_roles(list(arrays), where, own)
    examples = {part: arrays[roles.examples[part]] for part in PARTS if part in roles.examples}
    for part, name in roles.masks.items():
        if part in examples:
            kind = "missing" if "missing" in name.lower() else "observed"
            examples[part] = hide(examples[part], arrays[name], kind, where)
    joined = _joined(list(examples.values()), where)
    names: tuple[str, ...] = ()
    if roles.names is not None and joined.shape[1:] == (arrays[roles.names].size,):
        names = tuple(str(column) for column in arrays[roles.names].reshape(-1))
    labels = [arrays[roles.labels[part]] for part in examples if part in roles.labels]
    complete = len(labels) == len(examples)
    unused = [f"{where}: {listed(roles.others)} not used"] if roles.others else []
    return PlainRows(
        joined,
        names,
        np.concatenate(labels) if complete else None,
        notes=(*notes, *unused),
    )


def _joined(arrays: list[np.ndarray], where: str) -> np.ndarray:
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        raise InputError(
            f"{where} has parts whose examples differ in shape: make them alike", "data"
        )
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _of_source(name: str, root: Path) -> PlainRows:
    """Return the rows of a data set with a name, which is stored as it is used."""
    source = SOURCES[name](name, root, ReadOptions())
    parts = [getattr(source, part) for part in PARTS]
    found = [part.read() for part in parts if part is not None]
    labels = [part.labels for part in found if part.labels is not None]
    return PlainRows(
        np.concatenate([to_array(part.examples) for part in found]),
        source.names,
        np.concatenate([to_array(each) for each in labels]) if len(labels) == len(found) else None,
    )


def _of_folder(
    folder: Path, options: ReadOptions, layout: tuple[tuple[int, ...], int]
) -> PlainRows:
    """Return the pictures of a folder, sorted by their paths, with the names of their classes."""
    if len(layout[0]) not in (2, 3):
        raise InputError(f"{folder} holds pictures, and the model was trained on others", "data")
    notes: list[str] = []
    parts = find_pictures(folder, notes)
    pictures = [picture for part in PARTS for picture in parts.get(part, [])]
    classes = np.array([kind for _, kind in pictures])
    return PlainRows(
        [path for path, _ in pictures],
        labels=classes if (classes != "").all() else None,
        layout=layout,
        size=options.image_size,
        notes=tuple(notes),
    )
