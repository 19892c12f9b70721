"""Known values that are hidden from training, to see how well they are imputed."""

from dataclasses import replace

import torch
from torch import Tensor

from pyro_vae.data import Dataset
from pyro_vae.errors import InputError
from pyro_vae.kinds import Incomplete, Kind
from pyro_vae.runs.options import Options


def hide_entries(dataset: Dataset, options: Options) -> tuple[Dataset, Tensor | None]:
    """Hide a share of the values of all examples, to see how well they are imputed.

    Args:
        dataset: the data set.
        options: the options of the run, with the share and the seed of the choice.

    Returns:
        The data set with the hidden values missing, and the test examples as they were, as stored;
        None if none was hidden.

    Raises:
        InputError: if the data are larger than memory.
    """
    share = options.hold_out_entries
    if not share:
        return dataset, None
    if not isinstance(dataset.train, Tensor):
        raise InputError(
            "values of data that are larger than memory are not hidden: leave hold_out_entries out",
            "hold_out_entries",
        )
    generator = torch.Generator().manual_seed(options.hiding_seed)
    parts = []
    for part in (dataset.train, dataset.validation, dataset.test):
        hidden = torch.rand(part.shape, generator=generator) < share
        parts.append(as_floats(part).masked_fill(hidden, torch.nan))
    train, validation, test = parts
    kind = dataset.kind if isinstance(dataset.kind, Incomplete) else Incomplete(dataset.kind)
    changed = replace(dataset, kind=kind, train=train, validation=validation, test=test)
    return changed, dataset.test


def hidden_values(kind: Kind, whole: Tensor, test: Tensor, options: Options) -> Tensor:
    """Return hidden values as the likelihood sees them, NaN elsewhere.

    Args:
        kind: the kind of the data, with holes.
        whole: stored test examples before values were hidden.
        test: test examples as the likelihood sees them, without the hidden values.
        options: the options of the run, with the seed of the noise in `test`.
    """
    numbers = as_floats(whole)
    seed = options.noise_seeds[2]
    known = kind.observe_once(kind.binarize(numbers, options.binarization, seed), seed)
    return torch.where(test.isnan(), known, torch.nan)


def as_floats(stored: Tensor) -> Tensor:
    """Return whole numbers as floats that have all of them."""
    if stored.is_floating_point():
        return stored
    return stored.float() if stored.itemsize < 4 else stored.double()
