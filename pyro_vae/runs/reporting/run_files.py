"""What the files in a run's folder hold, read without its data and its model."""

import base64
import csv
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae.errors import InputError
from pyro_vae.runs import bounded_yaml

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A PNG file.

    Attributes:
        uri: the file as a `data:` URI.
        width: its width in pixels.
        height: its height in pixels.
    """

    uri: str
    width: int
    height: int

    @classmethod
    def of(cls, content: bytes) -> "Picture | None":
        """Return the picture in the content of a file; None if that is no PNG file."""
        if not content.startswith(_PNG) or len(content) < 24:
            return None
        width, height = struct.unpack(">II", content[16:24])
        return cls(f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)


@dataclass(frozen=True)
class RunFiles:
    """What a report takes from a run's folder.

    Attributes:
        folder: the folder, as the user names it.
        config: the text of `config.yaml`.
        options: what it says.
        versions: the packages with which the run was made, as in "torch 2.9.0"; [] if unknown.
        bounds: the content of `bounds.json`; {} if there is no such file.
        diagnostics: the content of `diagnostics.json`; {} if there is no such file.
        history: the rows of `metrics.csv`.
        pictures: the figures, by the names of their files without the ending.
    """

    folder: Path
    config: str
    options: dict[str, Any]
    versions: list[str]
    bounds: dict[str, Any]
    diagnostics: dict[str, Any]
    history: list[dict[str, str]]
    pictures: dict[str, Picture]

    @classmethod
    def read(cls, folder: Path, results: Path | None = None) -> "RunFiles":
        """Read the files of a run. Those that do not exist are left out.

        Args:
            folder: the run's folder.
            results: the folder of the evaluation's results; by default the run's own.

        Raises:
            InputError: if the folder is no run, or one of its files is damaged.
        """
        path = folder / "config.yaml"
        if not path.exists():
            raise InputError(f"{folder} is not the folder of a run: there is no {path.name} in it")
        results = results or folder
        text = bounded_yaml.read(path)
        first = text.partition("\n")[0]
        pictures = {
            each.stem: picture
            for each in sorted((results / "figures").glob("*.png"))
            if each.is_file() and (picture := Picture.of(each.read_bytes()))
        }
        return cls(
            folder=folder,
            config=text,
            options=bounded_yaml.load(text),
            versions=first.removeprefix("# ").split(", ") if first.startswith("# ") else [],
            bounds=_read_json(results / "bounds.json"),
            diagnostics=_read_json(results / "diagnostics.json"),
            history=_read_rows(folder / "metrics.csv"),
            pictures=pictures,
        )

    def part(self, name: str) -> str:
        """Return the name of the class of a part, as in `StandardNormal`; "" if none is named."""
        chosen = self.options.get(name)
        path = chosen.get("class_path", "") if isinstance(chosen, dict) else chosen
        return str(path or "").rpartition(".")[2]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path} is damaged: evaluate the run again") from error
    return content if isinstance(content, dict) else {}


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", errors="replace") as file:
        try:
            rows = list(csv.DictReader(file))
        except csv.Error as error:
            raise InputError(
                f"{path} is damaged ({error}): replace it with a complete copy"
            ) from error
    return [
        {str(key): value or "" for key, value in row.items() if isinstance(value, str | None)}
        for row in rows
    ]
