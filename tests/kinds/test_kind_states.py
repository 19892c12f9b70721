"""Kinds as plain data: what is read back is the same kind, with its statistics."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_vae import InputError, checkpoint, kinds
from pyro_vae.kinds import Kind
from pyro_vae.kinds.kind_states import CLASSES


def alike(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(alike, one, two))
    return bool(one == two)


def counts_of_known_totals() -> Kind:
    kind = kinds.Counts([3])
    kind.total_is_known = True
    return kind


def levels_seen_as_binary() -> Kind:
    kind = kinds.Levels([4, 5], levels=17)
    kind.usual = kinds.Binary
    return kind


LABEL = kinds.Categories([1], ["label"], [["cat", "dog"]])
TABLE = kinds.Columns(
    [
        (kinds.Real([2], ["a", "b"], torch.ones(2), torch.tensor([2.0, 3.0])), [3, 0]),
        (kinds.Ordered([1], ["c"], [["low", "high"]]), [1]),
        (kinds.Positive([1], ["d"]), [2]),
    ],
    ["b", "c", "d", "a"],
)
KINDS = [
    kinds.Binary([3, 4], levels=256),
    kinds.UnitInterval([2, 3, 4], levels=None),
    levels_seen_as_binary(),
    counts_of_known_totals(),
    TABLE,
    kinds.Incomplete(TABLE),
    kinds.Conditional(kinds.Incomplete(kinds.Levels([3, 4])), LABEL),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_kinds_are_read_back_from_a_file(kind: Kind, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", kinds.to_state(kind))
    again = kinds.from_state(checkpoint.load(tmp_path / "a.pt"))
    assert alike(kinds.to_state(again), kinds.to_state(kind))
    assert type(again) is type(kind) and str(again) == str(kind) and again.usual is kind.usual
    assert again.base_measure() == kind.base_measure()
    assert again.feature_shape == kind.feature_shape
    x = kind.filler.expand(2, *kind.shape)
    assert torch.equal(again.features(x), kind.features(x))


def test_a_kind_of_another_class_and_damaged_data_are_refused() -> None:
    class Own(kinds.Real):
        pass

    for kind in (Own([2]), kinds.Incomplete(Own([2]))):
        with pytest.raises(InputError, match=r"the kind Own is not one of pyro_vae\.kinds"):
            kinds.to_state(kind)
    for state in ({}, {"class": "Real", "shape": [2]} | {"colour": 1}, {"class": "Own"}):
        with pytest.raises(InputError, match="cannot be read from their description"):
            kinds.from_state(state)


def test_all_kinds_of_the_package_can_be_saved() -> None:
    public = [getattr(kinds, name) for name in kinds.__all__]
    classes = {each for each in public if isinstance(each, type) and issubclass(each, Kind)}
    assert set(CLASSES.values()) == {each for each in classes if not inspect.isabstract(each)}


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [3, None]},
        {"shape": [0]},
        {"shape": torch.tensor([2])},
        {"names": ["a"]},
        {"names": [1, 2]},
        {"loc": torch.zeros(3)},
        {"loc": torch.zeros(2, dtype=torch.int64)},
        {"scale": torch.tensor([1.0, 0.0])},
        {"scale": torch.tensor([1.0, torch.nan])},
        {"scale": None},
    ],
)
def test_values_of_other_types_are_refused(change: dict[str, Any]) -> None:
    state = {**kinds.to_state(kinds.Real([2], ["a", "b"])), "loc": torch.zeros(2)}
    state["scale"] = torch.ones(2)
    assert kinds.from_state(state).names == ("a", "b")
    with pytest.raises(InputError, match="cannot be read from their description"):
        kinds.from_state({**state, **change})
