"""Pictures: opened, and arranged as examples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyro_vae.data.source import first_line
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
            f"the picture {path} cannot be read ({first_line(error, path)}): repair or remove it",
            "name",
        ) from error
