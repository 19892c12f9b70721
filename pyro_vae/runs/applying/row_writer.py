"""Results for rows, written to a file of numbers as they come."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pyro_vae.errors import InputError

SUFFIXES = (".csv", ".parquet", ".npz", ".npy")


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        rows: the number of rows.
        notes: sentences for a person to read, about what was ignored.
    """

    rows: int
    notes: Sequence[str] = ()


class RowWriter:
    """Writes results chunk by chunk: the file is whole, or it is not there.

    `.csv` has a line for each row, and is written as results come. The other files are written at
    the end: `.parquet` has the same columns; `.npz` an array for each name; `.npy` the only array,
    or a structured array with a field for each name.

    Args:
        path: the file.
        overwrite: whether a file that exists is replaced.

    Attributes:
        rows: the number of rows that were added.

    Raises:
        InputError: if its suffix is another one, its folder does not exist, or it exists and may
            not be replaced.
    """

    suffixes: tuple[str, ...] = SUFFIXES

    def __init__(self, path: str | Path, overwrite: bool = True) -> None:
        self.path = Path(path)
        self.rows = 0
        self.suffix = self.path.suffix.lower()
        if self.suffix not in self.suffixes:
            raise InputError(
                f"{self.path} cannot be written: choose a name that ends with "
                f"{', '.join(self.suffixes)}",
                "out",
            )
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder: choose the name of a file", "out")
        if self.path.exists() and not overwrite:
            raise InputError(
                f"{self.path} exists: choose another name, or add --overwrite to replace it", "out"
            )
        if not self.path.parent.is_dir():
            raise InputError(f"there is no folder {self.path.parent}: make it first", "out")
        self._unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        self._chunks: list[dict[str, np.ndarray]] = []
        self._is_first = True

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file; after an error remove what was written."""
        with self._removed_at_last():
            if kind is None:
                self._finish()
                self._unfinished.replace(self.path)

    def add(self, results: Any) -> None:
        """Add the results for more rows.

        Args:
            results: a DataFrame; arrays by their names, each [n, ...]; or one array.
        """
        if hasattr(results, "columns"):
            results = {str(name): results[name].to_numpy() for name in results.columns}
        if not isinstance(results, dict):
            results = {"x": results}
        self.rows += len(next(iter(results.values())))
        if self.suffix == ".csv":
            self._table(results).to_csv(
                self._unfinished, mode="w" if self._is_first else "a", header=self._is_first,
                index=False,
            )  # fmt: skip
        else:
            self._chunks.append(results)
        self._is_first = False

    @contextlib.contextmanager
    def _removed_at_last(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._unfinished.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self.suffix == ".csv":
            return
        arrays = {
            name: _without_objects(np.concatenate([chunk[name] for chunk in self._chunks]))
            for name in self._chunks[0]
        }
        if self.suffix == ".parquet":
            try:
                self._table(arrays).to_parquet(self._unfinished)
            except ImportError as error:
                raise InputError(
                    f"{self.path} cannot be written without pyarrow: install it (pip install "
                    "pyarrow), or write .csv",
                    "out",
                ) from error
            return
        with self._unfinished.open("wb") as file:
            if self.suffix == ".npz":
                np.savez(file, **arrays)  # type: ignore[arg-type]
            elif len(arrays) == 1:
                np.save(file, next(iter(arrays.values())))
            else:
                fields = [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
                table = np.empty(len(next(iter(arrays.values()))), fields)
                for name, array in arrays.items():
                    table[name] = array
                np.save(file, table)

    def _table(self, arrays: dict[str, np.ndarray]) -> Any:
        """Return a DataFrame; each column of a matrix is one of its columns."""
        import pandas as pd

        columns: dict[str, np.ndarray] = {}
        for name, array in arrays.items():
            if array.ndim > 2:
                raise InputError(
                    f"pictures do not fit into {self.path}: write a .npy or .npz file", "out"
                )
            if array.ndim == 1:
                columns[name] = array
            else:
                columns |= {f"{name}_{place}": array[:, place] for place in range(array.shape[1])}
        return pd.DataFrame(columns)


def _without_objects(array: np.ndarray) -> np.ndarray:
    """Return names of categories as strings, which are read without running anything."""
    if array.dtype != object:
        return array
    return np.array(["" if value is None else str(value) for value in array])
