"""A hidden folder for what is not finished, which one process at a time has."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pyro_vae.errors import InputError


@contextlib.contextmanager
def held(folder: Path, out: Path, parameter: str | None = "out") -> Iterator[None]:
    """Make a folder, unless it exists, and keep other processes from it.

    The lock ends with the process, however that ends. Windows has no such lock on folders: there
    nothing is locked.

    Args:
        folder: the folder.
        out: what is written, for the errors.
        parameter: the argument that named it, for the errors; None if it has to be this one.

    Raises:
        InputError: if another process has the folder, or it cannot be made.
    """
    if folder.is_file():  # older versions wrote a file
        folder.unlink()
    if sys.platform == "win32":
        folder.mkdir(exist_ok=True)
        yield
        return
    descriptor = _lock(folder, out, parameter)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path, out: Path, parameter: str | None) -> int:
    """Return the descriptor of a folder that is locked."""
    import fcntl

    while True:
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{out} cannot be written ({error.strerror}): choose another place", parameter
            ) from error
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process has finished, and removed it
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            instead = ", or choose another name" if parameter else ""
            raise InputError(
                f"another process is writing {out}: wait until it ends{instead}", parameter
            ) from error
        except OSError:  # a file system without locks
            return descriptor
        if _is_at(descriptor, folder):
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, folder: Path) -> bool:
    """Return whether an open folder is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False
