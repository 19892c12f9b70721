"""Pictures: opened, arranged as examples, and looked through in one pass."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.fingerprint import row_hashes
from pyro_vae.data.row_reader import RowReader
from pyro_vae.data.rows import LARGE
from pyro_vae.data.source import first_line
from pyro_vae.data.summaries import Summariser, Summary
from pyro_vae.data.workers import NUM_WORKERS, map_ahead
from pyro_vae.errors import InputError

BIT, BYTE = np.dtype(np.bool_), np.dtype(np.uint8)
GREYS = ("1", "L", "I;16", "I", "F")  # modes of Pillow that are read as they are
OPACITY = ("RGBA", "LA", "PA", "RGBa", "La")


@dataclass(frozen=True)
class Layout:
    """How pictures become examples of one shape and type.

    Attributes:
        height: the height of all pictures, in pixels.
        width: their width.
        has_colour: whether examples are [3, H, W], and not [H, W].
        dtype: the type of the values.
        white: what a white pixel of one bit becomes: 255 among pictures of 8 bits, otherwise 1.
    """

    height: int
    width: int
    has_colour: bool
    dtype: np.dtype
    white: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an example."""
        return (3, self.height, self.width) if self.has_colour else (self.height, self.width)

    def arrange(self, image: np.ndarray, example: np.ndarray) -> None:
        """Write a picture, [H, W] or [H, W, 3], to an example."""
        if image.dtype == BIT and self.white != 1:
            image = self.white * image.astype(np.uint8)
        if self.has_colour:
            example[:] = image.transpose(2, 0, 1) if image.ndim == 3 else image
        else:
            example[:] = image[..., 0] if image.ndim == 3 else image


@dataclass
class Survey:
    """What a pass over pictures finds.

    Attributes:
        num_pictures: how many pictures there are.
        images: the pictures, if `LARGE` bytes hold them; otherwise None.
        num_bytes: the bytes of all.
        sizes: how many pictures have a height and width.
        types: how many pictures have a type of values.
        examples: the name of one picture of each size, and of each type.
        num_transparent: how many pictures are not opaque everywhere.
        has_rgb: whether a file has colours, be they shown or not.
        shows_colour: which pictures show colours, in the pictures' order.
        is_bit: which pictures have one bit for each pixel.
        hashes: the pictures' hashes, each stored as if all were like it.
        values: the facts about the values of pictures of one bit, and about those of others.
    """

    num_pictures: int
    images: list[np.ndarray] | None = field(default_factory=list)
    num_bytes: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    types: Counter[np.dtype] = field(default_factory=Counter)
    examples: dict[Any, str] = field(default_factory=dict)
    num_transparent: int = 0
    has_rgb: bool = False
    shows_colour: list[bool] = field(default_factory=list)
    is_bit: list[bool] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    values: dict[bool, Summariser] = field(default_factory=dict)

    def add(self, seen: "_Seen", name: str) -> None:
        """Take account of another picture."""
        image = seen.image
        self.num_bytes += image.nbytes
        if max(self.num_bytes, self.num_pictures * image.nbytes) > LARGE:  # they have one size
            self.images = None
        if self.images is not None:
            self.images.append(image)
        for key, counter in ((image.shape[:2], self.sizes), (image.dtype, self.types)):
            counter[key] += 1  # type: ignore[index]
            self.examples[key] = name
        self.num_transparent += seen.is_transparent
        self.has_rgb |= image.ndim == 3
        self.shows_colour.append(seen.shows_colour)
        is_bit = image.dtype == BIT
        self.is_bit.append(is_bit)
        self.hashes.append(seen.hash)
        if is_bit not in self.values:
            self.values[is_bit] = Summariser(image.dtype)
        self.values[is_bit].add(image)

    def layout(self) -> Layout:
        """Return how the pictures become examples: they have one size, and one type or two."""
        (height, width), *_ = self.sizes
        dtype = np.result_type(*self.types)
        only_bits = set(self.types) == {BIT}
        return Layout(height, width, any(self.shows_colour), dtype, 1 if only_bits else 255)

    def summary(self) -> Summary:
        """Return the facts about the values of all examples."""
        facts = {is_bit: values.result() for is_bit, values in self.values.items()}
        if len(facts) == 1:
            return next(iter(facts.values()))
        low = np.minimum(255 * facts[True].low, facts[False].low)
        high = np.maximum(255 * facts[True].high, facts[False].high)
        return replace(facts[False], low=low, high=high)


class PictureRows(RowReader):
    """Pictures that are opened when they are needed, by several threads.

    Args:
        paths: the pictures' files.
        size: the height and width that they are scaled and cut to, if they are.
        layout: how they become examples.
        survey: what a pass over them has found.
    """

    def __init__(
        self, paths: Sequence[Path], size: int | None, layout: Layout, survey: Survey
    ) -> None:
        super().__init__((len(paths), *layout.shape), layout.dtype)
        self._paths, self._size, self._layout = paths, size, layout
        self._types = set(survey.types)
        self._hashes = np.array(survey.hashes, np.uint64)
        is_alike = np.array(survey.shows_colour) == layout.has_colour
        if layout.white == 255:
            is_alike &= ~np.array(survey.is_bit)
        self._other = np.flatnonzero(~is_alike)  # stored otherwise than as they were hashed

    def read(self, index: np.ndarray) -> np.ndarray:
        """Open pictures; see `RowReader`."""
        found = np.empty((len(index), *self.shape[1:]), self.dtype)

        def place(at: int) -> None:
            self._layout.arrange(self._open(self._paths[index[at]]), found[at])

        for _ in map_ahead(place, range(len(index)), NUM_WORKERS, 2 * NUM_WORKERS):
            pass
        return found

    def row_hashes(self) -> np.ndarray:
        """Return the hashes that were found; pictures that are stored otherwise are read again."""
        other = self._other
        if _stored_alone(self._layout.dtype) != self.dtype:
            other = np.arange(len(self))
        hashes = self._hashes.copy()
        size = max(1, 2**24 // max(1, self.size // len(self)))
        for start in range(0, len(other), size):
            places = other[start : start + size]
            hashes[places] = row_hashes(self.read(places))
        return hashes

    def _open(self, path: Path) -> np.ndarray:
        """Return a picture.

        Raises:
            InputError: if it is not there any more, or is another one.
        """
        try:
            image, _ = open_picture(path, self._size)
        except InputError as error:
            raise InputError(str(error), "data") from error
        size = self._layout.height, self._layout.width
        if image.shape[:2] != size or image.dtype not in self._types:
            raise InputError(
                f"the picture {path} has changed since the data were loaded: start again", "data"
            )
        return image


def look_through(paths: Sequence[Path], size: int | None) -> Survey:
    """Open all pictures once, by several threads.

    Args:
        paths: the pictures' files.
        size: the height and width that they are scaled and cut to, if they are.

    Raises:
        InputError: if one cannot be read.
    """
    survey = Survey(len(paths))
    seen = map_ahead(lambda path: _look(path, size), paths, NUM_WORKERS, 2 * NUM_WORKERS)
    for path, one in zip(paths, seen, strict=True):
        survey.add(one, path.name)
    return survey


def open_picture(path: Path, size: int | None) -> tuple[np.ndarray, bool]:
    """Return a picture, and whether it is not opaque everywhere.

    Args:
        path: its file.
        size: the height and width of the square that it is scaled and cut to, if it is.

    Returns:
        The picture, [H, W], or [H, W, 3] if its file has colours.

    Raises:
        InputError: if it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            is_transparent = False
            if picture.mode in OPACITY or "transparency" in picture.info:
                is_grey = picture.mode in ("L", "LA", "La")
                if picture.mode not in ("1", "I;16", "I", "F"):
                    picture = picture.convert("LA" if is_grey else "RGBA")
                    is_transparent = bool(np.asarray(picture.getchannel("A")).min() < 255)
            if picture.mode not in (*GREYS, "RGB"):
                picture = picture.convert("L" if picture.mode == "LA" else "RGB")
            if size is not None:
                if picture.mode == "1":
                    picture = picture.convert("L")
                picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
            return np.asarray(picture), is_transparent
    except Exception as error:  # Pillow's readers raise many types of errors
        raise InputError(
            f"the picture {path} cannot be read ({first_line(error)}): mend or remove it", "name"
        ) from error


@dataclass(frozen=True)
class _Seen:
    """A picture, and what takes time to find out about it."""

    image: np.ndarray
    is_transparent: bool
    shows_colour: bool
    hash: int


def _look(path: Path, size: int | None) -> _Seen:
    image, is_transparent = open_picture(path, size)
    shows_colour = image.ndim == 3 and _shows_colour(image)
    height, width = image.shape[:2]
    alone = Layout(height, width, shows_colour, _stored_alone(image.dtype))
    example = np.empty((1, *alone.shape), alone.dtype)
    alone.arrange(image, example[0])
    return _Seen(image, is_transparent, shows_colour, int(row_hashes(example)[0]))


def _stored_alone(dtype: np.dtype) -> np.dtype:
    """Return the type as which values are usually stored; see `stored`."""
    if dtype in (BIT, BYTE):
        return BYTE
    return np.dtype(np.int32 if dtype.kind in "iu" else np.float32)


def _shows_colour(image: np.ndarray) -> bool:
    return bool((image[..., 0] != image[..., 1]).any() or (image[..., 1] != image[..., 2]).any())
