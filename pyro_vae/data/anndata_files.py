"""AnnData: matrices of cells and genes, from `.h5ad` files or memory. anndata is an extra."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.given_kinds import ALL
from pyro_vae.data.matrices import understand_matrix
from pyro_vae.data.parts import part_again
from pyro_vae.data.source import ReadOptions, Source, first_line, listed
from pyro_vae.errors import InputError

COUNT_LAYERS = ("counts", "raw_counts", "count")


def read_h5ad(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a `.h5ad` file.

    Args:
        name: the path of the file.
        root: not used.
        options: what the user says about the data; see `source_of_anndata`.

    Raises:
        InputError: if there is no such file, anndata is not installed, or the matrix cannot be
            used.
    """
    path = Path(name)
    if not path.exists():
        raise InputError(f"there is no file {path}", "name")
    try:
        import anndata
    except ImportError as error:
        raise InputError(
            f"{path.name} cannot be read without anndata: install it (pip install anndata)", "name"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that repeat, and of old formats
            loaded = anndata.read_h5ad(path)
    except Exception as error:  # HDF5's and anndata's readers raise many types of errors
        raise InputError(
            f"{path.name} is not a file of anndata ({first_line(error)})", "name"
        ) from error
    return source_of_anndata(loaded, options, path.name)


def source_of_anndata(loaded: Any, options: ReadOptions, where: str) -> Source:
    """Return the data set that an AnnData object holds.

    The examples are the layer `counts`, if there is one, and otherwise `X`. A sparse matrix stays
    sparse if it holds counts. Names are those of `var`; labels are a column of `obs`.

    Args:
        loaded: the AnnData object.
        options: what the user says about the data. `labels` names a column of `obs`; `columns` and
            `drop` name variables.
        where: the name of the file or object, for messages.

    Raises:
        InputError: if the matrix cannot be used.
    """
    layer = next((layer for layer in COUNT_LAYERS if layer in loaded.layers), None)
    matrix = loaded.X if layer is None else loaded.layers[layer]
    if matrix is None:
        raise InputError(f"{where} has no matrix X, and no layer named counts: give one", "name")
    notes = []
    if layer is not None and loaded.X is not None:
        notes.append(f"{where}: the layer {layer} is used, and X is not")
    labels = {}
    if options.labels is not None:
        if options.labels not in loaded.obs.columns:
            columns = [str(column) for column in loaded.obs.columns]
            raise InputError(
                f"{where} has no column {options.labels} in obs: its columns are "
                f"{listed(columns, 20) or 'none'}",
                "labels",
            )
        labels["train"] = loaded.obs[options.labels].to_numpy()
    names = tuple(str(name) for name in loaded.var_names)
    repeated = len(names) - len(set(names))
    if repeated:
        notes.append(f"{where}: {repeated:,} names of variables repeat others: numbered")
        names = _numbered(names)
    if not hasattr(matrix, "tocsr"):
        matrix = np.asarray(matrix)
    elif matrix.dtype.kind not in "biuf":
        raise InputError(f"{where} holds {matrix.dtype}: expected numbers", "name")
    if 0 in matrix.shape:
        raise InputError(f"{where} is empty: its matrix has shape {list(matrix.shape)}", "name")
    inner = replace(options, labels=None)
    if not options.columns and not _is_whole(matrix):
        inner = replace(inner, columns={ALL: "real"})
        notes.append(
            f"{where}: X holds no counts (it may be normalised or scaled): put the raw counts into "
            "the layer counts to have them modelled as counts"
        )
    matrix = matrix.tocsr() if hasattr(matrix, "tocsr") else matrix
    understood = understand_matrix(matrix, inner, where, names)
    source = part_again(understood, {"train": matrix.shape[0]}, labels, "the labels")
    return replace(source, notes=(*notes, *source.notes))


def _is_whole(matrix: Any) -> bool:
    """Return whether all values are whole numbers from 0 on, or some are missing or infinite."""
    values = matrix.data if hasattr(matrix, "tocsr") else matrix
    if values.dtype.kind != "f":
        return bool(values.size == 0 or values.min() >= 0)
    return not np.isfinite(values).all() or bool(
        ((values >= 0) & (values == np.rint(values))).all()
    )


def _numbered(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names, of which the second `a` is `a-1`, and so on, as anndata makes them unique."""
    seen: dict[str, int] = {}
    taken = set(names)
    unique = []
    for name in names:
        count = seen.get(name, 0)
        new = name
        while count and new in taken:
            new = f"{name}-{count}"
            count += 1
        seen[name] = max(1, count)
        taken.add(new)
        unique.append(new)
    return tuple(unique)
