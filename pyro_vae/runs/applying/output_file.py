"""A file that a verb writes: it is whole, or it is not there."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyro_vae.errors import InputError
from pyro_vae.runs.applying.held_folder import held


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        rows: the number of rows.
        notes: sentences for a person to read, about what was ignored.
        before: how many of the rows an interrupted call had finished.
    """

    rows: int
    notes: Sequence[str] = ()
    before: int = 0


class OutputFile:
    """A file to write, and a hidden folder beside it for what is not finished.

    Use it in a `with` statement, and call `begin` first: at the end of the block the file is
    finished.

    Args:
        path: the file.
        overwrite: whether a file that exists is replaced.

    Attributes:
        rows: the number of rows that are there.
        chunks: the number of chunks that are there.
        notes: sentences for a person to read.

    Raises:
        InputError: if its suffix is another one, its folder does not exist, it is a file of a run,
            or it exists and may not be replaced.
    """

    suffixes: tuple[str, ...]

    def __init__(self, path: str | Path, overwrite: bool = True) -> None:
        self.path, self.overwrite = Path(path), overwrite
        self.rows = self.chunks = 0
        self.notes: list[str] = []
        self.suffix = self.path.suffix.lower()
        if self.suffix not in self.suffixes:
            raise InputError(
                f"{self.path} cannot be written: choose a name that ends with "
                f"{', '.join(self.suffixes)}",
                "out",
            )
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder: choose the name of a file", "out")
        if _is_of_a_run(self.path):
            raise InputError(f"{self.path} is a file of a run: choose another name", "out")
        self._check_overwrite()
        if not self.path.parent.is_dir():
            raise InputError(f"there is no folder {self.path.parent}: make it first", "out")
        self._unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file; after an error leave only what is of use for the next call."""
        with self._held:
            if error is None:
                try:
                    self._finish().replace(self.path)
                except BaseException as failure:
                    error = failure
                    raise
                finally:
                    self._clean(error)
            else:
                self._clean(error)

    def begin(self, request: dict[str, Any]) -> None:
        """Take over what an interrupted call with the same request has finished, if that is kept.

        Args:
            request: everything that the results depend on; see `requests`.

        Raises:
            InputError: if another process is writing the file, or it cannot be written.
        """
        self._held.enter_context(held(self._unfinished, self.path))
        self._check_overwrite()  # another process may have finished it in between

    def add(self, results: Any) -> None:
        """Add the results for a chunk of rows."""
        raise NotImplementedError

    @property
    def scratch(self) -> Path | None:
        """A folder for what is known of the next chunk; None if nothing is kept."""
        return None

    def _finish(self) -> Path:
        """Write the file to the hidden folder, and return its path."""
        raise NotImplementedError

    def _clean(self, error: BaseException | None) -> None:
        """Remove what is not finished, or of no use.

        Args:
            error: the error that ended the work, if one did.
        """
        raise NotImplementedError

    def _check_overwrite(self) -> None:
        if self.path.exists() and not self.overwrite:
            raise InputError(
                f"{self.path} exists: choose another name, or overwrite it", "overwrite"
            )


def _is_of_a_run(path: Path) -> bool:
    """Return whether a run writes a file of this name itself, with a suffix that outputs have."""
    folder = path.resolve().parent
    if folder.name == "figures":
        return (folder.parent / "config.yaml").exists()
    return path.name == "metrics.csv" and (folder / "config.yaml").exists()
