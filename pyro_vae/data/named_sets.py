"""Named data sets: the digits of scikit-learn, and those of torchvision."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_vae.data.part import Part, first_line
from pyro_vae.errors import InputError

TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
}


def digits() -> Part:
    """Load the digits of scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    intensity = digits.images / 16  # 1797 images of 8 x 8 with 17 grey levels
    images = torch.from_numpy((255 * intensity).round().astype(np.uint8))
    return images, torch.from_numpy(digits.target)


def from_torchvision(name: str, root: Path) -> tuple[Part, None, Part]:
    """Load a data set of torchvision, with its own test set."""
    from torchvision import datasets

    options: dict[str, Any] = {"split": "balanced"} if name == "emnist" else {}
    constructor = getattr(datasets, TORCHVISION[name])
    try:
        parts = [
            constructor(root, train=train, download=True, **options) for train in (True, False)
        ]
    except (AssertionError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{name} could not be read from {root}, nor downloaded to it ({first_line(error)}): "
            "name the folder that holds it with --data_root, and delete broken files there"
        ) from error
    images = [part.data for part in parts]
    if name == "emnist":  # stored on its side
        images = [image.transpose(-1, -2).contiguous() for image in images]
    return (images[0], parts[0].targets), None, (images[1], parts[1].targets)
