"""Folders of pictures: their layout, sizes, colours, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_vae import InputError, data
from pyro_vae.data import free_memory

draw = np.random.default_rng(4)
grey = draw.integers(0, 256, (30, 7, 9)).astype(np.uint8)
colour = draw.integers(0, 256, (30, 7, 9, 3)).astype(np.uint8)


def load(folder: Path, pictures: dict[str, Any], **options: Any) -> data.Dataset:
    """Write files, which are arrays, pictures or text, and load their folder."""
    folder = folder / "pictures"
    for name, content in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        else:
            picture = content if isinstance(content, Image.Image) else Image.fromarray(content)
            picture.save(path)
    return data.load(str(folder), **options)


def everything(loaded: data.Dataset) -> list[bytes]:
    parts = (loaded.train, loaded.validation, loaded.test)
    return sorted(row.numpy().tobytes() for part in parts for row in part)


def flat(pictures: Any, suffix: str = ".png") -> dict[str, Any]:
    return {f"{index}{suffix}": picture for index, picture in enumerate(pictures)}


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tiff", ".pgm"])
def test_a_flat_folder_of_grey_pictures(tmp_path: Path, suffix: str) -> None:
    loaded = load(tmp_path, flat(grey, suffix))
    assert loaded.kind.shape == (7, 9) and loaded.train.dtype == torch.uint8
    assert loaded.columns == (data.ColumnSpec("", "levels", levels=256),)
    assert everything(loaded) == sorted(picture.tobytes() for picture in grey)
    assert [len(loaded.train), len(loaded.validation), len(loaded.test)] == [24, 3, 3]
    assert loaded.train_labels is None and not loaded.notes


def test_folders_of_classes_and_colours(tmp_path: Path) -> None:
    names = ["cat", "ant", "dog"]
    loaded = load(tmp_path, {f"{names[i % 3]}/{i}.png": colour[i] for i in range(30)})
    assert loaded.kind.shape == (3, 7, 9) and loaded.label_names == ("ant", "cat", "dog")
    first = colour.transpose(0, 3, 1, 2)
    assert everything(loaded) == sorted(picture.tobytes() for picture in first)
    name_of = {first[i].tobytes(): names[i % 3] for i in range(30)}
    assert loaded.train_labels is not None
    for row, label in zip(loaded.train, loaded.train_labels.tolist(), strict=True):
        assert name_of[row.numpy().tobytes()] == loaded.label_names[label]


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_parts(tmp_path: Path, name: str) -> None:
    parts = ["train"] * 18 + [name] * 5 + ["test"] * 7
    pictures = {f"{part}/{'ab'[i % 2]}/{i}.png": grey[i] for i, part in enumerate(parts)}
    loaded = load(tmp_path, pictures)
    assert [len(loaded.train), len(loaded.validation), len(loaded.test)] == [18, 5, 7]
    own = sorted(row.numpy().tobytes() for row in loaded.test)
    assert own == sorted(picture.tobytes() for picture in grey[23:])
    assert loaded.test_labels is not None and loaded.label_names == ("a", "b")


def test_folders_inside_of_classes(tmp_path: Path) -> None:
    loaded = load(tmp_path, {f"{'ab'[i % 2]}/{i % 3}/{i}.png": grey[i] for i in range(30)})
    assert loaded.label_names == ("a", "b") and everything(loaded) == sorted(
        picture.tobytes() for picture in grey
    )


def test_pictures_of_several_sizes(tmp_path: Path) -> None:
    pictures = flat([np.full((8 + i % 3, 12), 40 * (i % 5), np.uint8) for i in range(30)])
    with pytest.raises(
        InputError, match=r"differ in size: 8 x 12 pixels \(10, such as 9\.png\), .*give image_size"
    ) as caught:
        load(tmp_path, pictures)
    assert caught.value.parameter == "image_size" and "\n" not in str(caught.value)
    loaded = load(tmp_path, pictures, image_size=5)
    assert loaded.kind.shape == (5, 5)
    assert set(loaded.train.unique().tolist()) <= {0, 40, 80, 120, 160}
    with pytest.raises(InputError, match="image_size has to be above zero"):
        load(tmp_path, pictures, image_size=0)


def test_the_middle_is_cut_out(tmp_path: Path) -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    loaded = load(tmp_path, flat([wide] * 30), image_size=10)
    assert (loaded.train == 200).all()


def test_pictures_without_colour_are_grey(tmp_path: Path) -> None:
    loaded = load(tmp_path, flat(np.repeat(grey[..., None], 3, 3)))
    assert everything(loaded) == sorted(picture.tobytes() for picture in grey)
    assert "all show greys alone: read as grey" in loaded.notes[0]


def test_grey_pictures_among_colours_become_colours(tmp_path: Path) -> None:
    loaded = load(tmp_path, flat([colour[i] if i % 2 else grey[i] for i in range(30)]))
    assert loaded.kind.shape == (3, 7, 9)
    expected = [
        colour[i].transpose(2, 0, 1) if i % 2 else np.stack([grey[i]] * 3) for i in range(30)
    ]
    assert everything(loaded) == sorted(picture.tobytes() for picture in expected)


def test_other_kinds_of_pictures(tmp_path: Path) -> None:
    opaque = np.concatenate([colour, np.full((30, 7, 9, 1), 255, np.uint8)], 3)
    assert load(tmp_path / "rgba", flat(opaque)).kind.shape == (3, 7, 9)
    palette = [Image.fromarray(picture).quantize(16) for picture in colour]
    assert load(tmp_path / "palette", flat(palette)).kind.shape == (3, 7, 9)
    bits = load(tmp_path / "bits", flat([Image.fromarray(picture > 99) for picture in grey]))
    assert bits.columns == (data.ColumnSpec("", "binary", levels=2),)
    assert everything(bits) == sorted((picture > 99).tobytes() for picture in grey)
    mixed = [Image.fromarray(p > 99) if i % 2 else p for i, p in enumerate(grey)]
    assert load(tmp_path / "mixed", flat(mixed)).train.max() == 255
    deep = load(tmp_path / "deep", flat(grey.astype(np.uint16) * 9))
    assert deep.columns == (data.ColumnSpec("", "levels", levels=4096),)
    assert deep.train.dtype == torch.int32
    photograph = load(tmp_path / "jpg", flat(colour, ".jpg"))
    assert photograph.kind.shape == (3, 7, 9)


def test_opacity_is_left_out_and_said(tmp_path: Path) -> None:
    opacity = np.full((30, 7, 9, 1), 255, np.uint8)
    opacity[:4, 2, 3] = 254
    loaded = load(tmp_path / "rgba", flat(np.concatenate([colour, opacity], 3)))
    said = ("4 of 30 pictures are not opaque everywhere: their opacity is left out",)
    assert loaded.notes == said
    assert everything(loaded) == sorted(p.tobytes() for p in colour.transpose(0, 3, 1, 2))
    loaded = load(tmp_path / "la", flat(np.concatenate([grey[..., None], opacity], 3)))
    assert loaded.notes == said and everything(loaded) == sorted(p.tobytes() for p in grey)
    folder = tmp_path / "keys" / "pictures"
    folder.mkdir(parents=True)
    for i in range(30):
        Image.fromarray(grey[i]).quantize(256).save(folder / f"{i}.png", transparency=b"\x00\xff")
    assert data.load(str(folder)).notes[1] == said[0].replace("4 of", "30 of")


def test_turned_photographs_stand_upright(tmp_path: Path) -> None:
    half = np.zeros((6, 8), np.uint8)
    half[:, :4] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the picture's top is on the right of the sensor
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(30):
        Image.fromarray(half).save(folder / f"{i}.png", exif=exif)
    loaded = data.load(str(folder))
    assert loaded.kind.shape == (8, 6)
    assert (loaded.train[:, :4] == 255).all() and (loaded.train[:, 4:] == 0).all()


def test_other_files_are_named(tmp_path: Path) -> None:
    others = {"notes.txt": "text", ".DS_Store": "hidden", "labels.csv": "a,b"}
    loaded = load(tmp_path, {**flat(grey), **others})
    assert loaded.notes == ("pictures: not read: labels.csv, notes.txt",)


def test_the_path_and_the_names_do_not_matter(tmp_path: Path) -> None:
    one = load(tmp_path / "a", flat(grey))
    two = load(tmp_path / "b", flat(grey[draw.permutation(30)], ".bmp"))
    assert one.fingerprint == two.fingerprint
    mine, other = (sorted(row.numpy().tobytes() for row in part.test) for part in (one, two))
    assert mine == other


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ({"notes.txt": "text"}, "there are no pictures in .*: put them there, or in a folder"),
        ({"train/a/0.png": grey[0], "test/a.txt": "-"}, "there are no pictures in .*/test"),
        ({"0.png": grey[0], "a/1.png": grey[1]}, "has pictures and folders with pictures"),
        ({"a.gif": "text"}, r"no pictures in .* for each class \(\.jpg, .*\.png, .* are read\)"),
        (
            {**flat(grey), "a.png": "no picture"},
            r"/a\.png cannot be read \(cannot identify image file\): repair or remove it",
        ),
        (
            {"0.png": grey[0].astype(np.uint16), "1.png": colour[0]},
            "some pictures have colours and others more than 256 greys",
        ),
        (
            {"0.png": grey[0].astype(np.uint16), "1.png": grey[1], "2.png": grey[2]},
            r"differ in depth, .*: 8 bits \(2, such as 2\.png\), 16 bits \(1, such as 0\.png\): "
            "save them alike",
        ),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, pictures: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load(tmp_path, pictures)
    assert caught.value.parameter == "name" and "\n" not in str(caught.value)


def test_columns_are_for_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pictures has no column a: it holds images") as caught:
        load(tmp_path, flat(grey), drop=["a"])
    assert caught.value.parameter == "drop"


def test_a_size_that_does_not_fit_is_refused_before_a_picture_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    monkeypatch.setattr(free_memory, "free_memory", lambda *_: 2.0**31)
    with pytest.raises(
        InputError, match=r"10000 x 10000 pixels need .*: choose a smaller size"
    ) as error:
        data.load(str(tmp_path), image_size=10_000)
    assert error.value.parameter == "image_size"
    with pytest.raises(InputError, match=r"broken\.png cannot be read"):
        data.load(str(tmp_path), image_size=8)
