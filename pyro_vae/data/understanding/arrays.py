"""Arrays of NumPy, and tensors: what can be used, and what it is."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.free_memory import check_fits
from pyro_vae.data.number_types import readable
from pyro_vae.data.rows.row_chunks import find_pages
from pyro_vae.data.rows.sparse_rows import dense_tensor
from pyro_vae.data.source import ReadOptions, Source
from pyro_vae.data.understanding.data_frames import understand_table
from pyro_vae.data.understanding.image_arrays import understand_pixels
from pyro_vae.data.understanding.matrices import understand_matrix
from pyro_vae.data.understanding.parts import part_again
from pyro_vae.errors import InputError


def source_of_arrays(
    arrays: dict[str, np.ndarray],
    labels: dict[str, Any],
    options: ReadOptions,
    where: str,
    names: tuple[str, ...] = (),
) -> Source:
    """Return the parts of a data set that comes as arrays.

    Args:
        arrays: arrays [N, D], [N, H, W], or [N, C, H, W], or with channels last, by the part's
            name: `train`, `validation`, `test`. An array that is mapped from a file stays so if its
            numbers are stored as they are; see `stored`.
        labels: labels by the part's name; see `read_labels`.
        options: what the user says about the data.
        where: the name of the file or object, for messages.
        names: names of the columns of [N, D].

    Raises:
        InputError: if an array cannot be used.
    """
    joined = _join({part: _numbers(array, where) for part, array in arrays.items()}, where)
    if joined.dtype.names:
        import pandas as pd

        understood = understand_table(pd.DataFrame(joined), options, where)
    elif joined.ndim == 2:
        understood = understand_matrix(joined, options, where, names)
    else:
        understood = understand_pixels(joined, options, where)
    examples = understood.examples
    if isinstance(examples, Tensor) and examples.data_ptr() == joined.ctypes.data:
        understood = replace(understood, pages=find_pages(joined))
    lengths = {part: len(array) for part, array in arrays.items()}
    label_name = f"the labels of {where}"
    return part_again(understood, lengths, labels, label_name)


def to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array, which shares its memory where NumPy has its type.

    Raises:
        InputError: if it has no values, or NumPy has no such numbers, or it is expanded or sparse
            and its values do not fit into memory, or its indices do not fit its shape.
    """
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta or tensor.is_quantized or "float8" in name or "float4" in name:
        what = "no values" if tensor.is_meta else name
        raise InputError(f"a tensor holds {what}: save it as float32", "name")
    if tensor.layout == torch.strided and tensor.untyped_storage().nbytes() < tensor.nbytes:
        check_fits("an expanded tensor holds", 3 * tensor.nbytes, "name")
    tensor = tensor.detach().cpu()
    if tensor.layout != torch.strided:
        tensor = dense_tensor(tensor)
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg().numpy()


def _numbers(array: np.ndarray, where: str) -> np.ndarray:
    """Return an array with a type that can be used, or say what is wrong with it."""
    if array.dtype.names and array.ndim == 1:
        return array
    if array.ndim not in (2, 3, 4) or 0 in array.shape[1:]:
        cure = "; reshape it to [N, 1]" if array.ndim == 1 else ""
        raise InputError(
            f"{where} has shape {list(array.shape)}: expected images [N, H, W] or [N, C, H, W], or "
            f"vectors [N, D]{cure}",
            "name",
        )
    if array.dtype.kind not in "biuf":
        dates = (
            ": dates are not numbers: give days since the first" if array.dtype.kind in "mM" else ""
        )
        raise InputError(
            f"{where} holds {array.dtype}: expected bool, whole numbers or floats{dates}", "name"
        )
    if len(array) == 0:
        raise InputError(f"{where} is empty: it has no rows", "name")
    return readable(array)


def _join(parts: dict[str, np.ndarray], where: str) -> np.ndarray:
    """Return the examples of all parts; those of a single part are shared.

    Raises:
        InputError: if they differ in shape or type.
    """
    like = parts["train"]
    for name, part in parts.items():
        if part.shape[1:] != like.shape[1:] or part.dtype != like.dtype:
            raise InputError(
                f"{where}: the {name} set holds {part.dtype} {list(part.shape[1:])}, the training "
                f"set {like.dtype} {list(like.shape[1:])}: make them alike",
                "name",
            )
    return like if len(parts) == 1 else np.concatenate(list(parts.values()))
