"""What one pass over pictures finds: their sizes and types, colours, opacity, values and hashes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.fingerprint import row_hashes
from pyro_vae.data.free_memory import check_fits
from pyro_vae.data.rows import LARGE
from pyro_vae.data.rows.workers import NUM_WORKERS, map_ahead
from pyro_vae.data.sources.picture_files import BIT, BYTE, Layout, open_picture
from pyro_vae.data.understanding.summaries import Summariser, Summary

AT_ONCE = 2 * NUM_WORKERS  # pictures that are open
COPIES = 6  # of a picture, while it is scaled, arranged and hashed


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


def look_through(paths: Sequence[Path], size: int | None) -> Survey:
    """Open all pictures once, by several threads.

    Args:
        paths: the pictures' files.
        size: the height and width that they are scaled and cut to, if they are.

    Raises:
        InputError: if one cannot be read, or pictures of that size need more memory than there is.
    """
    if size is not None:
        _check_memory(size)
    survey = Survey(len(paths))
    seen = map_ahead(lambda path: _look(path, size), paths, NUM_WORKERS, AT_ONCE)
    for path, one in zip(paths, seen, strict=True):
        survey.add(one, path.name)
    return survey


def _check_memory(size: int) -> None:
    """Refuse a size of which the pictures that are open at once do not fit into memory."""
    check_fits(
        f"pictures of {size} x {size} pixels need",
        (COPIES * NUM_WORKERS + AT_ONCE) * 3 * size**2,
        "image_size",
        advice="choose a smaller size",
    )


def stored_alone(dtype: np.dtype) -> np.dtype:
    """Return the type as which values are usually stored; see `stored`."""
    if dtype in (BIT, BYTE):
        return BYTE
    return np.dtype(np.int32 if dtype.kind in "iu" else np.float32)


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
    alone = Layout(height, width, shows_colour, stored_alone(image.dtype))
    example = np.empty((1, *alone.shape), alone.dtype)
    alone.arrange(image, example[0])
    return _Seen(image, is_transparent, shows_colour, int(row_hashes(example)[0]))


def _shows_colour(image: np.ndarray) -> bool:
    return bool((image[..., 0] != image[..., 1]).any() or (image[..., 1] != image[..., 2]).any())
