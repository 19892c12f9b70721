"""Data that are in memory: arrays, tensors, DataFrames, AnnData, and dicts of arrays."""

from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.data.rows.sparse_rows import checked_csr
from pyro_vae.data.source import ReadOptions, Source
from pyro_vae.data.understanding.arrays import source_of_arrays, to_array
from pyro_vae.data.understanding.missing_values import plain_array
from pyro_vae.data.understanding.parts import part_again
from pyro_vae.errors import InputError


def source_of_object(x: Any, labels: Any, options: ReadOptions) -> Source:
    """Return the data set that an object holds.

    Args:
        x: a NumPy array or a tensor; a dict of these with the names that files have; a pandas
            DataFrame; an AnnData object; or a sparse matrix of SciPy.
        labels: a label for each example, or None; see `read_labels`.
        options: what the user says about the data.

    Raises:
        InputError: if the object cannot be used.
    """
    given = {} if labels is None else {"train": _plain(labels)}
    kind = type(x).__module__.partition(".")[0]
    if kind == "pandas" and hasattr(x, "columns"):
        from pyro_vae.data.understanding.data_frames import understand_table

        understood = understand_table(x, options, "the table")
        return part_again(understood, {"train": len(x)}, given, "the labels")
    if kind == "anndata":
        from pyro_vae.data.sources.anndata_files import source_of_anndata

        source = source_of_anndata(x, options, "the AnnData")
        if labels is None:
            return source
        raise InputError("give the name of a column of obs as labels with AnnData", "labels")
    if hasattr(x, "tocsr"):
        from pyro_vae.data.understanding.matrices import understand_sparse

        matrix = checked_csr(x, "the matrix", "x")
        understood = understand_sparse(matrix, options, "the matrix")
        return part_again(understood, {"train": x.shape[0]}, given, "the labels")
    if isinstance(x, Tensor | dict):
        from pyro_vae.data.sources.torch_files import source_of_tensors

        if isinstance(x, Tensor):
            return source_of_arrays({"train": to_array(x)}, given, options, "the tensor")
        if labels is None:
            return source_of_tensors(x, options, "the dict")
        raise InputError("put the labels into the dict, as y_train or labels", "labels")
    if isinstance(x, np.ndarray):
        return source_of_arrays({"train": plain_array(x, "the array")}, given, options, "the array")
    raise InputError(
        f"a {type(x).__name__} cannot be used: give an array, a tensor, a DataFrame, AnnData, or a "
        "dict of arrays",
        "x",
    )


def _plain(labels: Any) -> Any:
    if np.ma.is_masked(labels):
        raise InputError(
            f"{np.ma.count_masked(labels):,} labels are masked: remove these rows, or leave the "
            "labels out",
            "labels",
        )
    return labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
