"""Rows of pictures, which are opened when they are needed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyro_vae.data.fingerprint import row_hashes
from pyro_vae.data.rows import RowReader
from pyro_vae.data.rows.workers import NUM_WORKERS, map_ahead
from pyro_vae.data.sources.picture_files import Layout, open_picture
from pyro_vae.data.sources.picture_survey import Survey, stored_alone
from pyro_vae.errors import InputError

BLOCK = 2**24  # values that are read at once


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
        if stored_alone(self._layout.dtype) != self.dtype:
            other = np.arange(len(self))
        hashes = self._hashes.copy()
        size = max(1, BLOCK // max(1, self.size // len(self)))
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
