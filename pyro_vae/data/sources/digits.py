"""The digits of scikit-learn."""

from pathlib import Path

import numpy as np
import torch

from pyro_vae.data.column_spec import ColumnSpec
from pyro_vae.data.source import Part, ReadOptions, Source
from pyro_vae.kinds import Binary


def read_digits(name: str, root: Path, options: ReadOptions) -> Source:
    """Return 1797 images of 8 x 8 pixels with 17 grey levels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.uint8))
    return Source(
        Part(images, torch.from_numpy(digits.target)),
        columns=(ColumnSpec("", "levels", levels=17),),
        usual=Binary,
    )
