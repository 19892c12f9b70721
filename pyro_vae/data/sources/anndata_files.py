"""AnnData: matrices of cells and genes, from `.h5ad` files or memory. anndata is an extra."""

import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.rows import LARGE, RowReader
from pyro_vae.data.rows.sparse_rows import checked_csr
from pyro_vae.data.source import ReadOptions, Source, first_line, listed
from pyro_vae.data.sources.h5ad_rows import H5adRows, is_by_rows, stored_bytes
from pyro_vae.data.understanding.given_kinds import ALL, refuse_image_size
from pyro_vae.data.understanding.matrices import understand_matrix
from pyro_vae.data.understanding.parts import part_again
from pyro_vae.errors import InputError

COUNT_LAYERS = ("counts", "raw_counts", "count")
MOST_COMPRESSED = 1100  # gzip makes a file smaller by a factor of 1032 at most
TRIAL = 30  # seconds for a trial to start, and to read a small file
SLOWEST = 5e6  # bytes that are read in a second, at least
# Signals of a crash. On Windows, the status says so.
CRASHES = {
    getattr(signal, name, None) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")
}


@dataclass(frozen=True)
class Cells:
    """What is read of an AnnData object or file.

    Attributes:
        matrix: numbers [N, D]: an array, a sparse matrix, or what reads rows; or None.
        layer: the name of the layer that it is; None for X.
        has_x: whether there is an X.
        has_raw: whether there is a raw matrix beside X.
        obs: the DataFrame of the rows.
        var_names: the names of the columns.
    """

    matrix: Any
    layer: str | None
    has_x: bool
    has_raw: bool
    obs: Any
    var_names: Sequence[Any]


def read_h5ad(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a `.h5ad` file.

    A matrix of more than `LARGE` bytes is not read as a whole, if it is an array or sparse by rows
    (CSR): its rows are read when they are needed, and the file has to stay where it is.

    Args:
        name: the path of the file.
        root: not used.
        options: what the user says about the data; see `source_of_anndata`.

    Raises:
        InputError: if there is no such file, anndata is not installed, or the matrix cannot be
            used.
    """
    refuse_image_size(options, name)
    path = Path(name)
    cells, notes = read_cells(path)
    source = _understand(cells, options, path.name)
    return replace(source, notes=(*notes, *source.notes))


def read_cells(path: Path) -> tuple[Cells, list[str]]:
    """Return what is used of a `.h5ad` file, and notes.

    Raises:
        InputError: if there is no such file, or it cannot be read.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}", "name")
    try:
        import anndata
    except ImportError as error:
        raise InputError(
            f"{path.name} cannot be read without anndata: install it (pip install anndata)", "name"
        ) from error
    _refuse_harmful(path)
    try:
        _check_sizes(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that repeat, and of old formats
            cells, notes = _open_large(path)
            if cells is None:
                cells = _cells_of(anndata.read_h5ad(path), path.name)
    except InputError:
        raise
    except Exception as error:  # HDF5's and anndata's readers raise many types of errors
        raise InputError(
            f"{path.name} is not a file of anndata ({first_line(error)})", "name"
        ) from error
    return cells, notes


def _refuse_harmful(path: Path) -> None:
    """Refuse a file on which HDF5's library crashes or hangs, which another process tries out.

    Raises:
        InputError: if it does.
    """
    if not sys.executable:  # Python is a part of another program
        return
    seconds = TRIAL + path.stat().st_size / SLOWEST
    program = str(Path(__file__).with_name("h5ad_trial.py"))
    trial = [sys.executable, "-P", program, str(path), str(seconds)]
    damaged = f"{path.name} is damaged: HDF5's library"
    try:
        status = subprocess.run(trial, timeout=seconds, capture_output=True).returncode
    except OSError:  # there is no Python to start
        return
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{damaged} did not finish reading it in {seconds:.0f} s: write it again", "name"
        ) from error
    if -status in CRASHES or status >= 0xC0000000:
        raise InputError(f"{damaged} crashes on it (signal {-status}): write it again", "name")


def _check_sizes(path: Path) -> None:
    """Refuse a file with arrays that say that they are far larger than the file can hold.

    HDF5 gives zeros for what was never written, so that a small file may stand for terabytes.

    Raises:
        InputError: if there is one.
    """
    import h5py

    def check(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.size and item.nbytes > 2**30:
            if item.nbytes > MOST_COMPRESSED * path.stat().st_size:
                raise InputError(
                    f"{path.name}: {name} has the shape {list(item.shape)}, far more than a file "
                    f"of {path.stat().st_size} bytes can hold: write it again",
                    "name",
                )

    with h5py.File(path) as file:
        file.visititems(check)


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
    return _understand(_cells_of(loaded, where), options, where)


def _cells_of(loaded: Any, where: str) -> Cells:
    """Return what is used of an AnnData object."""
    layer = _find_layer(loaded.layers)
    matrix = loaded.X if layer is None else loaded.layers[layer]
    if hasattr(matrix, "tocsr"):
        matrix = checked_csr(matrix, where, "name")
    has_x, has_raw = loaded.X is not None, loaded.raw is not None
    return Cells(matrix, layer, has_x, has_raw, loaded.obs, loaded.var_names)


def _open_large(path: Path) -> tuple[Cells | None, list[str]]:
    """Return what is used of a file without its matrix, and notes; None if it is to be read whole.

    The file stays open as long as its rows may be read.
    """
    import h5py

    try:
        from anndata.io import read_elem
    except ImportError:  # before 0.11
        from anndata.experimental import read_elem
    file = h5py.File(path, "r")
    layer = _find_layer(file.get("layers", {}))
    node = file.get("X") if layer is None else file["layers"][layer]
    is_new = file.attrs.get("encoding-type") == "anndata"
    is_large = is_new and node is not None and stored_bytes(node) > LARGE
    if is_large and is_by_rows(node):
        obs, var = read_elem(file["obs"]), read_elem(file["var"])
        has_x, has_raw = "X" in file, "raw" in file
        return Cells(H5adRows(path, node), layer, has_x, has_raw, obs, var.index), []
    file.close()
    note = (
        f"{path.name}: its matrix is not stored by rows (CSR), so it is read whole: store it by "
        "rows to have it read batch by batch"
    )
    return None, [note] if is_large else []


def _find_layer(layers: Any) -> str | None:
    """Return the name of the layer that holds counts, if there is one."""
    return next((layer for layer in COUNT_LAYERS if layer in layers), None)


def _understand(cells: Cells, options: ReadOptions, where: str) -> Source:
    """Return the data set that was read; see `source_of_anndata`."""
    matrix = cells.matrix
    if matrix is None:
        raise InputError(f"{where} has no matrix X, and no layer named counts: give one", "name")
    notes = []
    if cells.layer is not None and cells.has_x:
        notes.append(f"{where}: the layer {cells.layer} is used, and X is not")
    labels = {}
    if options.labels is not None:
        if options.labels not in cells.obs.columns:
            columns = [str(column) for column in cells.obs.columns]
            raise InputError(
                f"{where} has no column {options.labels} in obs: its columns are "
                f"{listed(columns, 20) or 'none'}",
                "labels",
            )
        labels["train"] = cells.obs[options.labels].to_numpy()
    names = tuple(str(name) for name in cells.var_names)
    repeated = len(names) - len(set(names))
    if repeated:
        notes.append(f"{where}: {repeated:,} names of variables repeat others: numbered")
        names = numbered(names)
    if not isinstance(matrix, RowReader) and not hasattr(matrix, "tocsr"):
        matrix = np.asarray(matrix)
    if matrix.dtype.kind not in "biuf":
        raise InputError(f"{where} holds {matrix.dtype}: expected numbers", "name")
    if 0 in matrix.shape:
        raise InputError(f"{where} is empty: its matrix has shape {list(matrix.shape)}", "name")
    inner = replace(options, labels=None)
    if not options.columns and not _is_whole(matrix):
        inner = replace(inner, columns={ALL: "real"})
        found = (
            "raw.X, if it holds counts of these variables," if cells.has_raw else "the raw counts"
        )
        notes.append(
            f"{where}: X holds no counts (it may be normalised or scaled): put {found} into the "
            "layer counts to have them modelled as counts"
        )
    understood = understand_matrix(matrix, inner, where, names)
    source = part_again(understood, {"train": matrix.shape[0]}, labels, "the labels")
    return replace(source, notes=(*notes, *source.notes))


def _is_whole(matrix: Any) -> bool:
    """Return whether all values are whole numbers from 0 on, or some are missing or infinite."""
    if isinstance(matrix, H5adRows):
        chunks: Iterable[np.ndarray] = matrix.values()
    else:
        chunks = [matrix.data if hasattr(matrix, "tocsr") else matrix]
    is_finite = is_whole = True
    for values in chunks:
        is_float = values.dtype.kind == "f"
        is_finite &= not is_float or bool(np.isfinite(values).all())
        is_whole &= bool((values >= 0).all())
        is_whole &= not is_float or bool((values == np.rint(values)).all())
    return is_whole or not is_finite


def numbered(names: tuple[str, ...]) -> tuple[str, ...]:
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
