"""A data set, loaded and split into three."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_vae.data.arrays import from_file
from pyro_vae.data.named_sets import TORCHVISION, digits, from_torchvision
from pyro_vae.data.part import Part
from pyro_vae.errors import InputError


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
        train, validation, test = digits(), None, None
    elif name in TORCHVISION:
        train, validation, test = from_torchvision(name, Path(root))
    elif Path(name).suffix in (".npy", ".npz"):
        train, validation, test = from_file(Path(name))
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
