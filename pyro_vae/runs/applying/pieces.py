"""Results that come piece by piece, in a hidden folder: an interrupted call loses one piece."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae import checkpoint
from pyro_vae.data.source import listed
from pyro_vae.errors import InputError

Arrays = dict[str, np.ndarray]
REQUEST = "request.json"


class Pieces:
    """A folder with a file for each piece, and one that says what was asked for.

    Args:
        folder: the folder, which nobody else writes to. It exists when `begin` is called.

    Attributes:
        count: the number of pieces that are there.
        rows: the number of their rows.
        types: the types and shapes of the arrays, which hold the values of all pieces.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = self.rows = 0
        self.types: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self._is_ours = False

    def begin(self, request: dict[str, Any], discard: bool) -> list[str]:
        """Take over the pieces of an interrupted call with the same request.

        Args:
            request: what is asked for, in a form that JSON takes.
            discard: whether the pieces of another call are removed.

        Returns:
            Sentences about what was found.

        Raises:
            InputError: if the pieces of another call are there, and may not be removed.
        """
        notes = []
        request = json.loads(json.dumps(request))
        before = self._request()
        if before is not None and before != request:
            names = {*before, *request}
            differ = sorted(name for name in names if before.get(name) != request.get(name))
            about = f"results of an interrupted command, which had another {listed(differ)}"
            if not discard:
                raise InputError(
                    f"{self.folder} holds {about}: repeat that command to finish it, choose "
                    "another name, or discard them by overwriting",
                    "overwrite",
                )
            notes.append(f"discarded: {about}")
            before = None
        self._is_ours = True
        if before is None:
            self._empty()
            checkpoint.write(self.folder / REQUEST, json.dumps(request, indent=1).encode())
            return notes
        for arrays in self:
            self._count(arrays)
        if self.count:
            notes.append(f"{self.rows:,} rows were finished before an interruption")
        return notes

    def add(self, arrays: Arrays) -> None:
        """Add a piece. It is whole, or it is not there.

        Args:
            arrays: arrays by their names, each [n, ...], without Python objects.
        """
        buffer = io.BytesIO()
        # By numbers: savez has arguments with names that columns may have, too.
        np.savez(buffer, *arrays.values(), names=np.array(list(arrays)))
        checkpoint.write(self._path(self.count), buffer.getvalue())
        self._count(arrays)

    def __iter__(self) -> Iterator[Arrays]:
        """Read the pieces, in order, up to one that is not there or damaged."""
        number = 0
        while (arrays := self._read(number)) is not None:
            yield arrays
            number += 1

    def arrays(self, name: str) -> Iterator[np.ndarray]:
        """Read one of the arrays, piece by piece, all of its final type."""
        for number in range(self.count):
            yield self._kept(number, name)[name].astype(self.types[name][0], copy=False)

    def tables(self, num_bytes: int) -> Iterator[Arrays]:
        """Read all arrays, several pieces together, all of their final types.

        Args:
            num_bytes: about how many are read together.
        """
        waiting: list[Arrays] = []
        size = 0
        for number in range(self.count):
            arrays = self._kept(number)
            waiting.append(arrays)
            size += sum(array.nbytes for array in arrays.values())
            if size >= num_bytes:
                yield self._joined(waiting)
                waiting, size = [], 0
        if waiting:
            yield self._joined(waiting)

    def clean(self, error: BaseException | None) -> None:
        """Remove the folder, unless the error that ended the work leaves pieces of use."""
        # The first piece counts as soon as it is there: an interruption may come before `_count`.
        of_use = self._path(0).exists() and error is not None and not isinstance(error, InputError)
        if self._is_ours and not of_use:
            shutil.rmtree(self.folder)

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()

    def _kept(self, number: int, only: str | None = None) -> Arrays:
        """Return a piece that was there before.

        Raises:
            OSError: if it is there no more.
        """
        arrays = self._read(number, only)
        if arrays is None:
            raise OSError(
                f"{self._path(number)} was removed or damaged: repeat the command, which computes "
                "it again"
            )
        return arrays

    def _read(self, number: int, only: str | None = None) -> Arrays | None:
        """Return a piece, or only one of its arrays; None if it is not there or damaged."""
        try:
            with self._path(number).open("rb") as file, np.load(file) as piece:
                names = enumerate(piece["names"].tolist())
                return {name: piece[f"arr_{j}"] for j, name in names if only in (None, name)}
        except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def _joined(self, pieces: list[Arrays]) -> Arrays:
        return {
            name: np.concatenate([piece[name] for piece in pieces]).astype(dtype, copy=False)
            for name, (dtype, _) in self.types.items()
        }

    def _count(self, arrays: Arrays) -> None:
        for name, array in arrays.items():
            before, shape = self.types.get(name, (array.dtype, array.shape[1:]))
            self.types[name] = np.result_type(before, array.dtype), shape
        self.count += 1
        self.rows += len(next(iter(arrays.values())))

    def _request(self) -> dict[str, Any] | None:
        """Return what an interrupted call was asked for; None if there was none."""
        try:
            found = json.loads((self.folder / REQUEST).read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.npz"
