"""The data of a run: loaded, split, compared with what it was started with, and shown."""

from pathlib import Path

import torch
from torch import Tensor

from pyro_vae import data
from pyro_vae.data import Dataset
from pyro_vae.data.rows import LARGE, Rows
from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind
from pyro_vae.runs.options import Options


def load_and_split(options: Options) -> Dataset:
    """Load the data set, and split it into training, validation and test images."""
    try:
        return data.load(
            options.data,
            options.data_root,
            validation_fraction=options.validation_fraction,
            test_fraction=options.test_fraction,
            seed=options.data_seed,
            columns={str(name): kind for name, kind in options.columns.items()},
            drop=[name.strip() for name in (options.drop or "").split(",") if name.strip()],
            labels=options.labels,
            image_size=options.image_size,
        )
    except InputError as error:  # the options have longer names than the arguments of `load`
        names = {"name": "data", "root": "data_root"}
        raise InputError(str(error), names.get(error.parameter or "", error.parameter)) from error


def check_fingerprint(before: Options, now: str, folder: Path) -> None:
    """Refuse other data than those that a run was started with.

    Args:
        before: the options that the run was started with.
        now: the fingerprint of the data that were loaded.
        folder: the run's folder, for the message.

    Raises:
        InputError: with what to do.
    """
    if before.fingerprint is None:
        if before.data not in data.SOURCES:
            raise InputError(
                f"{folder} was made by an older version, which split files by the order of their "
                "rows: train it again, or use that version"
            )
    elif before.fingerprint != now:
        raise InputError(
            f"{before.data} is not what {folder} was trained on: its rows, names or kinds have "
            f"changed (fingerprint {now}, and {before.fingerprint} before): name the file as it "
            "was, or start a new run",
            "data",
        )


def sample(train: Tensor | Rows) -> Tensor:
    """Return the examples from which parts take their first values: of large data, only some.

    They depend on the examples' number and shape alone, and not on how they are stored.
    """
    if 4 * train.shape.numel() <= LARGE:  # as dense `float32`
        return train[:]
    generator = torch.Generator().manual_seed(0)
    count = max(100, min(10_000, 2**26 // (4 * train.shape[1:].numel())))
    return train[torch.randperm(len(train), generator=generator)[:count]]


def show(
    dataset: Dataset, kind: Kind, options: Options
) -> tuple[Tensor | Rows, Tensor, Tensor, Tensor]:
    """Turn stored images into what training and evaluation use.

    Returns:
        The stored training images; validation and test images as the likelihood sees them; and the
        test images in the form that log p(x) on the base measure refers to.
    """
    seeds = [3 * options.data_seed + i for i in range(3)]  # independent noise for each part
    held_out = dataset.validation, dataset.test
    for part in held_out:  # the training images have been checked already
        kind.check(part)
    validation, test = (
        kind.binarize(images, options.binarization, seed)
        for images, seed in zip(held_out, seeds[1:], strict=True)
    )
    train = dataset.train
    if isinstance(train, Tensor):
        train = kind.binarize(train, options.binarization, seeds[0])
    elif options.binarization != "dynamic":
        raise InputError(
            "data that are larger than memory are binarised dynamically only", "binarization"
        )
    shown_test = kind.observe_once(test, seeds[2])
    return (
        train,
        kind.observe_once(validation, seeds[1]),
        shown_test,
        kind.measured(test, shown_test),
    )
