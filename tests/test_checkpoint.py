"""Checkpoints are complete files, and loading them executes nothing."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_vae import InputError, checkpoint

Save = Callable[[Path, dict[str, Any]], None]
STATE = {"a": {"b": torch.arange(3)}, "history": [{"epoch": 1, "loss": 0.5}]}


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", STATE)
    loaded = checkpoint.load(tmp_path / "c.pt")
    assert torch.equal(loaded["a"]["b"], torch.arange(3))
    assert loaded["history"] == STATE["history"]
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, STATE)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"no space.*c\.pt"):
        checkpoint.save(path, {"other": torch.zeros(5)})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def save_as_before(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint as older versions did, without a checksum."""
    torch.save(state, path)


SAVE = pytest.mark.parametrize("save", [checkpoint.save, save_as_before])


@SAVE
@pytest.mark.parametrize("length", [0, 1, 21, 100, -71, -70, -64, -22, -2, -1])
def test_a_file_that_is_cut_short(tmp_path: Path, length: int, save: Save) -> None:
    save(tmp_path / "c.pt", STATE)
    content = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(content[:length])
    with pytest.raises(InputError, match="cut short"):
        checkpoint.load(tmp_path / "c.pt")


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_any_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, STATE)
    content = path.read_bytes()
    size = 8 * len(content)
    for bit in [*range(0, size, 101), *range(size - 800, size, 7)]:
        path.write_bytes(flipped(content, bit))
        with pytest.raises(InputError, match="is damaged"):
            checkpoint.load(path)


def test_a_flipped_bit_in_the_values_of_an_older_file_is_refused(tmp_path: Path) -> None:
    path, values = tmp_path / "c.pt", torch.arange(1000.0) + 0.123
    save_as_before(path, {"values": values})
    assert torch.equal(checkpoint.load(path)["values"], values)
    content = path.read_bytes()
    start = content.index(values.numpy().tobytes())
    for bit in range(8 * start, 8 * start + 8 * 4000, 997):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(InputError, match="is damaged, some of its bytes"):
            checkpoint.load(path)


def test_what_is_not_read_back_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file stays, and the error names the file."""
    path = tmp_path / "c.pt"
    checkpoint.save(path, STATE)
    # Once the file is written, the disk changes a byte.
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *_: os.pwrite(file, b"?", 400))
    with pytest.raises(OSError, match=r"reads back differently.*c\.pt"):
        checkpoint.save(path, {"other": torch.zeros(5)})
    monkeypatch.undo()
    assert checkpoint.load(path)["history"] == STATE["history"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("links", [True, False])
def test_the_file_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "c.pt"
    for number in range(3):
        checkpoint.save(path, {"number": number}, keep_previous=True)
    checkpoint.save(path, {"number": 3})
    assert checkpoint.load(path) == {"number": 3}
    assert checkpoint.load(tmp_path / "previous" / "c.pt") == {"number": 1}
    assert not list(tmp_path.rglob(".*"))


def test_a_file_that_is_missing_or_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train first"):
        checkpoint.load(tmp_path / "c.pt")
    torch.save(torch.zeros(3), tmp_path / "c.pt")
    with pytest.raises(InputError, match="not a checkpoint of pyro_vae"):
        checkpoint.load(tmp_path / "c.pt")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def test_loading_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"engine": Evil()}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.load(tmp_path / "c.pt")
    assert not (tmp_path / "pwned").exists()
