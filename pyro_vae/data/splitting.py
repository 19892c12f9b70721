"""The parts of a data set: those that its source lacks are split off from the training examples."""

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.fingerprint import GAMMA, mix
from pyro_vae.data.source import Part, Source
from pyro_vae.errors import InputError

HELD_OUT_BYTES = 2**27  # of the examples that are set aside: they are read into memory
FEWEST_HELD_OUT = 100  # however large they are


def split(
    name: str,
    source: Source,
    hashes: np.ndarray,
    fractions: tuple[float, float],
    seed: int,
    by_content: bool,
) -> tuple[Part, Part, Part]:
    """Return training, validation and test examples.

    Args:
        name: what messages call the data.
        source: the parts that there are.
        hashes: the hashes of the training examples' rows, shape [N].
        fractions: the shares of the training examples for validation and for testing.
        seed: the seed of the split.
        by_content: whether the examples' content decides, or else their order.

    Raises:
        InputError: if a fraction cannot be split off, or a part is empty.
    """
    train, validation, test = source.train, source.validation, source.test
    generator = torch.Generator().manual_seed(seed)
    if test is None:
        share = _share(train, fractions[1]) if by_content else fractions[1]
        chosen = _choose(hashes, share, seed, generator, by_content, "test_fraction")
        train, test, hashes = _take(train, chosen, hashes)
    if validation is None:
        share = _share(train, fractions[0]) if by_content else fractions[0]
        chosen = _choose(hashes, share, seed, generator, by_content, "validation_fraction")
        train, validation, hashes = _take(train, chosen, hashes)
    _check_filled(name, train, validation, test)
    return train, validation, test


def split_by_content(hashes: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose rows by a keyed hash of their content.

    The same rows are chosen in whatever order they come. Rows of the same content are chosen one by
    one, like different rows: kept together, frequent rows would never be among a few chosen ones.

    Args:
        hashes: the rows' hashes, `uint64`, shape [N]; see `row_hashes`.
        fraction: the share of the rows to choose, between 0 and 1.
        seed: the key: another one chooses other rows.

    Returns:
        Whether each row is chosen, shape [N]; true for exactly `round(fraction * N)` rows.

    Raises:
        InputError: if the fraction is not between 0 and 1.
    """
    if not 0 <= fraction <= 1:
        raise InputError(
            f"a fraction of {fraction:g} cannot be split off: choose one between 0 and 1",
            "fraction",
        )
    order = np.argsort(hashes, kind="stable")
    in_order = hashes[order]
    at = np.arange(len(hashes))
    starts = np.maximum.accumulate(np.where(np.r_[True, in_order[1:] != in_order[:-1]], at, 0))
    key = np.array([seed % 2**64], np.uint64) + GAMMA
    mix(key, np.empty_like(key))
    keyed = in_order ^ key
    mix(keyed, np.empty_like(keyed))
    keyed += (at - starts).astype(np.uint64) * GAMMA  # the first, second, .. row of its content
    mix(keyed, np.empty_like(keyed))
    chosen = np.zeros(len(hashes), bool)
    chosen[order[np.argsort(keyed, kind="stable")[: round(fraction * len(hashes))]]] = True
    return chosen


def check_alike(name: str, parts: dict[str, Part]) -> None:
    """Refuse parts that differ in type or shape.

    Raises:
        InputError: with their types and shapes.
    """
    like = parts["train"].examples
    for part_name, part in parts.items():
        examples = part.examples
        if examples.shape[1:] != like.shape[1:] or examples.dtype != like.dtype:
            raise InputError(
                f"{name}: the {part_name} set holds {examples.dtype} {list(examples.shape[1:])}, "
                f"the training set {like.dtype} {list(like.shape[1:])}: make them alike",
                "name",
            )


def note_repeats(hashes: dict[str, np.ndarray]) -> list[str]:
    """Return sentences about examples that repeat others, within a part and between parts."""
    notes = []
    joined = np.concatenate(list(hashes.values()))
    repeats = len(joined) - len(np.unique(joined))
    if repeats:
        notes.append(
            f"duplicates: {repeats:,} of {len(joined):,} examples repeat another one; they are kept"
        )
    for name, own in hashes.items():
        shared = int(np.isin(own, hashes["train"]).sum()) if name != "train" else 0
        if shared:
            notes.append(
                f"{shared:,} of {len(own):,} {name} examples are training examples, too: what is "
                "measured on them looks better than it is"
            )
    return notes


def _share(part: Part, fraction: float) -> float:
    """Return the share of examples to hold out: no more than memory holds as dense `float32`.

    It is the same in whatever way the examples are stored.
    """
    row_bytes = 4 * part.examples.shape[1:].numel()
    most = max(FEWEST_HELD_OUT, HELD_OUT_BYTES // row_bytes)
    return min(fraction, most / max(1, len(part.examples)))


def _choose(
    hashes: np.ndarray,
    fraction: float,
    seed: int,
    generator: torch.Generator,
    by_content: bool,
    argument: str,
) -> tuple[Tensor, Tensor]:
    """Return the indices of the examples that stay, and of the share that is set aside."""
    if not 0 < fraction < 1:
        raise InputError(
            f"a fraction of {fraction:g} cannot be split off: choose one between 0 and 1", argument
        )
    if by_content:
        chosen = torch.from_numpy(split_by_content(hashes, fraction, seed))
        return (~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]
    order = torch.randperm(len(hashes), generator=generator)
    count = int(fraction * len(hashes))
    return order[count:], order[:count]


def _take(
    part: Part, chosen: tuple[Tensor, Tensor], hashes: np.ndarray
) -> tuple[Part, Part, np.ndarray]:
    """Return the rest and what is set aside, and the hashes of the rest."""
    rest, aside = chosen
    return part[rest], part[aside], hashes[rest.numpy()]


def _check_filled(name: str, train: Part, validation: Part, test: Part) -> None:
    """Refuse parts that are empty."""
    for part_name, part in (("training", train), ("validation", validation), ("test", test)):
        if len(part.examples) == 0:
            raise InputError(
                f"the {part_name} set of {name} is empty: give more data, or change "
                "validation_fraction or test_fraction",
                "test_fraction" if part is test else "validation_fraction",
            )
