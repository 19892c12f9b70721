"""A data set, loaded from one of the sources and split into three."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_vae.data.digits import read_digits
from pyro_vae.data.numpy_files import read_numpy
from pyro_vae.data.source import Part, Reader
from pyro_vae.data.torchvision_sets import TORCHVISION, read_torchvision
from pyro_vae.errors import InputError

# By the name of a data set, or by the suffix of a file, with its dot.
SOURCES: dict[str, Reader] = {
    "digits": read_digits,
    **dict.fromkeys(TORCHVISION, read_torchvision),
    ".npy": read_numpy,
    ".npz": read_numpy,
}


def describe_sources() -> str:
    """Return what `load` accepts as a name, for help and error messages."""
    names = ", ".join(name for name in SOURCES if not name.startswith("."))
    suffixes = " or ".join(name for name in SOURCES if name.startswith("."))
    return f"{names}, or the path of a {suffixes} file"


@dataclass(frozen=True)
class Dataset:
    """Three sets of examples that have none in common.

    Attributes:
        train: training examples, shape [N, *event], `uint8` or `float32`.
        validation: validation examples, of the same type; they serve to choose between models.
        test: test examples, of the same type; they are used once, at the end.
        validation_labels: the labels of the validation examples, shape [N], if there are labels.
        test_labels: the labels of the test examples.
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

    A data set with its own test or validation set keeps it. Otherwise the test set and then the
    validation set are drawn at random from the training examples, the same ones for the same seed.

    Args:
        name: a data set's name, or the path of a file whose suffix is known: see `SOURCES`.
        root: the folder for data sets that are downloaded.
        validation_fraction: the share of the training examples that is set aside for validation.
        test_fraction: the share of the examples that is set aside for testing.
        seed: the seed of the split.

    Raises:
        InputError: if there is no such data set, or its contents cannot be used.
    """
    read = SOURCES.get(name) or SOURCES.get(Path(name).suffix)
    if read is None:
        raise InputError(f"no data set '{name}': choose {describe_sources()}", "name")
    source = read(name, Path(root))
    train, validation, test = source.train, source.validation, source.test
    generator = torch.Generator().manual_seed(seed)
    if test is None:
        train, test = _split(train, test_fraction, generator, "test_fraction")
    if validation is None:
        train, validation = _split(train, validation_fraction, generator, "validation_fraction")
    _check_parts(name, train, validation, test)
    return Dataset(
        train.examples, validation.examples, test.examples, validation.labels, test.labels
    )


def _check_parts(name: str, train: Part, validation: Part, test: Part) -> None:
    """Refuse parts that are empty, or that differ in type or shape."""
    like = train.examples
    for part_name, part in (("training", train), ("validation", validation), ("test", test)):
        examples = part.examples
        if len(examples) == 0:
            raise InputError(
                f"the {part_name} set of {name} is empty: give more data, or change "
                "validation_fraction or test_fraction",
                "test_fraction" if part is test else "validation_fraction",
            )
        if examples.shape[1:] != like.shape[1:] or examples.dtype != like.dtype:
            raise InputError(
                f"{name}: the {part_name} set holds {examples.dtype} {list(examples.shape[1:])}, "
                f"the training set {like.dtype} {list(like.shape[1:])}: make them alike",
                "name",
            )


def _split(
    part: Part, fraction: float, generator: torch.Generator, argument: str
) -> tuple[Part, Part]:
    """Return the rest, and a random `fraction` of the examples; `argument` names the fraction."""
    if not 0 < fraction < 1:
        raise InputError(
            f"a fraction of {fraction:g} cannot be split off: choose one between 0 and 1", argument
        )
    order = torch.randperm(len(part.examples), generator=generator)
    count = int(fraction * len(part.examples))
    return part[order[count:]], part[order[:count]]
