"""Users' own tensors, from files that `torch.save` wrote."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.rows.sparse_rows import quiet
from pyro_vae.data.source import ReadOptions, Source, listed
from pyro_vae.data.sources.named_arrays import source_of_named_arrays
from pyro_vae.data.understanding.arrays import source_of_arrays, to_array
from pyro_vae.data.understanding.given_kinds import refuse_image_size
from pyro_vae.data.understanding.missing_values import plain_array
from pyro_vae.errors import InputError


def read_torch(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a `.pt` file: a tensor, a pair of examples and labels, or tensors with names.

    Nothing in the file is executed. A tensor that is stored as it is used stays in the file.

    Args:
        name: the path of the file. The names of tensors are those that `find_roles` knows.
        root: not used.
        options: what the user says about the data.

    Raises:
        InputError: if there is no such file, or its tensors cannot be used.
    """
    refuse_image_size(options, name)
    path = Path(name)
    return source_of_tensors(load_tensors(path), options, path.name)


def load_tensors(path: Path) -> Any:
    """Return what a `.pt` file holds. Nothing in it is executed.

    Raises:
        InputError: if there is no such file, or it holds something other than tensors.
    """
    try:
        return _load(path)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}", "name") from error
    except Exception as error:  # torch's and pickle's readers raise many types of errors
        if isinstance(error, RuntimeError) and "indices" in str(error):
            raise InputError(
                f"{path.name} holds a sparse tensor whose indices do not fit its shape: make it "
                "again",
                "name",
            ) from error
        if _is_pickle(path):
            raise InputError(
                f"{path.name} holds something other than dense tensors, which is not loaded, "
                "because it could run code: save a dense tensor, or a dict of these",
                "name",
            ) from error
        raise InputError(
            f"{path.name} is not a file of torch.save, or it is cut off", "name"
        ) from error


def source_of_tensors(loaded: Any, options: ReadOptions, where: str) -> Source:
    """Return the parts of a data set that comes as a tensor, a pair, or a dict of tensors.

    Raises:
        InputError: if it is something else, or the tensors cannot be used.
    """
    if isinstance(loaded, Tensor):
        return source_of_arrays({"train": to_array(loaded)}, {}, options, where)
    what = f"a {type(loaded).__name__}"
    if isinstance(loaded, list | tuple) and all(isinstance(part, Tensor) for part in loaded):
        if len(loaded) == 1:  # as TensorDataset has it
            return source_of_arrays({"train": to_array(loaded[0])}, {}, options, where)
        if len(loaded) == 2 and loaded[1].ndim == 1:  # as in torchvision's processed files
            labels = {"train": to_array(loaded[1])}
            return source_of_arrays({"train": to_array(loaded[0])}, labels, options, where)
        what += f" of {len(loaded):,} tensors " + listed([str([*t.shape]) for t in loaded], 3)
        if len(loaded) > 2 and len({part.shape for part in loaded}) == 1:
            raise InputError(
                f"{where} holds {what}: if each is an example, join them by torch.stack", "name"
            )
        what += " (labels have one dimension, or give them a name in a dict)"
    elif isinstance(loaded, dict):
        tensors = {
            str(key): to_array(value) if isinstance(value, Tensor) else plain_array(value, key)
            for key, value in loaded.items()
            if isinstance(value, Tensor | np.ndarray)
        }
        if loaded and not tensors:
            others = [f"{key} ({type(value).__name__})" for key, value in loaded.items()]
            raise InputError(
                f"{where} holds {listed(others)}: expected tensors or arrays under these names",
                "name",
            )
        return source_of_named_arrays(tensors, options, where)
    raise InputError(
        f"{where} holds {what}: expected a tensor, a pair of examples and "
        "labels, or a dict of tensors",
        "name",
    )


def _is_pickle(path: Path) -> bool:
    """Return whether a file looks like one of `torch.save`, whole, of the new or the old format."""
    try:
        with path.open("rb") as file:
            return zipfile.is_zipfile(path) or file.read(1) == b"\x80"
    except zipfile.BadZipFile:  # some broken ones are not just false
        return False


def _load(path: Path) -> Any:
    try:
        with quiet():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        with quiet():
            return torch.load(path, map_location="cpu", weights_only=True)
