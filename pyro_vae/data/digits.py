"""The digits of scikit-learn."""

from pathlib import Path

import numpy as np
import torch

from pyro_vae.data.source import Part, Source


def read_digits(name: str, root: Path) -> Source:
    """Return 1797 images of 8 x 8 pixels with 17 grey levels, scaled to 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    intensity = digits.images / 16
    images = torch.from_numpy((255 * intensity).round().astype(np.uint8))
    return Source(Part(images, torch.from_numpy(digits.target)))
