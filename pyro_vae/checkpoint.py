"""Files that are complete or do not exist, and checkpoints that are safe to load."""

import io
import os
from pathlib import Path
from typing import Any

import torch

from pyro_vae.errors import InputError


def write(path: Path, content: bytes) -> None:
    """Write a file atomically: if the process is killed, the file is the old one or the new one."""
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint: nested dictionaries and lists of tensors, numbers and strings."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Loading executes nothing in the file, so the file may come from anybody.

    Raises:
        InputError: if the file does not exist or cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}: train first, or resume the run") from error
    except OSError:
        raise
    except Exception as error:  # the error for a broken file depends on where it is broken
        raise InputError(
            f"{path} cannot be read, it may have been cut short: replace it with a complete copy, "
            "or train again in a new folder"
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path} is no checkpoint of pyro_vae")
    return state
