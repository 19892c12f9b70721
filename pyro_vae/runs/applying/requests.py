"""What a command asks for: all that its results depend on, for one that goes on after another."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pyro_vae.programs.program_state import state_hash
from pyro_vae.runs import data_form, validation_scores
from pyro_vae.runs.applying.trained import Trained

FILES = ("config.yaml", data_form.NAME, validation_scores.NAME)


def request(model: Trained, verb: str, data: str | None, **options: Any) -> dict[str, Any]:
    """Return what a command asks for, in a form that JSON takes.

    Args:
        model: the model. Its parameters and its code count, and the files of its run.
        verb: what is done.
        data: what is read; None if nothing is. Of files the size and the time of the last change
            count.
        options: the options of the verb.
    """
    asked = {
        "verb": verb,
        "model": _of_model(model),
        "device": model.device.type,
        "version": f"{version('pyro_vae')}, torch {torch.__version__}",
        "data": None if data is None else _of_data(data),
    }
    return asked | {name: _plain(value) for name, value in options.items()}


def _of_model(model: Trained) -> str:
    digest = hashlib.sha256(state_hash([model.vae]).encode())
    for name in FILES if model.folder is not None else ():
        path = Path(model.folder or "") / name
        digest.update(path.read_bytes() if path.exists() else b"none")
    return digest.hexdigest()


def _of_data(data: str) -> str:
    path = Path(data)
    if not path.exists():  # the name of a data set
        return data
    files = sorted(_files(path)) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(f"{file.relative_to(path)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return f"{path.resolve()} {digest.hexdigest()}"


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder. Hidden ones are no data: the results may be written there."""
    for path in folder.rglob("*"):
        if path.is_file() and not any(part[0] == "." for part in path.relative_to(folder).parts):
            yield path


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {name: repr(each) for name, each in asdict(value).items()}
    if isinstance(value, torch.Tensor):
        return state_hash([value])
    return value
