"""Fingerprints and splits depend on the rows' content, and on nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from pyro_vae import InputError, data
from pyro_vae.data import fingerprint, row_hashes, split_by_content
from pyro_vae.data.rows.sparse_rows import to_torch

draw = np.random.default_rng(0)
MASK = 2**64 - 1


def reference(row: bytes) -> int:
    """The hash of one row, by its definition, in Python's whole numbers."""

    def mix(word: int) -> int:
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
        word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
        return word ^ word >> 31

    row += bytes(-len(row) % 8)
    words = np.frombuffer(row, np.uint64).tolist()
    total = sum(mix(w + (j + 1) * 0x9E3779B97F4A7C15 & MASK) for j, w in enumerate(words))
    return mix(total & MASK)


@pytest.mark.parametrize("shape", [(50, 1), (50, 3), (50, 8), (7, 5, 4), (3, 2, 300, 300)])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
def test_hashes_are_as_defined(shape: tuple[int, ...], dtype: str) -> None:
    rows = (100 * draw.random(shape)).astype(dtype)
    expected = [reference(row.tobytes()) for row in rows]
    assert row_hashes(rows).tolist() == expected
    assert row_hashes(torch.from_numpy(rows)).tolist() == expected


def test_the_hash_is_that_of_the_values_whatever_their_place_in_memory() -> None:
    images = draw.integers(0, 256, (40, 6, 5, 3)).astype(np.uint8)
    moved = np.moveaxis(images, -1, 1)
    assert (row_hashes(moved) == row_hashes(np.ascontiguousarray(moved))).all()
    counts = draw.poisson(0.3, (60, 9)).astype(np.float32)
    sparse = csr_matrix(counts)
    for same in (sparse, to_torch(sparse)):
        assert (row_hashes(same) == row_hashes(counts)).all()
        assert fingerprint(to_torch(sparse)) == fingerprint(torch.from_numpy(counts))


def test_fingerprints_of_earlier_versions_are_the_same() -> None:
    """Runs remember them."""
    rows = np.arange(12.0).reshape(4, 3)
    assert fingerprint(0 * rows) == "c11594b0c950b5e100000004"
    assert fingerprint(rows, None, "é, names") == "746f1478af8d3faa00000004"


def test_order_does_not_matter() -> None:
    rows = draw.normal(size=(1000, 5))
    assert fingerprint(rows) == fingerprint(rows[draw.permutation(1000)])


def test_anything_else_matters() -> None:
    rows = draw.integers(0, 9, (200, 4)).astype(np.float32)
    changed = rows.copy()
    changed[17, 2] += 1
    exchanged = rows.copy()
    exchanged[17] = exchanged[17, ::-1] + np.arange(4)
    alike = [
        rows,
        changed,
        exchanged,
        rows[:-1],
        np.concatenate([rows, rows[:1]]),
        np.concatenate([rows, rows]),
        rows.astype(np.float64),
        rows.reshape(200, 2, 2),
        rows[:, :3],
    ]
    marks = [fingerprint(array) for array in alike]
    assert len(set(marks)) == len(marks)
    assert all(len(mark) == 24 and int(mark, 16) for mark in marks)
    assert int(marks[0][16:], 16) == 200 and int(marks[3][16:], 16) == 199


def test_a_million_rows_do_not_collide() -> None:
    """Of 10^6 rows two share a hash of 64 bits with a probability of 3e-8."""
    rows = draw.integers(0, 2**63, (1_000_000, 2))
    assert len(np.unique(row_hashes(rows))) == 1_000_000
    # rows that are hard to tell: two bytes of sixteen differ, in any place
    near = np.zeros((120 * 256 * 32, 16), np.uint8)
    places = [(i, j) for i in range(16) for j in range(i)]
    values = np.array([(a + 1, 8 * b + 1) for a in range(255) for b in range(32)], np.uint8)
    for index, (i, j) in enumerate(places):
        part = near[index * len(values) : (index + 1) * len(values)]
        part[:, i], part[:, j] = values[:, 0], values[:, 1]
    near = near[: len(places) * len(values)]
    assert len(np.unique(row_hashes(near))) == len(near) == 979_200


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.1, 0.25, 0.5, 1.0])
def test_the_share_is_exact(fraction: float) -> None:
    hashes = row_hashes(draw.normal(size=(999, 2)))
    assert split_by_content(hashes, fraction, 0).sum() == round(fraction * 999)


def test_rows_are_chosen_by_content_in_any_order() -> None:
    rows = draw.normal(size=(1000, 3))
    order = draw.permutation(1000)
    chosen = split_by_content(row_hashes(rows), 0.2, 3)
    assert (split_by_content(row_hashes(rows[order]), 0.2, 3) == chosen[order]).all()


def test_the_seed_chooses_other_rows_and_no_row_is_preferred() -> None:
    hashes = row_hashes(draw.normal(size=(500, 3)))
    chosen = np.stack([split_by_content(hashes, 0.2, seed) for seed in range(400)])
    assert len({mask.tobytes() for mask in chosen}) == 400
    # each row is chosen Binomial(400, 0.2) times: 80, with a standard deviation of 8
    counts = chosen.sum(0)
    assert abs(counts - 80).max() < 5 * 8
    assert abs(np.square(counts - 80).mean() / 64 - 1) < 5 * np.sqrt(2 / 500)


def test_rows_that_repeat_are_chosen_as_often_as_others() -> None:
    """Of a row that is most of the data, the share that is chosen is the share of all rows."""
    rows = draw.poisson(0.05, (3000, 8))
    hashes, order = row_hashes(rows), draw.permutation(3000)
    zero = (rows == 0).all(1)
    shares = []
    for seed in range(40):
        chosen = split_by_content(hashes, 0.1, seed)
        assert chosen.sum() == 300
        shares.append(zero[chosen].mean())
        again = split_by_content(hashes[order], 0.1, seed)
        assert sorted(hashes[order][again]) == sorted(hashes[chosen])  # the same content
    error = (zero.mean() * (1 - zero.mean()) * 0.9 / 300 / 40) ** 0.5
    assert zero.mean() > 0.5 and abs(np.mean(shares) - zero.mean()) < 4.5 * error
    same = np.zeros(10, np.uint64)
    assert split_by_content(same, 0.3, 0).sum() == 3


def test_fractions_are_checked() -> None:
    with pytest.raises(InputError, match=r"a fraction of 1\.5 cannot be split off"):
        split_by_content(np.zeros(3, np.uint64), 1.5, 0)


def as_csv(path: Path, rows: np.ndarray) -> None:
    lines = [",".join(map(repr, row)) for row in rows.tolist()]
    path.write_text("a,b\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize(("suffix", "save"), [(".npy", np.save), (".csv", as_csv)])
def test_a_moved_file_in_another_order_has_the_same_test_rows(
    tmp_path: Path, suffix: str, save: Any
) -> None:
    rows = draw.normal(size=(120, 2))
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save(first, rows)
    save(second, rows[draw.permutation(120)])
    one, two = data.load(str(first)), data.load(str(second))
    assert one.fingerprint == two.fingerprint
    for part in ("train", "validation", "test"):
        mine, other = (sorted(getattr(loaded, part).tolist()) for loaded in (one, two))
        assert mine == other
    assert sorted(data.load(str(first), seed=1).test.tolist()) != sorted(one.test.tolist())


def test_a_file_that_has_grown_has_another_fingerprint_and_most_of_its_test_rows() -> None:
    rows = draw.normal(size=(1000, 2))
    grown = np.concatenate([rows, draw.normal(size=(10, 2))])
    one, two = data.from_object(rows), data.from_object(grown)
    assert one.fingerprint != two.fingerprint
    before, after = (set(map(tuple, part.test.tolist())) for part in (one, two))
    assert len(before & after) >= len(before) - 10


def test_names_kinds_and_parts_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    rows = draw.normal(size=(60, 2))
    frame = pd.DataFrame(rows, columns=["a", "b"])
    mark = data.from_object(frame).fingerprint
    assert data.from_object(frame.iloc[::-1]).fingerprint == mark
    others = [
        data.from_object(frame.rename(columns={"a": "b", "b": "a"})),
        data.from_object(np.exp(frame)),
        data.from_object(np.exp(frame), columns={"a": "real"}),
        data.from_object({"train": rows[:40], "test": rows[40:]}),
        data.from_object({"train": rows[20:], "test": rows[:20]}),
    ]
    marks = [mark, *(other.fingerprint for other in others)]
    assert len(set(marks)) == len(marks)
