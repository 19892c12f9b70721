"""Data sets of torchvision, which downloads them."""

from pathlib import Path
from typing import Any

from pyro_vae.data.column_spec import ColumnSpec
from pyro_vae.data.source import Part, ReadOptions, Source, first_line
from pyro_vae.errors import InputError
from pyro_vae.kinds import Binary

TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
}


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

    arguments: dict[str, Any] = {"split": "balanced"} if name == "emnist" else {}
    constructor = getattr(datasets, TORCHVISION[name])
    try:
        train, test = (
            constructor(root, train=train, download=True, **arguments) for train in (True, False)
        )
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
        usual=Binary,
    )


def _part(loaded: Any, name: str) -> Part:
    images = loaded.data
    if name == "emnist":  # its files contain each image transposed
        images = images.transpose(-1, -2).contiguous()
    return Part(images, loaded.targets)
