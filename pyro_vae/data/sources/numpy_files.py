"""Users' own arrays, from NumPy's files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.source import ReadOptions, Source, first_line, listed
from pyro_vae.data.sources.named_arrays import find_roles
from pyro_vae.data.understanding.arrays import source_of_arrays
from pyro_vae.data.understanding.given_kinds import refuse_image_size
from pyro_vae.data.understanding.matrices import understand_sparse
from pyro_vae.data.understanding.missing_values import hide
from pyro_vae.data.understanding.parts import PARTS, part_again
from pyro_vae.errors import InputError

SPARSE = {"format", "shape", "data"}  # the arrays in a file of SciPy's save_npz, among others


def read_npy(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a `.npy` file: it is mapped, so that rows are read when they are needed.

    Args:
        name: the path of the file.
        root: not used.
        options: what the user says about the data.

    Raises:
        InputError: if there is no such file, or its array cannot be used.
    """
    refuse_image_size(options, name)
    path = Path(name)
    return source_of_arrays({"train": _load(path)}, {}, options, path.name)


def read_npz(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a `.npz` file: one array, or several with the names that `find_roles` knows.

    A sparse matrix that SciPy saved is read, too. Arrays of Python objects are not.

    Args:
        name: the path of the file.
        root: not used.
        options: what the user says about the data.

    Raises:
        InputError: if there is no such file, or its arrays cannot be used.
    """
    refuse_image_size(options, name)
    path = Path(name)
    with _load(path) as loaded:
        if SPARSE <= {*loaded.files}:
            return _read_sparse(path, options)
        arrays: dict[str, np.ndarray] = {}
        objects: list[str] = []
        for key in loaded.files:
            try:
                arrays[key] = loaded[key]
            except ValueError as error:
                if "Object arrays" not in str(error):
                    raise _broken(path, error) from error
                objects.append(key)
            except Exception as error:  # NumPy's and zip's parsers raise many types of errors
                raise _broken(path, error) from error
    notes = []
    if objects and not arrays:
        raise InputError(f"{path.name} holds Python objects: save arrays of numbers", "name")
    if objects:
        notes.append(f"{path.name}: {listed(objects)} not read, because it holds Python objects")
    source = source_of_named_arrays(arrays, options, path.name)
    return replace(source, notes=(*notes, *source.notes))


def _read_sparse(path: Path, options: ReadOptions) -> Source:
    """Read a matrix that `scipy.sparse.save_npz` wrote."""
    from scipy import sparse

    try:
        matrix = sparse.load_npz(path).tocsr()
    except Exception as error:  # NumPy's and SciPy's parsers raise many types of errors
        raise _broken(path, error) from error
    understood = understand_sparse(matrix, options, path.name)
    return part_again(understood, {"train": matrix.shape[0]}, {}, f"the labels of {path.name}")


def source_of_named_arrays(
    arrays: dict[str, np.ndarray], options: ReadOptions, where: str
) -> Source:
    """Return the parts of a data set that comes as several arrays with names.

    Args:
        arrays: the arrays; see `find_roles` for their names.
        options: what the user says about the data; `labels` is the name of an array, or of a
            column.
        where: the name of the file, for messages.

    Raises:
        InputError: if the names or the arrays cannot be used.
    """
    own_labels = options.labels if options.labels in arrays else None
    single = len(arrays) == 1
    shapes = {array.shape for array in arrays.values()}
    if not single and len(shapes) == 1 and len(next(iter(shapes))) == 1:
        raise InputError(
            f"{where} holds columns ({listed(list(arrays))}): join them into one table, as a "
            "DataFrame or a .csv file",
            "name",
        )
    roles = find_roles(list(arrays), where, None if single else own_labels)
    if options.labels and own_labels is None and arrays[roles.examples["train"]].ndim != 2:
        raise InputError(
            f"{where} has no array {options.labels}: it holds {listed(list(arrays))}", "labels"
        )
    names: tuple[str, ...] = ()
    if roles.names is not None:
        found = [str(column) for column in arrays[roles.names].reshape(-1)]
        if arrays[roles.examples["train"]].shape[1:] == (len(found),):
            names = tuple(found)
        else:
            roles.others.append(roles.names)
    if own_labels is not None and not single:
        options = replace(options, labels=None)
    examples = {part: arrays[roles.examples[part]] for part in PARTS if part in roles.examples}
    for part, name in roles.masks.items():
        if part in examples:
            kind = "missing" if "missing" in name.lower() else "observed"
            examples[part] = hide(examples[part], arrays[name], kind, where)
    source = source_of_arrays(
        examples,
        {part: arrays[name] for part, name in roles.labels.items()},
        options,
        where,
        names,
    )
    unused = [f"{where}: {listed(roles.others)} not used"] if roles.others else []
    return replace(source, notes=(*unused, *source.notes))


def _load(path: Path) -> Any:
    """Return what NumPy loads. An array is mapped from its file, unless it is empty."""
    try:
        try:
            return np.load(path, mmap_mode="c", allow_pickle=False)
        except ValueError as error:
            if "mmap" not in str(error):
                raise
            return np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}", "name") from error
    except Exception as error:  # NumPy's parsers raise many types of errors on a broken file
        if "Python objects" in str(error) or "Object arrays" in str(error):
            raise InputError(
                f"{path.name} holds Python objects: save an array of numbers", "name"
            ) from error
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(f"{path.name} is not a NumPy array file ({first_line(error)})", "name")
