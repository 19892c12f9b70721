"""Files that are complete or do not exist, and checkpoints that are safe to load.

A checkpoint is a zip file, as `torch.save` writes it, whose comment is the SHA-256 of all before
the comment. A bit that was flipped anywhere, and a file that was cut short, are refused. Files of
older versions have no comment: there the CRC of each entry of the zip file is tested.
"""

import errno
import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyro_vae.errors import InputError

PREVIOUS = "previous"  # the folder, beside a file, that holds the file from before
_NONE = object()  # there is no default; None may be one
_MARK = b"sha256 "
_COMMENT = len(_MARK) + 64  # bytes
_NO_COMMENT, _HAS_COMMENT = bytes(2), _COMMENT.to_bytes(2, "little")
_PIECE = 2**20  # bytes that are read at once
_LAST_RECORD = b"PK\5\6"  # of a zip file: 22 bytes, of which the last two are the comment's length


def write(
    path: Path, *content: bytes | memoryview, keep_previous: bool = False, lasting: bool = True
) -> None:
    """Write a file atomically: if the process is killed, the file is the old one or the new one.

    The old file is replaced once the new one has been read back.

    Args:
        path: the file.
        content: what it is to hold, one part after the other.
        keep_previous: whether the old file is kept, in the folder `PREVIOUS` beside it.
        lasting: whether the file has to be on the disk, and is read back. That takes some
            milliseconds, which a file does not need that can be made again.

    Raises:
        OSError: if the file cannot be written, or reads back differently.
    """
    temporary = path.with_name(f".{path.name}.unfinished")
    with naming(path):
        try:
            with temporary.open("wb") as file:
                file.writelines(content)
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
                if lasting and hasattr(
                    os, "posix_fadvise"
                ):  # read it from the disk, not from memory
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if lasting and not _holds(temporary, content):
                raise OSError(errno.EIO, "what was written reads back differently")
            if keep_previous and path.exists():
                _keep(path)
            temporary.replace(path)
            if lasting:
                sync(path.parent)
        finally:
            with suppress(OSError):  # that of the writing says more
                temporary.unlink(missing_ok=True)


def _holds(path: Path, content: Sequence[bytes | memoryview]) -> bool:
    """Return whether a file holds these parts and nothing else; they are read in pieces."""
    with path.open("rb") as file:
        for each in content:
            part = memoryview(each)
            for first in range(0, len(part), _PIECE):
                piece = part[first : first + _PIECE]
                if file.read(len(piece)) != piece:
                    return False
        return not file.read(1)


def _keep(path: Path) -> None:
    """Put a file into the folder `PREVIOUS` too; it stays where it is."""
    previous = path.parent / PREVIOUS / path.name
    previous.parent.mkdir(exist_ok=True)
    temporary = previous.with_name(f".{path.name}.unfinished")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    temporary.replace(previous)
    temporary.unlink(missing_ok=True)  # replacing a link by the same file leaves it there
    sync(previous.parent)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors of the disk name a file: that of a full disk names none by itself."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def save(path: Path, state: dict[str, Any], keep_previous: bool = False) -> None:
    """Write a checkpoint: nested dictionaries and lists of tensors, numbers and strings.

    Args:
        path: the file.
        state: what it is to hold.
        keep_previous: see `write`.
    """
    import torch  # `write` does without it

    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    content[-2:] = _HAS_COMMENT  # in place of `_NO_COMMENT`
    digest = hashlib.sha256(content).hexdigest().encode()
    write(path, content, _MARK + digest, keep_previous=keep_previous)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Loading executes nothing in the file, so the file may come from anybody.

    Raises:
        InputError: if the file does not exist, is damaged, or cannot be read.
    """
    import torch

    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}: train first, or resume the run") from error
    damaged = _damage(content)
    if damaged:
        raise InputError(
            f"{path} is damaged, {damaged}: replace it with a complete copy, or train again in a "
            "new folder"
        )
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the error for a broken file depends on where it is broken
        raise InputError(
            f"{path} cannot be read, since it is not a checkpoint of pyro_vae: replace it with a "
            "complete copy, or train again in a new folder"
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path} is not a checkpoint of pyro_vae")
    return state


def typed(state: dict[str, Any], name: str, *types: type | None, default: Any = _NONE) -> Any:
    """Return a value in the content of a checkpoint, which may come from anybody.

    Args:
        state: the content, or a part of it.
        name: the name of the value.
        types: the types that it may have; None stands for itself, and a float may be an integer.
        default: the value if older versions have not saved one; without it there has to be one.

    Raises:
        TypeError: if it has another type.
        KeyError: if it is not there, and no default is given.
    """
    value = state[name] if default is _NONE else state.get(name, default)
    allowed = {type(None) if each is None else each for each in types}
    if float in allowed:
        allowed.add(int)
    if type(value) not in allowed:
        raise TypeError(f"{name} is of the type {type(value).__name__}")
    return value


def _damage(content: bytes) -> str:
    """Return what is wrong with the bytes of a checkpoint; "" if they are those that were saved."""
    body, mark, digest = content[:-_COMMENT], content[-_COMMENT:-64], content[-64:]
    if mark == _MARK:
        same = hashlib.sha256(body).hexdigest().encode() == digest
        return "" if same else "some of its bytes have changed"
    if content[-22:-18] != _LAST_RECORD or content[-2:] != _NO_COMMENT:
        return "it may have been cut short"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return "some of its bytes have changed" if archive.testzip() else ""
    except Exception:  # the error depends on where it is broken
        return "some of its bytes have changed"
