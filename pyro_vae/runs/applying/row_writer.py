"""Results for rows, written to a file of numbers: `.csv`, `.parquet`, `.npz` or `.npy`."""

import errno
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.errors import InputError
from pyro_vae.runs.applying.output_file import OutputFile
from pyro_vae.runs.applying.pieces import Arrays, Pieces

SUFFIXES = (".csv", ".parquet", ".npz", ".npy")
TABLES = (".csv", ".parquet")
TOGETHER = 2**24  # bytes of a table that are written together


class RowWriter(OutputFile):
    """Writes results chunk by chunk, in memory that does not grow with the number of rows.

    The chunks are in a hidden folder beside the file until it is whole. If the process is ended in
    between, the same call goes on after the last chunk there, and the file is the same, bit for
    bit. The folder is removed after an `InputError`, which comes again if the call is repeated.

    `.csv` and `.parquet` have a line for each row. Their columns are the arrays: of a matrix
    `mean` [N, D] they are `mean_0`, `mean_1`, .., of `draw` [N, K, D] `draw0_0`, `draw0_1`, ...
    `.npz` has an array for each name. `.npy` is the only array, or a structured array with a field
    for each name.

    Args:
        path: see `OutputFile`.
        overwrite: see `OutputFile`; also whether the results of an interrupted call with another
            request are discarded.
    """

    suffixes: tuple[str, ...] = SUFFIXES

    def __init__(self, path: str | Path, overwrite: bool = True) -> None:
        super().__init__(path, overwrite)
        self._pieces = Pieces(self._unfinished)
        if self.suffix == ".parquet":
            self._need_pyarrow()

    def begin(self, request: dict[str, Any]) -> None:
        """Take over the results of an interrupted call; see `OutputFile.begin`.

        Raises:
            InputError: if there are those of another call, and they may not be discarded.
        """
        super().begin(request)
        self.notes += self._pieces.begin(request, self.overwrite)
        self.rows, self.chunks = self._pieces.rows, self._pieces.count

    @property
    def scratch(self) -> Path | None:
        """A folder for what is known of the next chunk."""
        return self._unfinished

    def add(self, results: Any) -> None:
        """Add the results for a chunk of rows.

        Args:
            results: a DataFrame; arrays by their names, each [n, ...]; or one array.

        Raises:
            InputError: if pictures are to be written to a table.
            OSError: if the disk is full.
        """
        if hasattr(results, "columns"):
            results = {str(name): results[name].to_numpy() for name in results.columns}
        if not isinstance(results, dict):
            results = {"x": results}
        if self.suffix in TABLES and "x" in results and results["x"].ndim > 2:
            raise InputError(
                f"pictures do not fit into {self.path}: write a .npy or .npz file", "out"
            )
        try:
            self._pieces.add({name: _plain(array) for name, array in results.items()})
        except OSError as error:
            raise self._explained(error) from error
        self.rows, self.chunks = self._pieces.rows, self._pieces.count

    def _finish(self) -> Path:
        whole = self._unfinished / f"whole{self.suffix}"
        try:
            match self.suffix:
                case ".csv":
                    self._write_csv(whole)
                case ".parquet":
                    self._write_parquet(whole)
                case ".npz":
                    self._write_npz(whole)
                case _:
                    self._write_npy(whole)
        except OSError as error:
            whole.unlink(missing_ok=True)
            raise self._explained(error) from error
        return whole

    def _clean(self, error: BaseException | None) -> None:
        self._pieces.clean(error)

    def _explained(self, error: OSError) -> OSError:
        """Return an error that says what to do about a full disk."""
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return error
        return OSError(
            f"there is no space left for {self.path}: make room; the same command continues after "
            f"{self.rows:,} rows"
        )

    def _write_csv(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            for number, arrays in enumerate(self._pieces.tables(TOGETHER)):
                _table(arrays).to_csv(file, header=number == 0, index=False, lineterminator="\n")

    def _write_parquet(self, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        writer = None
        try:
            for arrays in self._pieces.tables(TOGETHER):
                table = pa.Table.from_pandas(_table(arrays), preserve_index=False)
                writer = writer or parquet.ParquetWriter(path, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()

    def _write_npz(self, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, (dtype, shape) in self._pieces.types.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    file.write(self._header(dtype, shape))
                    for array in self._pieces.arrays(name):
                        file.write(array.tobytes())

    def _write_npy(self, path: Path) -> None:
        types = self._pieces.types
        fields = [(name, dtype, shape) for name, (dtype, shape) in types.items()]
        dtype, shape = next(iter(types.values())) if len(fields) == 1 else (np.dtype(fields), ())
        with path.open("wb") as file:
            file.write(self._header(dtype, shape))
            for arrays in self._pieces.tables(TOGETHER):
                table = np.empty((len(next(iter(arrays.values()))), *shape), dtype)
                for name, array in arrays.items():
                    if len(fields) == 1:
                        table = array
                    else:
                        table[name] = array
                file.write(table.tobytes())

    def _header(self, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
        """Return what NumPy writes before the numbers of an array with all rows."""
        path = self._unfinished / "header"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Stored array in format 3.0")  # for names in UTF-8
            # The file has no blocks on the disk but for the header.
            mapped = np.lib.format.open_memmap(path, "w+", dtype, (self.rows, *shape))
        offset = mapped.offset
        del mapped
        with path.open("rb") as file:
            header = file.read(offset)
        path.unlink()
        return header

    def _need_pyarrow(self) -> None:
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"{self.path} cannot be written without pyarrow: install it (pip install "
                "pyarrow), or write .csv",
                "out",
            ) from error


def _table(arrays: Arrays) -> Any:
    """Return a DataFrame; each column of a matrix is one of its columns."""
    import pandas as pd

    columns: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if array.ndim == 1:
            columns[name] = array
        elif array.ndim == 2:
            columns |= {f"{name}_{j}": array[:, j] for j in range(array.shape[1])}
        else:
            columns |= {
                f"{name}{k}_{j}": array[:, k, j]
                for k in range(array.shape[1])
                for j in range(array.shape[2])
            }
    return pd.DataFrame(columns)


def _plain(array: Any) -> np.ndarray:
    """Return names of categories as strings, which are read without running anything."""
    array = np.asarray(array)
    if array.dtype != object:
        return array
    return np.array(["" if value is None else str(value) for value in array])
