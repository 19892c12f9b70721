"""Files that are whole or not there at all, and checkpoints that are safe to load."""

import io
import os
from pathlib import Path
from typing import Any

import torch

from pyro_vae.errors import InputError


def write(path: Path, content: bytes) -> None:
    """Write a file in one stroke: killed half-way, it leaves the old one as it was, or none."""
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
    """Read a checkpoint. Nothing in it is executed, so it may come from anywhere.

    Raises:
        InputError: if it is not there, or cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}: train first, or go on with --resume") from error
    except OSError:
        raise
    except Exception as error:  # torch raises whatever its readers meet in a broken file
        raise InputError(
            f"{path} cannot be read, it may have been cut short: put a whole copy in its place, or "
            "train again in a new folder"
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path} is no checkpoint of pyro_vae")
    return state
