"""Examples that travel with their conditions."""

import math

import pytest
import torch
from torch import Tensor

from pyro_vae import kinds
from pyro_vae.errors import InputError

LABEL = kinds.Categories([1], ["label"], [["cat", "dog", "fox"]])
LABELS = torch.arange(12)[:, None] % 3
PATIENT = kinds.Columns(
    [(kinds.Real([1], ["age"]), [1]), (kinds.Categories([1], ["sex"], [["f", "m"]]), [0])],
    ["sex", "age"],
)
PATIENTS = torch.stack([torch.arange(12) % 2, 40.0 + torch.arange(12)], 1)


def grey(*shape: int) -> Tensor:
    return torch.randint(0, 256, (12, *shape), dtype=torch.uint8)


def incomplete() -> tuple[kinds.Kind, Tensor]:
    stored = 9 * torch.randn(12, 4)
    stored[torch.rand(12, 4) < 0.4] = torch.nan
    return kinds.Incomplete(kinds.Real([4], [*"abcd"])), stored


CASES = {
    "binary": lambda: (kinds.Binary([4, 3]), grey(4, 3)),
    "levels in colour": lambda: (kinds.Levels([3, 4, 2]), grey(3, 4, 2)),
    "dequantised": lambda: (kinds.UnitInterval([4, 3]), grey(4, 3)),
    "vectors": lambda: (kinds.Real([4], [*"abcd"]), 5 + torch.randn(12, 4)),
    "holes": incomplete,
    "picture with holes": lambda: (
        kinds.Incomplete(kinds.Levels([3, 4, 2])),
        grey(3, 4, 2).float().masked_fill(torch.rand(12, 3, 4, 2) < 0.3, torch.nan),
    ),
}
GIVEN = {"label": (LABEL, LABELS), "table": (PATIENT, PATIENTS)}


def case(name: str, given: str) -> tuple[kinds.Conditional, Tensor, Tensor, Tensor]:
    of, stored = CASES[name]()
    what, y = GIVEN[given]
    kind = kinds.Conditional(of, what)
    packed = kind.packed(stored, y)
    kind.check(packed)
    return kind.fitted(packed), packed, stored, y


BOTH = [pytest.mark.parametrize("name", CASES), pytest.mark.parametrize("given", GIVEN)]


@BOTH[0]
@BOTH[1]
def test_forms_of_both_parts(name: str, given: str) -> None:
    kind, packed, stored, y = case(name, given)
    assert packed.shape[1:] == kind.shape
    own, conditions = kind.parted(packed)
    assert own.shape == stored.shape
    torch.testing.assert_close(own.float(), stored.float(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(conditions.float(), y.float(), rtol=0, atol=0)
    x = kind.observe_once(packed, seed=1)
    shown, shown_y = kind.parted(x)
    expected = kind.of.observe_once(stored, seed=1)
    torch.testing.assert_close(shown, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(shown_y, y.float(), rtol=0, atol=0)
    features = kind.features(x)
    assert features.shape == (12, *kind.feature_shape) and features.isfinite().all()
    of_x, of_y = kind.parted_features(features)
    torch.testing.assert_close(of_x, kind.of.features(shown), rtol=0, atol=0)
    torch.testing.assert_close(of_y, kind.given.features(shown_y), rtol=0, atol=0)
    of_stored = kind.parted_features(kind.stored_features(packed))[0]
    torch.testing.assert_close(of_stored, kind.of.stored_features(stored), rtol=0, atol=0)
    torch.testing.assert_close(
        kind.intensities(x), kind.of.intensities(shown), rtol=0, atol=0, equal_nan=True
    )
    assert kind.features(x[:, None]).shape == (12, 1, *kind.feature_shape)
    assert kind.filler.shape == kind.num_categories.shape == kind.shape
    assert kind.dims == stored[0].numel()


@BOTH[0]
@BOTH[1]
def test_the_measure_is_that_of_x(name: str, given: str) -> None:
    kind, packed, stored, y = case(name, given)
    x = kind.observe(packed)
    own = kind.of.base_measure()
    measure = kind.base_measure()
    assert measure.name == f"{own.name}, given {', '.join(kind.given.names or ())}"
    assert (measure.counts, measure.shift) == (own.counts, own.shift)
    shifts = [torch.as_tensor(shift) for shift in (kind.shift(x), kind.of.shift(kind.parted(x)[0]))]
    torch.testing.assert_close(*shifts)
    measured, conditions = kind.parted(kind.measured(packed, x))
    expected = kind.of.measured(stored, kind.parted(x)[0])
    torch.testing.assert_close(measured.float(), expected.float(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(conditions.float(), y.float(), rtol=0, atol=0)


@BOTH[0]
@BOTH[1]
def test_each_example_could_show_itself_under_its_own_conditions(name: str, given: str) -> None:
    kind, packed, stored, y = case(name, given)
    x = kind.observe_once(packed, seed=0)
    features = kind.stored_features(packed)
    assert kind.could_show(x, features).diagonal().all()
    other = kind.packed(stored, y.roll(1, 0))
    assert not kind.could_show(x, kind.stored_features(other)).diagonal().any()


def test_stored_pixels_stay_small() -> None:
    kind = kinds.Conditional(kinds.Binary([4, 3]), LABEL)
    assert kind.packed(grey(4, 3), LABELS).dtype == torch.uint8
    age = kinds.Conditional(kinds.Binary([4, 3]), kinds.Real([1]))
    assert age.packed(grey(4, 3), torch.full((12, 1), 0.5)).dtype == torch.float32
    counts = torch.full((12, 2), 2**24 + 1)
    many = kinds.Conditional(kinds.Counts([2]), kinds.Real([1])).packed(
        counts, torch.full((12, 1), 0.5)
    )
    assert many.dtype == torch.float64 and (many[:, 0] == 2**24 + 1).all()


def test_static_binarisation_is_that_of_x() -> None:
    kind, packed, stored, y = case("binary", "label")
    static = kind.binarize(packed, "static", 3)
    expected = kind.of.binarize(stored, "static", 3)
    assert static.dtype == torch.uint8
    assert kind.parted(static)[0].equal(expected) and kind.parted(static)[1].equal(y.byte())
    assert kind.binarize(packed, "dynamic", 3) is packed


def test_columns_are_named_and_read() -> None:
    kind, _, _, _ = case("vectors", "label")
    assert kind.names == (*"abcd", "label")
    assert kind.text(4, 1.0) == "dog" and kind.text(0, 1.5) == "1.5"
    assert kind.place_of_feature.tolist() == [0, 1, 2, 3, 4, 4, 4]
    assert str(kind) == f"{kind.of}, given label"
    assert not kind.is_picture and case("binary", "label")[0].is_picture


def test_what_cannot_be_a_condition_is_refused() -> None:
    with pytest.raises(InputError, match="known for every example"):
        kinds.Conditional(kinds.Real([2]), kinds.Incomplete(kinds.Real([1])))
    with pytest.raises(InputError, match="conditions are columns"):
        kinds.Conditional(kinds.Real([2]), kinds.Levels([2, 2]))
    kind = kinds.Conditional(kinds.Real([4]), LABEL)
    y = LABELS.float()
    y[3] = math.nan
    with pytest.raises(InputError, match="'label' is a condition, and is missing"):
        kind.check(kind.packed(torch.randn(12, 4), y))
    with pytest.raises(InputError, match=r"'label'.*7"):
        kind.check(kind.packed(torch.randn(12, 4), torch.full((12, 1), 7.0)))
    with pytest.raises(InputError, match="column 2"):
        x = torch.randn(12, 4)
        x[1, 2] = math.inf
        kind.check(kind.packed(x, LABELS))
