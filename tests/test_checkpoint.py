"""Checkpoints are complete files, and loading them executes nothing."""

import os
from pathlib import Path

import pytest
import torch

from pyro_vae import InputError, checkpoint

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
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, {"other": torch.zeros(5)})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_file_that_is_cut_short(tmp_path: Path, length: int) -> None:
    checkpoint.save(tmp_path / "c.pt", STATE)
    content = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(content[:length])
    with pytest.raises(InputError, match="cut short"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_file_that_is_missing_or_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train first"):
        checkpoint.load(tmp_path / "c.pt")
    torch.save(torch.zeros(3), tmp_path / "c.pt")
    with pytest.raises(InputError, match="no checkpoint of pyro_vae"):
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
