"""Users' own pictures, from folders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.source import PARTS, ReadOptions, Source, listed
from pyro_vae.data.sources.named_arrays import PART_WORDS
from pyro_vae.data.sources.picture_files import BIT, BYTE, Layout
from pyro_vae.data.sources.picture_rows import PictureRows
from pyro_vae.data.sources.picture_survey import Survey, look_through
from pyro_vae.data.understanding.arrays import source_of_arrays
from pyro_vae.data.understanding.image_arrays import understand_pixels
from pyro_vae.data.understanding.parts import part_again
from pyro_vae.errors import InputError

Pictures = list[tuple[Path, str]]  # with the names of their classes

DEPTHS = {
    "bool": "1 bit",
    "uint8": "8 bits",
    "uint16": "16 bits",
    "int32": "32 bits",
    "float32": "floats",
}


def read_image_folder(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a folder of pictures.

    The pictures are in the folder, or in a folder for each class, as torchvision's `ImageFolder`
    has them; and these can be in folders named `train`, `validation` or `val`, and `test`. Pictures
    that show no colour are read as grey. Opacity is left out. With `image_size`, the shorter side
    is scaled to it, and the middle is cut out.

    Pictures that take more than `LARGE` bytes are not held in memory. One pass finds what they are,
    and they are opened again when they are needed.

    Args:
        name: the path of the folder.
        root: not used.
        options: what the user says about the data.

    Raises:
        InputError: if there are no pictures, one is broken, they differ in depth, or they differ in
            size and `image_size` is not given.
    """
    folder = Path(name)
    size = options.image_size
    if size is not None and size < 1:
        raise InputError(f"image_size has to be above zero, but is {size}", "image_size")
    notes: list[str] = []
    parts = find_pictures(folder, notes)
    everything = [path for pictures in parts.values() for path, _ in pictures]
    survey = look_through(everything, size)
    _check(survey, folder)
    notes += _describe(survey)
    layout = survey.layout()
    labels: dict[str, Any] = {
        part: np.array([kind for _, kind in pictures])
        for part, pictures in parts.items()
        if any(kind for _, kind in pictures)
    }
    lengths = {part: len(pictures) for part, pictures in parts.items()}
    if survey.images is None:
        rows = PictureRows(everything, size, layout, survey)
        understood = understand_pixels(rows, options, folder.name, survey.summary())
        source = part_again(understood, lengths, labels, f"the labels of {folder.name}")
    else:
        ends = np.cumsum([*lengths.values()])[:-1]
        examples = np.split(_join(survey.images, layout), ends)
        arrays = dict(zip(lengths, examples, strict=True))
        source = source_of_arrays(arrays, labels, options, folder.name)
    return replace(source, notes=(*notes, *source.notes))


def find_pictures(folder: Path, notes: list[str]) -> dict[str, Pictures]:
    """Return the pictures of each part, sorted, with the names of their classes."""
    below = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    named = {
        PART_WORDS[path.name.lower()]: path for path in below if path.name.lower() in PART_WORDS
    }
    skipped: list[str] = []
    parts: dict[str, Pictures]
    if "train" in named:
        parts = {part: _find_classes(named[part], skipped) for part in PARTS if part in named}
        skipped += [path.name for path in below if path not in named.values()]
    else:
        parts = {"train": _find_classes(folder, skipped)}
    for part, pictures in parts.items():
        if not pictures:
            place = f"{folder}/{named[part].name}" if part in named else str(folder)
            raise InputError(
                f"there are no pictures in {place}: put them there, or in a folder for each class "
                f"({', '.join(_picture_types())} are read)",
                "name",
            )
    if skipped:
        notes.append(f"{folder.name}: not read: {listed(skipped, 4)}")
    return parts


def _find_classes(folder: Path, skipped: list[str]) -> Pictures:
    below = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    flat = [(path, "") for path in below if _is_picture(path)]
    classes = [
        (path, place.name)
        for place in below
        if place.is_dir()
        for path in sorted(place.rglob("*"))
        if _is_picture(path)
    ]
    skipped += [path.name for path in below if path.is_file() and not _is_picture(path)]
    if flat and classes:
        raise InputError(
            f"{folder} has pictures and folders with pictures: put all pictures into the folder, "
            "or all of them into folders of classes",
            "name",
        )
    return flat or classes


def _is_picture(path: Path) -> bool:
    return path.name[0] != "." and path.suffix.lower() in _picture_types() and path.is_file()


def _picture_types() -> tuple[str, ...]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return tuple(IMG_EXTENSIONS)


def _check(survey: Survey, folder: Path) -> None:
    """Refuse pictures that differ in size, in depth, or in depth and colour.

    Raises:
        InputError: with how many there are of each.
    """
    if len(survey.sizes) > 1:
        shown = [
            f"{height} x {width} pixels ({count:,}, such as {survey.examples[height, width]})"
            for (height, width), count in survey.sizes.most_common()
        ]
        raise InputError(
            f"the pictures in {folder} differ in size: {listed(shown, 3)}: give image_size, to "
            "scale and cut them to squares of that size",
            "image_size",
        )
    if any(survey.shows_colour) and not set(survey.types) <= {BIT, BYTE}:
        raise InputError(
            "some pictures have colours and others more than 256 greys: save them alike", "name"
        )
    if len(survey.types) > 1 and set(survey.types) != {BIT, BYTE}:
        shown = [
            f"{DEPTHS[dtype.name]} ({count:,}, such as {survey.examples[dtype]})"
            for dtype, count in survey.types.most_common()
        ]
        raise InputError(
            f"the pictures in {folder} differ in depth, so that the same number is not the same "
            f"grey: {listed(shown, 5)}: save them alike",
            "name",
        )


def _describe(survey: Survey) -> list[str]:
    """Return sentences about what is left out."""
    notes = []
    if survey.has_rgb and not any(survey.shows_colour):
        notes.append("the pictures' files have colours, but all show greys alone: read as grey")
    if survey.num_transparent:
        notes.append(
            f"{survey.num_transparent:,} of {survey.num_pictures:,} pictures are not opaque "
            "everywhere: their opacity is left out"
        )
    return notes


def _join(images: list[np.ndarray], layout: Layout) -> np.ndarray:
    """Return pictures as examples, [N, H, W] or [N, 3, H, W]."""
    joined = np.empty((len(images), *layout.shape), layout.dtype)
    for image, example in zip(images, joined, strict=True):
        layout.arrange(image, example)
    return joined
