"""What decides a kind is found from all rows, so their order does not matter."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyro_vae import InputError, data
from pyro_vae.data.understanding import summaries
from pyro_vae.data.understanding.skewness import skewness, skewness_of_rows

N = 400
draw = np.random.default_rng(0)


def kinds(x: Any) -> list[str]:
    return [column.kind for column in data.from_object(x).columns]


@pytest.mark.parametrize("shape", [(N, 3), (N, 4, 5)])
def test_rows_beside_the_sample_count(monkeypatch: pytest.MonkeyPatch, shape: tuple[int]) -> None:
    """Few rows are far from the others, and in one order all of them are beside the sample."""
    skewed = 100 + draw.normal(size=shape)
    skewed[1:40:2] += 30 * draw.exponential(size=(20, *shape[1:]))
    monkeypatch.setattr("pyro_vae.data.understanding.image_arrays.PIXELS", skewed.size // 2)
    monkeypatch.setattr(summaries.sample_rows, "__defaults__", (N // 2,))
    assert skewness(skewed[::2].reshape(-1)) < 1
    found = {tuple(kinds(array)) for array in (skewed, skewed[::-1].copy(), np.roll(skewed, 1, 0))}
    assert found == {("positive",) * (3 if len(shape) == 2 else 1)}


def test_the_skewness_of_parts_is_that_of_the_whole() -> None:
    import scipy.stats

    values = draw.lognormal(3, 1, (200_003, 8))  # of several chunks
    found = skewness_of_rows(values, [2, 5])
    expected = [
        (scipy.stats.skew(values[:, j]), scipy.stats.skew(np.log(values[:, j]))) for j in (2, 5)
    ]
    assert np.allclose(found, expected, rtol=1e-8, atol=1e-8)
    ((all_values, _),) = skewness_of_rows(values, None)
    assert np.isclose(all_values, scipy.stats.skew(values.reshape(-1)))
    assert skewness(np.array([1.0, 2, 5]) * 1e300) == skewness(np.array([1.0, 2, 5]) * 1e150) == 0
    assert skewness(np.full(7, 0.1)) == 0 and skewness(np.array([5.0])) == 0


@pytest.mark.parametrize("first", [0, 1, 5000])
@pytest.mark.parametrize("width", [2, 30])
def test_row_numbers_in_any_order_are_refused(first: int, width: int) -> None:
    numbers = first + draw.permutation(N)
    others = draw.poisson(50, (N, width - 1))
    for x in (
        np.column_stack([others, numbers]),
        pd.DataFrame(np.column_stack([others, numbers])),
        np.column_stack([others, numbers]).astype(float),
    ):
        with pytest.raises(InputError, match=rf"counts the rows from {first} to") as caught:
            data.from_object(x)
        assert caught.value.parameter == "drop"
        if width > 2:  # a matrix of counts, and a table
            twice = np.column_stack([x, numbers])
            for each in (twice, pd.DataFrame(twice)):
                with pytest.raises(InputError, match=rf"2 columns .*: drop {width - 1},{width}$"):
                    data.from_object(each)
        given = data.from_object(x, columns={"all": "counts"})
        assert {column.kind for column in given.columns} == {"counts"}
    numbers[0] = numbers[1]  # one repeats, so they do not count the rows
    assert data.from_object(np.column_stack([others, numbers])).names == ()


def test_bytes_that_were_stored_otherwise_are_noted() -> None:
    counts = np.minimum(draw.poisson(200, (N, 25)), 255)
    counts[0, 0] = 255
    for x in (counts, pd.DataFrame(counts)):
        loaded = data.from_object(x)
        assert loaded.columns[0].levels == 256
        assert "taken as 256 levels, 0 to 255" in loaded.notes[0]
        assert "if they are counts, give the kind counts for all columns" in loaded.notes[0]
    assert not data.from_object(counts.astype(np.uint8)).notes
    assert data.from_object(counts, columns={"all": "counts"}).columns[0].kind == "counts"


def test_a_matrix_that_has_one_value_in_each_column() -> None:
    with pytest.raises(InputError, match="each column of the array has one value in all rows"):
        data.from_object(np.tile([0, 1, 3], (N, 1)))
