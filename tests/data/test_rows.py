"""Rows that are read when they are needed: the same rows, in little memory."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from pyro_vae import InputError, data
from pyro_vae.data import Rows, source
from pyro_vae.data.rows import RowReader, batches
from pyro_vae.kinds import Counts, Real


def test_large_files_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is in one part, with the content that it has in the file, in little memory."""
    rows = np.random.default_rng(0).normal(5, 2, (3000, 20)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows)
    whole = data.load(str(tmp_path / "a.npy"))
    monkeypatch.setattr(source, "LARGE", 1000)
    large = data.load(str(tmp_path / "a.npy"))
    assert isinstance(whole.train, torch.Tensor) and isinstance(large.train, Rows)
    assert large.fingerprint == whole.fingerprint
    assert [len(part) for part in (large.train, large.validation, large.test)] == [2430, 270, 300]
    assert large.train.shape == (2430, 20) and large.train.dtype == torch.float32
    found = torch.cat([*large.train.split(700), large.validation, large.test])
    order = torch.from_numpy(np.lexsort(found.numpy().T))
    torch.testing.assert_close(found[order], torch.from_numpy(rows[np.lexsort(rows.T)]))
    batch = torch.tensor([5, 0, 2429])
    assert torch.equal(large.train.index_select(0, batch), large.train[:][batch])
    kind, expected = Real([20]).fitted(large.train), Real([20]).fitted(large.train[:])
    torch.testing.assert_close(kind.loc, expected.loc)
    torch.testing.assert_close(kind.scale, expected.scale)


def test_sparse_rows_become_dense_one_batch_at_a_time() -> None:
    counts = np.random.default_rng(0).poisson(0.3, (400, 30))
    loaded = data.from_object(sparse.csr_matrix(counts))
    dense = data.from_object(counts)
    assert isinstance(loaded.train, Rows) and isinstance(dense.train, torch.Tensor)
    assert isinstance(loaded.kind, Counts) and isinstance(dense.kind, Counts)
    assert not loaded.test.is_sparse_csr and loaded.test.shape == (40, 30)
    everything = torch.cat([loaded.train[:], loaded.validation, loaded.test]).long()
    order = np.lexsort(everything.numpy().T)
    assert np.array_equal(everything.numpy()[order], counts[np.lexsort(counts.T)])


class Squares(RowReader):
    """The squares of the rows' numbers; a row above 90 is not there any more."""

    def __init__(self) -> None:
        super().__init__((100, 2), np.dtype(np.int32))
        self.threads: set[int] = set()

    def read(self, index: np.ndarray) -> np.ndarray:
        self.threads.add(threading.get_ident())
        if (index > 90).any():
            raise InputError("a row is gone: put it back", "data")
        return np.stack([index, index**2], 1).astype(self.dtype)


def test_batches_come_in_order_and_are_read_by_another_thread() -> None:
    reader = Squares()
    places = list(torch.randperm(90).split(7))
    before = threading.active_count()
    found = list(batches(Rows(reader), places))
    assert all(torch.equal(x[:, 1], place**2) for x, place in zip(found, places, strict=True))
    assert len(reader.threads) == 1 and threading.get_ident() not in reader.threads
    tensor = Rows(reader, torch.arange(90))[:]
    assert all(map(torch.equal, found, batches(tensor, places)))
    reading = batches(Rows(reader), [torch.tensor([1]), torch.tensor([95]), torch.tensor([2])])
    assert next(reading).tolist() == [[1, 1]]
    with pytest.raises(InputError, match="a row is gone"):
        next(reading)
    left = batches(Rows(reader), places)
    next(left)
    left.close()
    assert threading.active_count() == before
