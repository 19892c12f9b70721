"""Users' own arrays, from NumPy's files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.part import Part, first_line
from pyro_vae.errors import InputError

SETS = ("train", "validation", "test")
CHANNELS = (1, 3, 4)  # of grey images, RGB, and RGB with opacity


def from_file(path: Path) -> tuple[Part, Part | None, Part | None]:
    """Load a `.npy` or `.npz` file: training, validation and test examples, if it has them."""
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except Exception as error:  # numpy raises whatever its parsers meet in a broken file
        raise InputError(f"{path} is not a NumPy array file ({first_line(error)})") from error
    if len(arrays) == 1:
        return (_checked(path, next(iter(arrays.values()))), None), None, None
    if not {"train", "test"} <= arrays.keys():
        raise InputError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}: it should hold one array, "
            "or arrays named train and test (and validation)"
        )
    checked = {
        name: (_checked(path, array), None) for name, array in arrays.items() if name in SETS
    }
    return checked["train"], checked.get("validation"), checked["test"]


def _checked(path: Path, array: np.ndarray) -> Tensor:
    """Return a user's array as `uint8` levels or `float32` intensities, or say what is wrong."""

    def complaints() -> Iterator[str]:
        shape = f"has shape {list(array.shape)}"
        if array.ndim not in (2, 3, 4) or 0 in array.shape[1:]:
            yield f"{shape}: expected images [N, H, W] or [N, C, H, W], or vectors [N, D]"
        elif array.ndim == 4 and array.shape[-1] in CHANNELS and array.shape[1] not in CHANNELS:
            yield f"{shape}, which looks like channels last: transpose it to [N, C, H, W]"
        elif array.dtype == np.uint8:
            if array.size and array.max() == 1:
                yield "holds only 0 and 1 as uint8: save it as bool (binary), or scale it to 0..255"
        elif np.issubdtype(array.dtype, np.floating):
            if not np.isfinite(array).all():
                yield "has NaN or infinite values: remove or fill them"
        elif array.dtype != np.bool_:
            yield f"holds {array.dtype}: expected uint8 (0..255), float (0..1) or bool"

    for complaint in complaints():
        raise InputError(f"{path} {complaint}")
    return torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.float32))
