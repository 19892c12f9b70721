"""Grids of pictures: where each picture is, colours, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_vae import InputError, kinds
from pyro_vae.runs.applying import picture_writer
from pyro_vae.runs.applying.picture_writer import BETWEEN, PictureWriter

draw = np.random.default_rng(0)


def write(path: Path, kind: kinds.Kind, *chunks: np.ndarray) -> np.ndarray:
    with PictureWriter(path, kind) as writer:
        writer.begin({})
        for chunk in chunks:
            writer.add(chunk)
    assert writer.rows == sum(map(len, chunks))
    with Image.open(path) as image:
        return np.asarray(image)


def test_colours_and_chunks(tmp_path: Path) -> None:
    x = draw.integers(0, 256, (5, 3, 40, 50), dtype=np.uint8)
    grid = write(tmp_path / "a.png", kinds.Levels([3, 40, 50]), x[:2], x[2:])
    assert grid.shape == (2 * 41 - 1, 3 * 51 - 1, 3)
    for place in range(5):
        top, left = place // 3 * 41, place % 3 * 51
        picture = grid[top : top + 40, left : left + 50]
        np.testing.assert_array_equal(picture, np.moveaxis(x[place], 0, -1))
    assert (grid[40] == BETWEEN).all() and (grid[41:, 102:] == BETWEEN).all()


@pytest.mark.parametrize(
    ("kind", "largest"),
    [
        (kinds.Binary([2, 64], levels=17), 16),
        (kinds.Incomplete(kinds.Levels([2, 64], levels=256)), 255),
        (kinds.UnitInterval([2, 64], levels=None), 1),
    ],
)
def test_values_are_shown_from_black_to_white(
    kind: kinds.Kind, largest: int, tmp_path: Path
) -> None:
    x = draw.uniform(0, largest, (1, 2, 64))
    grid = write(tmp_path / "a.png", kind, x)
    np.testing.assert_allclose(grid, x[0] / largest * 255, atol=0.51)


def test_other_kinds_are_shown_as_in_figures(tmp_path: Path) -> None:
    grid = write(tmp_path / "a.png", kinds.Real([1, 64, 64]), draw.normal(size=(1, 1, 64, 64)))
    assert grid.shape == (64, 64)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"not pictures: .*\.npy"):
        PictureWriter(tmp_path / "a.png", kinds.Real([3]))
    monkeypatch.setattr(picture_writer, "MOST", 3)
    with pytest.raises(InputError, match="room for 3 pictures"):
        write(tmp_path / "a.png", kinds.Levels([2, 2]), np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))
    (tmp_path / "b.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        PictureWriter(tmp_path / "b.png", kinds.Levels([2, 2]))
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
