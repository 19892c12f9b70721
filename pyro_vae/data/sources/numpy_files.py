"""Users' own arrays, from NumPy's files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.source import ReadOptions, Source, first_line, listed
from pyro_vae.data.sources.named_arrays import source_of_named_arrays
from pyro_vae.data.understanding.arrays import source_of_arrays
from pyro_vae.data.understanding.given_kinds import refuse_image_size
from pyro_vae.data.understanding.matrices import understand_sparse
from pyro_vae.data.understanding.parts import part_again
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
