"""Named data sets and users' own arrays, as three tensors: train, validation, test.

An image is [H, W], or [C, H, W] in colour. Images are kept as they are stored, `uint8` in 0..255,
or, for users' float arrays, `float32` in [0, 1]. How a likelihood gets to see them is the business
of `observations`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.errors import InputError

TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist": "EMNIST",
}
Part = tuple[Tensor, Tensor | None]  # images, and their labels
SETS = ("train", "validation", "test")
CHANNELS = (1, 3, 4)  # of grey images, RGB, and RGB with opacity


@dataclass(frozen=True)
class Dataset:
    """Three disjoint sets of images.

    Attributes:
        train: shape [N, *event], `uint8` in 0..255 or `float32` in [0, 1].
        validation: the same; chooses between models.
        test: the same; is looked at once, at the end.
        validation_labels: of the validation images, shape [N], where the set has labels.
        test_labels: of the test images.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    validation_labels: Tensor | None = None
    test_labels: Tensor | None = None

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one example: [H, W] or [C, H, W] for an image, [D] for a vector."""
        return self.train.shape[1:]


def load(
    name: str,
    root: str | Path = "data",
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Load a data set and split it.

    A set that comes with a test set of its own keeps it; the validation set, and where needed the
    test set, are drawn at random from the rest, always the same for the same seed.

    Args:
        name: `digits` (bundled with scikit-learn), `mnist`, `fashion_mnist`, `kmnist`, `emnist`
            (the balanced split), or the path of a `.npy` or `.npz` file that holds images
            [N, H, W] or [N, C, H, W], or vectors [N, D].
        root: where torchvision's sets lie, or are downloaded to.
        validation_fraction: the share of the training examples that is set aside.
        test_fraction: the share set aside for testing, where there is no test set yet.
        seed: of the split.

    Raises:
        InputError: if there is no such data set, or its contents cannot be used.
    """
    train: Part
    validation: Part | None
    test: Part | None
    if name == "digits":
        train, validation, test = _digits(), None, None
    elif name in TORCHVISION:
        train, validation, test = _torchvision(name, Path(root))
    elif Path(name).suffix in (".npy", ".npz"):
        train, validation, test = _arrays(Path(name))
    else:
        known = ", ".join(["digits", *TORCHVISION])
        raise InputError(f"no data set '{name}': choose {known}, or a .npy or .npz file")
    generator = torch.Generator().manual_seed(seed)
    if test is None:
        train, test = _split(train, test_fraction, generator)
    if validation is None:
        train, validation = _split(train, validation_fraction, generator)
    return _whole(name, train, validation, test)


def _whole(name: str, *parts: Part) -> Dataset:
    """Put the parts together, if they go together."""
    (train, _), (validation, validation_labels), (test, test_labels) = parts
    for part, images in (("training", train), ("validation", validation), ("test", test)):
        if len(images) == 0:
            raise InputError(
                f"the {part} set of {name} is empty: give more data, or change "
                "--validation_fraction or --test_fraction"
            )
        if images.shape[1:] != train.shape[1:] or images.dtype != train.dtype:
            raise InputError(
                f"{name}: the {part} set holds {images.dtype} {list(images.shape[1:])}, "
                f"the training set {train.dtype} {list(train.shape[1:])}: make them alike"
            )
    return Dataset(train, validation, test, validation_labels, test_labels)


def _split(part: Part, fraction: float, generator: torch.Generator) -> tuple[Part, Part]:
    """Set aside a random `fraction` of the images."""
    if not 0 < fraction < 1:
        raise InputError(f"a fraction of {fraction:g} cannot be split off: take one in (0, 1)")
    images, labels = part
    order = torch.randperm(len(images), generator=generator)
    aside = int(fraction * len(images))
    rest, chosen = (
        (images[i], None if labels is None else labels[i]) for i in (order[aside:], order[:aside])
    )
    return rest, chosen


def _digits() -> Part:
    from sklearn.datasets import load_digits

    digits = load_digits()
    intensity = digits.images / 16  # 1797 images of 8 x 8 with 17 grey levels
    images = torch.from_numpy((255 * intensity).round().astype(np.uint8))
    return images, torch.from_numpy(digits.target)


def _torchvision(name: str, root: Path) -> tuple[Part, None, Part]:
    from torchvision import datasets

    options: dict[str, Any] = {"split": "balanced"} if name == "emnist" else {}
    constructor = getattr(datasets, TORCHVISION[name])
    try:
        parts = [
            constructor(root, train=train, download=True, **options) for train in (True, False)
        ]
    except (AssertionError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{name} could not be read from {root}, nor downloaded to it ({_first_line(error)}): "
            "name the folder that holds it with --data_root, and delete broken files there"
        ) from error
    images = [part.data for part in parts]
    if name == "emnist":  # stored on its side
        images = [image.transpose(-1, -2).contiguous() for image in images]
    return (images[0], parts[0].targets), None, (images[1], parts[1].targets)


def _arrays(path: Path) -> tuple[Part, Part | None, Part | None]:
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except Exception as error:  # numpy raises whatever its parsers meet in a broken file
        raise InputError(f"{path} is not a NumPy array file ({_first_line(error)})") from error
    if len(arrays) == 1:
        return (_checked(path, next(iter(arrays.values()))), None), None, None
    if not {"train", "test"} <= arrays.keys():
        raise InputError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}: it should hold one array, "
            "or arrays named train and test (and validation)"
        )
    checked = {
        name: (_checked(path, array), None) for name, array in arrays.items() if name in SETS
    }
    return checked["train"], checked.get("validation"), checked["test"]


def _checked(path: Path, array: np.ndarray) -> Tensor:
    """Return a user's array as `uint8` levels or `float32` intensities, or say what is wrong."""

    def complaints() -> Iterator[str]:
        shape = f"has shape {list(array.shape)}"
        if array.ndim not in (2, 3, 4) or 0 in array.shape[1:]:
            yield f"{shape}: expected images [N, H, W] or [N, C, H, W], or vectors [N, D]"
        elif array.ndim == 4 and array.shape[-1] in CHANNELS and array.shape[1] not in CHANNELS:
            yield f"{shape}, which looks like channels last: transpose it to [N, C, H, W]"
        elif array.dtype == np.uint8:
            if array.size and array.max() == 1:
                yield "holds only 0 and 1 as uint8: save it as bool (binary), or scale it to 0..255"
        elif np.issubdtype(array.dtype, np.floating):
            if np.isnan(array).any():
                yield "has NaN in it: remove or fill them"
            elif array.size and (array.min() < 0 or array.max() > 1):
                yield (
                    f"has values from {array.min():g} to {array.max():g}: "
                    "scale floats to [0, 1], or save levels 0..255 as uint8"
                )
        elif array.dtype != np.bool_:
            yield f"holds {array.dtype}: expected uint8 (0..255), float (0..1) or bool"

    for complaint in complaints():
        raise InputError(f"{path} {complaint}")
    return torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.float32))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
