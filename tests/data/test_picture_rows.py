"""Folders of pictures that are larger than memory: the same data as if they were read whole."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_vae import InputError, data
from pyro_vae.data.sources import picture_survey
from pyro_vae.runs import config
from pyro_vae.runs.run import Run

draw = np.random.default_rng(4)
grey = draw.integers(0, 256, (60, 7, 9)).astype(np.uint8)
colour = draw.integers(0, 256, (60, 7, 9, 3)).astype(np.uint8)
floats = draw.gamma(2, 1, (60, 7, 9)).astype(np.float32)


def flat(examples: Any, suffix: str = "png") -> dict[str, Any]:
    return {f"{index}.{suffix}": picture for index, picture in enumerate(examples)}


def write(folder: Path, files: dict[str, Any]) -> str:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = content if isinstance(content, Image.Image) else Image.fromarray(content)
        picture.save(path)
    return str(folder)


def load_both(monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> list[data.Dataset]:
    """Load pictures into memory, and as rows that are read when they are needed."""
    whole = data.load(name, **options)
    monkeypatch.setattr(picture_survey, "LARGE", 1000)
    lazy = data.load(name, **options)
    assert isinstance(whole.train, torch.Tensor) and isinstance(lazy.train, data.Rows)
    return [whole, lazy]


PARTS = ["train"] * 40 + ["val"] * 8 + ["test"] * 12
FOLDERS: dict[str, dict[str, Any]] = {
    "grey": flat(grey),
    "colour": flat(colour),
    "colour and grey": flat([colour[i] if i % 3 else grey[i] for i in range(60)]),
    "grey in files with colours": flat([np.repeat(p[..., None], 3, 2) for p in grey]),
    "some greys in files with colours": flat([colour[0], *np.repeat(grey[1:, ..., None], 3, 3)]),
    "one bit": flat(grey > 99),
    "one bit and eight": flat([p > 99 if i % 2 else p for i, p in enumerate(grey)]),
    "one bit and colour": flat([grey[i] > 99 if i % 2 else colour[i] for i in range(60)]),
    "16 bits": flat(grey.astype(np.uint16) * 9),
    "16 bits, few levels": flat(grey.astype(np.uint16)),
    "17 levels": flat(grey // 16),
    "32 bits": flat(grey.astype(np.int32) * 1000 - 7, "tiff"),
    "positive": flat(floats, "tiff"),
    "unit interval": flat(np.minimum(floats / 4, 1), "tiff"),
    "whole floats": flat(grey.astype(np.float32), "tiff"),
    "classes": {f"{'ab'[i % 2]}/{i}.png": grey[i] for i in range(60)},
    "parts": {f"{part}/{'ab'[i % 2]}/{i}.png": colour[i] for i, part in enumerate(PARTS)},
    "a part without colour": {f"{part}/{i}.png": grey[i] for i, part in enumerate(PARTS)}
    | {"train/0.png": colour[0]},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_data_are_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, lazy = load_both(monkeypatch, write(tmp_path / "pictures", FOLDERS[name]))
    assert whole.fingerprint == lazy.fingerprint and whole.columns == lazy.columns
    assert whole.notes == lazy.notes and whole.label_names == lazy.label_names
    for part in ("train", "validation", "test"):
        mine, its = getattr(whole, part), getattr(lazy, part)[:]
        assert mine.dtype == its.dtype and torch.equal(mine, its)
        labels = getattr(whole, f"{part}_labels"), getattr(lazy, f"{part}_labels")
        assert (labels[0] is None) == (name not in ("classes", "parts"))
        assert labels[0] is labels[1] or torch.equal(*labels)
    kinds = [loaded.kind.fitted(loaded.train) for loaded in (whole, lazy)]
    assert str(kinds[0]) == str(kinds[1])
    if hasattr(kinds[0], "loc"):
        assert kinds[0].loc.equal(kinds[1].loc) and kinds[0].scale.equal(kinds[1].scale)


def test_sizes_and_depths_are_refused_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = write(tmp_path / "sizes", flat([p[: 5 + i % 2] for i, p in enumerate(grey)]))
    deep = [p.astype(np.uint16) if i % 2 else p for i, p in enumerate(grey)]
    depths = write(tmp_path / "depths", flat(deep))
    said = []
    for _ in range(2):
        for folder in (sizes, depths):
            with pytest.raises(InputError, match="differ in") as caught:
                data.load(folder)
            said.append(str(caught.value))
        monkeypatch.setattr(picture_survey, "LARGE", 1000)
    assert said[:2] == said[2:]
    scaled = data.load(sizes, image_size=4)
    assert isinstance(scaled.train, torch.Tensor) and scaled.train.shape == (49, 4, 4)


def build(folder: Path, name: str) -> Run:
    given = ["--data", name, "--device", "cpu", "--engine", "eager", "--epochs", "3"]
    return Run.build(folder, config.parse([*given, "--batch_size", "10"]))


def test_a_run_has_the_same_numbers_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write(tmp_path / "pictures", FOLDERS["colour"])
    runs = [build(tmp_path / "a", name)]
    monkeypatch.setattr(picture_survey, "LARGE", 1000)
    runs.append(build(tmp_path / "b", name))
    assert [isinstance(run.train, data.Rows) for run in runs] == [False, True]
    for run in runs:
        run.create()
    whole, lazy = (run.fit() for run in runs)
    assert whole == lazy
    states = [run.vae.state_dict() for run in runs]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_pictures_that_are_gone_or_changed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write(tmp_path / "pictures", flat(grey))
    monkeypatch.setattr(picture_survey, "LARGE", 1000)
    run = build(tmp_path / "run", name)
    assert isinstance(run.train, data.Rows)
    some = sorted(Path(name).iterdir())[int(run.train.index[17])]
    content = some.read_bytes()
    run.create()
    some.unlink()
    with pytest.raises(InputError, match=rf"/{some.name} cannot be read .*No such file") as caught:
        run.fit()
    assert "\n" not in str(caught.value) and caught.value.parameter == "data"
    Image.fromarray(grey[0, :5]).save(some)
    with pytest.raises(InputError, match=f"/{some.name} has changed since the data were loaded"):
        run.train[:]
    some.write_bytes(content)
    assert len(run.train[:]) == 49


MEASURE = """
import sys
import torch
from pyro_vae import data
def peak():
    return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
data.load(sys.argv[1])  # imports, and threads with their stacks
before = peak()
loaded = data.load(sys.argv[2])
assert isinstance(loaded.train, data.Rows), loaded.train.shape
loaded.kind.check(loaded.train)
count = sum(len(part) for part in data.rows.batches(loaded.train, torch.arange(400).split(20)))
print(peak() - before, loaded.train.shape.numel(), count)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="not Linux")
def test_a_large_folder_takes_little_memory(tmp_path: Path) -> None:
    """600 pictures of 1 MiB, of which 114 are set aside."""
    blocks = draw.integers(0, 256, (600, 4, 8), np.uint8)
    large = {
        f"{i}.png": Image.fromarray(block).resize((1024, 1024), Image.Resampling.NEAREST)
        for i, block in enumerate(blocks)
    }
    folders = write(tmp_path / "small", flat(grey)), write(tmp_path / "large", large)
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, *folders], capture_output=True, text=True, check=True
    )
    used, size, count = map(int, ran.stdout.split())
    assert count == 400 and size > 4e8 and used < 0.7 * size
