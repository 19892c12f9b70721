"""A grid of pictures, written as one picture."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds import Incomplete, Kind, Pixels
from pyro_vae.runs.applying.output_file import OutputFile
from pyro_vae.runs.applying.row_writer import SUFFIXES

PICTURE = ".png"
MOST = 10_000  # pictures of a grid
SMALL = 64  # pictures that are narrower are shown larger
BETWEEN = 128  # the grey level of the lines between pictures


class PictureWriter(OutputFile):
    """Writes pictures as a grid. After an interruption the work starts again.

    The grid is filled row by row, and is about as wide as it is high. Pictures of three channels
    are in colour; of any other number of channels the mean is shown in grey. Small pictures are
    enlarged by a whole number.

    Args:
        path: the file, whose name ends with .png.
        kind: what an example is.
        overwrite: whether a file that exists is replaced.

    Raises:
        InputError: if the examples are no pictures, or the file cannot be written.
    """

    suffixes = (PICTURE, *SUFFIXES)

    def __init__(self, path: str | Path, kind: Kind, overwrite: bool = True) -> None:
        super().__init__(path, overwrite)
        if len(kind.shape) not in (2, 3):
            raise InputError(
                f"{path} cannot be written, since the data of this run are not pictures: choose a "
                f"name that ends with {', '.join(SUFFIXES)}",
                "out",
            )
        self._kind = kind.whole if isinstance(kind, Incomplete) else kind
        self._pictures: list[Tensor] = []
        self._is_ours = False

    def begin(self, request: dict[str, Any]) -> None:
        """Start again, whatever an interrupted call has finished; see `OutputFile.begin`."""
        super().begin(request)
        self._is_ours = True

    def add(self, results: Any) -> None:
        """Add pictures on the scale on which they are stored, an array [N, H, W] or [N, C, H, W].

        Raises:
            InputError: if there are too many.
        """
        self.rows += len(results)
        self.chunks += 1
        if self.rows > MOST:
            raise InputError(
                f"a grid has room for {MOST:,} pictures, and there are more: write a .npy or .npz "
                "file",
                "out",
            )
        x = torch.from_numpy(np.asarray(results)).float()
        kind = self._kind
        grey = x / kind.largest if isinstance(kind, Pixels) else kind.intensities(x)
        grey = grey.reshape(len(x), -1, *grey.shape[-2:])
        grey = grey if grey.shape[1] == 3 else grey.mean(1, keepdim=True)
        self._pictures.append((255 * grey.clamp(0, 1)).round().byte())

    def _finish(self) -> Path:
        from PIL import Image

        pictures = torch.cat(self._pictures)
        count, colours, height, width = pictures.shape
        columns = math.ceil(math.sqrt(count))
        rows = math.ceil(count / columns)
        places = pictures.new_full((rows * columns, colours, height + 1, width + 1), BETWEEN)
        places[:count, :, :height, :width] = pictures
        grid = places.view(rows, columns, colours, height + 1, width + 1)
        whole = grid.permute(0, 3, 1, 4, 2).reshape(rows * (height + 1), -1, colours)[:-1, :-1]
        times = max(1, SMALL // max(height, width)) if count <= MOST // 10 else 1
        shown = whole.repeat_interleave(times, 0).repeat_interleave(times, 1).numpy()
        image = Image.fromarray(shown if colours == 3 else np.ascontiguousarray(shown[..., 0]))
        path = self._unfinished / f"whole{PICTURE}"
        image.save(path, format="png")
        return path

    def _clean(self, error: BaseException | None) -> None:
        if self._is_ours:
            shutil.rmtree(self._unfinished)
