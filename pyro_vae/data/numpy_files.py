"""Users' own arrays, from NumPy's files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.source import Part, Source, first_line
from pyro_vae.errors import InputError

CHANNELS = (1, 3, 4)  # of grey images, RGB, and RGB with opacity


def read_numpy(name: str, root: Path) -> Source:
    """Read a `.npy` or `.npz` file.

    Args:
        name: the path of the file. It contains one array, or arrays named train and test, and
            perhaps validation.
        root: not used.

    Raises:
        InputError: if there is no such file, or its arrays cannot be used.
    """
    path = Path(name)
    arrays = _arrays(path)
    if len(arrays) == 1:
        return Source(_part(path, next(iter(arrays.values()))))
    if not {"train", "test"} <= arrays.keys():
        raise InputError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}: it should hold one array, "
            "or arrays named train and test (and validation)",
            "name",
        )
    return Source(
        **{
            part: _part(path, arrays[part])
            for part in ("train", "validation", "test")
            if part in arrays
        }
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays in a file by name. The array of a `.npy` file has an empty name."""
    try:
        loaded = np.load(path, allow_pickle=False)
        return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}", "name") from error
    except Exception as error:  # NumPy's parsers raise many types of errors on a broken file
        raise InputError(
            f"{path} is not a NumPy array file ({first_line(error)})", "name"
        ) from error


def _part(path: Path, array: np.ndarray) -> Part:
    """Return a user's array as `uint8` or `float32` examples, or say what is wrong with it."""
    complaint = _complaint(array)
    if complaint is not None:
        raise InputError(f"{path} {complaint}", "name")
    return Part(_tensor(array))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.float32))


def _complaint(array: np.ndarray) -> str | None:
    """Say why an array cannot be used, if it cannot. The kind decides which values are allowed."""
    shape = f"has shape {list(array.shape)}"
    if array.ndim not in (2, 3, 4) or 0 in array.shape[1:]:
        return f"{shape}: expected images [N, H, W] or [N, C, H, W], or vectors [N, D]"
    if array.ndim == 4 and array.shape[-1] in CHANNELS and array.shape[1] not in CHANNELS:
        return f"{shape}, which looks like channels last: transpose it to [N, C, H, W]"
    if array.dtype == np.uint8:
        if array.size and array.max() == 1:
            return "holds only 0 and 1 as uint8: save it as bool (binary), or scale it to 0..255"
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            return "has NaN or infinite values: remove or fill them"
    elif array.dtype != np.bool_:
        return f"holds {array.dtype}: expected uint8 (levels 0..255), float or bool (binary)"
    return None
