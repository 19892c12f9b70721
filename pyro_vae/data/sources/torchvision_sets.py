"""Data sets of torchvision, which downloads them."""

from pathlib import Path
from typing import Any

import torch

from pyro_vae.data.column_spec import ColumnSpec
from pyro_vae.data.source import Part, ReadOptions, Source, first_line
from pyro_vae.errors import InputError
from pyro_vae.kinds import Binary

TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
    "cifar10": "CIFAR10",
    "svhn": "SVHN",
}
COLOURS = ("cifar10", "svhn")


def read_torchvision(name: str, root: Path, options: ReadOptions) -> Source:
    """Return a data set of torchvision; of EMNIST, the balanced split.

    Args:
        name: a key of `TORCHVISION`.
        root: the folder of the data set; it is downloaded if it is not there.
        options: not used.

    Raises:
        InputError: if the data set is not there and cannot be downloaded.
    """
    from torchvision import datasets

    more: dict[str, Any] = {"split": "balanced"} if name == "emnist" else {}
    parts: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    if name == "svhn":
        parts = [{"split": "train"}, {"split": "test"}]
    constructor = getattr(datasets, TORCHVISION[name])
    try:
        train, test = (constructor(root, download=True, **part, **more) for part in parts)
    except (AssertionError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{name} could not be read from {root}, nor downloaded to it ({first_line(error)}): "
            "name the folder that contains it, and delete broken files there",
            "root",
        ) from error
    return Source(
        _part(train, name),
        test=_part(test, name),
        columns=(ColumnSpec("", "levels", levels=256),),
        usual=None if name in COLOURS else Binary,
    )


def _part(loaded: Any, name: str) -> Part:
    if name in COLOURS:  # NumPy arrays, of CIFAR-10 with the channels last
        images = torch.as_tensor(loaded.data)
        images = images if name == "svhn" else images.movedim(-1, 1).contiguous()
        return Part(images, torch.as_tensor(loaded.labels if name == "svhn" else loaded.targets))
    images = loaded.data
    if name == "emnist":  # its files contain each image transposed
        images = images.transpose(-1, -2).contiguous()
    return Part(images, loaded.targets)
