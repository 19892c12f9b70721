"""Users' own pictures, from folders."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.array_names import PART_WORDS
from pyro_vae.data.arrays import source_of_arrays
from pyro_vae.data.parts import PARTS
from pyro_vae.data.source import ReadOptions, Source, first_line, listed
from pyro_vae.errors import InputError

Pictures = list[tuple[Path, str]]  # with the names of their classes


def read_image_folder(name: str, root: Path, options: ReadOptions) -> Source:
    """Read a folder of pictures.

    The pictures are in the folder, or in a folder for each class, as torchvision's `ImageFolder`
    has them; and these can be in folders named `train`, `validation` or `val`, and `test`. Pictures
    that show no colour are read as grey. Opacity is left out. With `image_size`, the shorter side
    is scaled to it, and the middle is cut out.

    Args:
        name: the path of the folder.
        root: not used.
        options: what the user says about the data.

    Raises:
        InputError: if there are no pictures, one is broken, or they differ in size and
            `image_size` is not given.
    """
    folder = Path(name)
    size = options.image_size
    if size is not None and size < 1:
        raise InputError(f"image_size has to be above zero, but is {size}", "image_size")
    notes: list[str] = []
    parts = _find(folder, notes)
    everything = [path for pictures in parts.values() for path, _ in pictures]
    images = [_open(path, size) for path in everything]
    _refuse_sizes(images, everything, folder)
    joined = _join(images, notes)
    arrays: dict[str, np.ndarray] = {}
    labels: dict[str, Any] = {}
    start = 0
    for part, pictures in parts.items():
        arrays[part] = joined[start : start + len(pictures)]
        start += len(pictures)
        if any(kind for _, kind in pictures):
            labels[part] = np.array([kind for _, kind in pictures])
    source = source_of_arrays(arrays, labels, options, folder.name)
    return replace(source, notes=(*notes, *source.notes))


def _find(folder: Path, notes: list[str]) -> dict[str, Pictures]:
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
                f"there are no pictures in {place}: put them there, or in a folder for each class",
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
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return path.name[0] != "." and path.suffix.lower() in IMG_EXTENSIONS and path.is_file()


def _open(path: Path, size: int | None) -> np.ndarray:
    """Return a picture [H, W], or [H, W, 3] if its file has colours."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode not in ("1", "L", "I;16", "I", "F", "RGB"):
                grey = picture.mode in ("LA", "La")
                picture = picture.convert("L" if grey else "RGB")
            if size is not None:
                if picture.mode == "1":
                    picture = picture.convert("L")
                picture = _resize(picture, size)
            return np.asarray(picture)
    except Exception as error:  # Pillow's readers raise many types of errors
        raise InputError(
            f"the picture {path} cannot be read ({first_line(error)}): mend or remove it", "name"
        ) from error


def _resize(picture: Any, size: int) -> Any:
    """Return the middle square of a picture, whose shorter side is scaled to `size` pixels."""
    from PIL import Image, ImageOps

    return ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)


def _refuse_sizes(images: list[np.ndarray], paths: list[Path], folder: Path) -> None:
    sizes = Counter(image.shape[:2] for image in images)
    if len(sizes) == 1:
        return
    examples = {image.shape[:2]: path.name for image, path in zip(images, paths, strict=True)}
    shown = [
        f"{height} x {width} pixels ({count:,}, such as {examples[height, width]})"
        for (height, width), count in sizes.most_common()
    ]
    raise InputError(
        f"the pictures in {folder} differ in size: {listed(shown, 3)}: give image_size, to scale "
        "and cut them to squares of that size",
        "image_size",
    )


def _join(images: list[np.ndarray], notes: list[str]) -> np.ndarray:
    """Return pictures [N, H, W] if none shows a colour, and [N, 3, H, W] otherwise."""
    has_colour = any(image.ndim == 3 and _shows_colour(image) for image in images)
    if not has_colour and any(image.ndim == 3 for image in images):
        notes.append("the pictures' files have colours, but all show greys alone: read as grey")
    dtype = np.result_type(*{image.dtype for image in images})
    if dtype == np.bool_ and not has_colour:
        return np.stack(images)
    images = [
        255 * image.astype(np.uint8) if image.dtype == np.bool_ else image for image in images
    ]
    if has_colour and dtype != np.uint8:
        raise InputError(
            "some pictures have colours and others more than 256 greys: save them alike", "name"
        )
    height, width = images[0].shape[:2]
    shape = (len(images), 3, height, width) if has_colour else (len(images), height, width)
    joined = np.empty(shape, dtype)
    for index, image in enumerate(images):
        if has_colour:
            joined[index] = image.transpose(2, 0, 1) if image.ndim == 3 else image
        else:
            joined[index] = image[..., 0] if image.ndim == 3 else image
    return joined


def _shows_colour(image: np.ndarray) -> bool:
    return bool((image[..., 0] != image[..., 1]).any() or (image[..., 1] != image[..., 2]).any())
