"""A hidden folder for what is not finished, which one process at a time has."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pyro_vae.errors import InputError


@contextlib.contextmanager
def held(folder: Path, out: Path) -> Iterator[None]:
    """Make a folder, unless it exists, and keep other processes from it.

    The lock ends with the process, however that ends. Windows has no such lock on folders: there
    nothing is locked.

    Args:
        folder: the folder.
        out: what is written, for the errors.

    Raises:
        InputError: if another process has the folder, or it cannot be made.
    """
    if folder.is_file():  # older versions wrote a file
        folder.unlink()
    if sys.platform == "win32":
        folder.mkdir(exist_ok=True)
        yield
        return
    descriptor = _lock(folder, out)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path, out: Path) -> int:
    """Return the descriptor of a folder that is locked."""
    import fcntl

    while True:
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{out} cannot be written ({error.strerror}): choose another place", "out"
            ) from error
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process has finished, and removed it
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise InputError(
                f"another process is writing {out}: wait until it ends, or choose another name",
                "out",
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
