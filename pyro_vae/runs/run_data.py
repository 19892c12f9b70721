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
from pyro_vae.runs.conditions import LABELS, put_back, take_out
from pyro_vae.runs.hidden_entries import hide_entries
from pyro_vae.runs.options import Options


def prepare(options: Options, trained: Path | None = None) -> tuple[Dataset, Tensor | None]:
    """Load and split the data, hide values, and put conditions beside the examples.

    Args:
        options: the options of the run.
        trained: the folder of the run, if it was trained: its data have to be the same.

    Returns:
        The data set, and its test examples as they were before values were hidden; None if none
        was.

    Raises:
        InputError: if the options do not fit the data, or the data are not the same.
    """
    dataset = load_and_split(options) if trained is None else _load_again(options, trained)
    names = split_names(options.condition or "")
    if not names:
        return hide_entries(dataset, options)
    dataset, given, conditions = take_out(dataset, names)
    dataset, whole = hide_entries(dataset, options)
    dataset = put_back(dataset, given, conditions)
    assert isinstance(dataset.kind, Conditional)
    return dataset, None if whole is None else dataset.kind.packed(whole, conditions[2])


def _load_again(options: Options, folder: Path) -> Dataset:
    """Load and split the data of a run that was trained, and refuse others."""
    try:
        dataset = load_and_split(options)
    except InputError as error:  # one row, for example, cannot be split
        if options.data in data.SOURCES or not Path(options.data).exists():
            raise
        raise _other_data(options.data, folder, str(error)) from error
    check_fingerprint(options, dataset.fingerprint, folder)
    return dataset


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


def labels_are_given(options: Options, dataset: Dataset) -> bool:
    """Return whether the condition is the labels, and not a column of this name."""
    names = [spec.name for spec in dataset.conditions]
    return split_names(options.condition or "") == [LABELS] and names != [LABELS]


def left_out(options: Options) -> list[str]:
    """Return the names of the columns that the options leave out of the examples."""
    return [*split_names(options.drop or ""), *([options.labels] if options.labels else [])]


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
        reason = f"their fingerprint was {before.fingerprint} and is {now}"
        raise _other_data(before.data, folder, reason)


def check_moved(fingerprint: str | None, folder: Path) -> None:
    """Refuse another name of the data, if they cannot be recognised.

    Args:
        fingerprint: the fingerprint that the run's options hold.
        folder: the run's folder, for the message.

    Raises:
        InputError: if there is none.
    """
    if fingerprint is None:
        raise InputError(
            f"{folder} was made by an older version, which did not note what identifies its data: "
            "only the data that it names are used",
            "data",
        )


def _other_data(name: str, folder: Path, reason: str) -> InputError:
    return InputError(
        f"{name} is not what {folder} was trained on ({reason}): give the run's own data, wherever "
        "they are now; for other data use pyro-vae score, or train a new run",
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
