"""The data of a run: loaded, split, compared with what it was started with, and shown."""

import csv
from pathlib import Path

import torch
from torch import Tensor

from pyro_vae import data
from pyro_vae.data import Dataset
from pyro_vae.data.rows import LARGE, Rows
from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Kind
from pyro_vae.runs.conditions import put_back, take_out
from pyro_vae.runs.hidden_entries import hide_entries
from pyro_vae.runs.options import Options


def prepare(options: Options) -> tuple[Dataset, Tensor | None]:
    """Load and split the data, hide values, and put conditions beside the examples.

    Returns:
        The data set, and its test examples as they were before values were hidden; None if none
        was.

    Raises:
        InputError: if the options do not fit the data.
    """
    dataset = load_and_split(options)
    names = split_names(options.condition or "")
    if not names:
        return hide_entries(dataset, options)
    dataset, given, conditions = take_out(dataset, names)
    dataset, whole = hide_entries(dataset, options)
    dataset = put_back(dataset, given, conditions)
    assert isinstance(dataset.kind, Conditional)
    return dataset, None if whole is None else dataset.kind.packed(whole, conditions[2])


def load_and_split(options: Options) -> Dataset:
    """Load the data set, and split it into training, validation and test examples."""
    try:
        return data.load(
            options.data,
            options.data_root,
            validation_fraction=options.validation_fraction,
            test_fraction=options.test_fraction,
            seed=options.data_seed,
            columns={str(name): kind for name, kind in options.columns.items()},
            drop=split_names(options.drop or ""),
            labels=options.labels,
            image_size=options.image_size,
        )
    except InputError as error:  # the options have longer names than the arguments of `load`
        names = {"name": "data", "root": "data_root"}
        raise InputError(str(error), names.get(error.parameter or "", error.parameter)) from error


def split_names(text: str) -> list[str]:
    """Return names that are written with commas between them, as a line of a CSV file.

    Args:
        text: names; one that holds a comma is in double quotes, as in `id, "mass, kg"`.
    """
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [name.strip() for row in rows for name in row if name.strip()]


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
    """Turn stored examples into what training and evaluation use.

    Returns:
        The stored training examples; validation and test examples as the likelihood sees them; and
        the test examples in the form that log p(x) on the base measure refers to.
    """
    seeds = options.noise_seeds
    held_out = dataset.validation, dataset.test
    for part in held_out:  # the training examples have been checked already
        kind.check(part)
    validation, test = (
        kind.binarize(examples, options.binarization, seed)
        for examples, seed in zip(held_out, seeds[1:], strict=True)
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
