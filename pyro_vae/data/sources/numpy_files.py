"""Users' own arrays, from NumPy's files."""

import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.free_memory import check_fits
from pyro_vae.data.rows.sparse_rows import checked_csr
from pyro_vae.data.source import ReadOptions, Source, first_line, listed
from pyro_vae.data.sources.named_arrays import find_roles, source_of_named_arrays
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
    return source_of_arrays({"train": load_numpy(path)}, {}, options, path.name)


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
    matrix = load_sparse(path)
    if matrix is not None:
        understood = understand_sparse(matrix, options, path.name)
        return part_again(understood, {"train": matrix.shape[0]}, {}, f"the labels of {path.name}")
    arrays, notes = load_arrays(path, options.labels)
    source = source_of_named_arrays(arrays, options, path.name)
    return replace(source, notes=(*notes, *source.notes))


def load_arrays(path: Path, labels: str | None = None) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays of a `.npz` file by their names, and notes of those that are not read.

    An array that `find_roles` has no use for is not read either: its values are zeros, in no
    memory.

    Args:
        path: the path of the file.
        labels: the name of the array of labels, if the user gives one.

    Raises:
        InputError: if there is no such file, or it holds no array that can be read, or those that
            are used do not fit into memory.
    """
    headers, objects = _headers(path)
    if objects and not headers:
        raise InputError(f"{path.name} holds Python objects: save arrays of numbers", "name")
    single = len(headers) == 1
    try:
        own = labels if labels in headers and not single else None
        used = find_roles(list(headers), path.name, own).used
    except InputError:  # it is raised again when the arrays are looked at
        used = set()
    sizes = [
        math.prod(shape) * dtype.itemsize for key, (shape, dtype) in headers.items() if key in used
    ]
    check_fits(f"{path.name} holds", sum(sizes), "name")
    arrays: dict[str, np.ndarray] = {}
    with load_numpy(path) as loaded:
        for key, (shape, dtype) in headers.items():
            try:
                zeros = np.broadcast_to(np.zeros((), dtype), shape)
                arrays[key] = loaded[key] if key in used else zeros
            except Exception as error:  # NumPy's and zip's parsers raise many types of errors
                raise _broken(path, error) from error
    if not objects:
        return arrays, []
    note = f"{path.name}: {listed(objects)} not read, because it holds Python objects"
    return arrays, [note]


def _headers(path: Path) -> tuple[dict[str, tuple[tuple[int, ...], np.dtype]], list[str]]:
    """Return shape and type of each array of a `.npz` file, and the names of those of objects.

    Raises:
        InputError: if there is no such file, or it is broken.
    """
    load_numpy(path).close()  # refuses what is no such file
    headers: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    objects: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.endswith(".npy"):
                    raise ValueError(f"{name[:100]} in it is no array")
                with archive.open(name) as file:
                    version = np.lib.format.read_magic(file)
                    read = np.lib.format.read_array_header_2_0
                    if version == (1, 0):
                        read = np.lib.format.read_array_header_1_0
                    shape, _, dtype = read(file)
                if dtype.hasobject:
                    objects.append(name.removesuffix(".npy"))
                else:
                    headers[name.removesuffix(".npy")] = shape, dtype
    except Exception as error:  # NumPy's and zip's parsers raise many types of errors
        raise _broken(path, error) from error
    return headers, objects


def load_sparse(path: Path) -> Any:
    """Return the matrix that `scipy.sparse.save_npz` wrote, in the layout CSR; None if none is.

    Raises:
        InputError: if there is no such file, or it is broken.
    """
    with load_numpy(path) as loaded:
        if not hasattr(loaded, "files") or not {*loaded.files} >= SPARSE:
            return None
    from scipy import sparse

    headers, _ = _headers(path)
    size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in headers.values())
    check_fits(f"{path.name} holds", size, "name")
    try:
        return checked_csr(sparse.load_npz(path), path.name, "name")
    except InputError:
        raise
    except Exception as error:  # NumPy's and SciPy's parsers raise many types of errors
        raise _broken(path, error) from error


def load_numpy(path: Path) -> Any:
    """Return what NumPy loads. An array is mapped from its file, unless it is empty."""
    try:
        with open(path, "rb") as file:
            if file.read(2) == b"PK":
                zipfile.ZipFile(file).close()  # NumPy would leave a broken one open
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
