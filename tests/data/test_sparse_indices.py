"""Sparse matrices whose indices lie outside: SciPy and torch would write outside their memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from pyro_vae import InputError, data
from pyro_vae.data.rows.sparse_rows import checked_csr, quiet

counts = np.random.default_rng(0).poisson(1.0, (30, 4))
WRONG = ["a column outside", "a negative column", "rows that go back", "rows that end later"]
WRONG += ["rows that end at 0", "rows that end below 0"]
MESSAGE = r"is not a .*(sparse matrix of shape \[\d+, \d+\]|array file) \(.*(ind|ptr|cannot|exceed)"


def csr(wrong: str = "", dtype: str = "f4") -> Any:
    """Return a sparse matrix of which something is wrong that SciPy does not notice."""
    matrix = sparse.csr_matrix(counts.astype("f4"))
    matrix.data = matrix.data.astype(dtype)
    if wrong == "a column outside":
        matrix.indices[3] = 10**6
    elif wrong == "a negative column":
        matrix.indices[3] = -(10**6)
    elif wrong == "rows that go back":
        matrix.indptr[5] = 3 * 10**8
    elif wrong == "rows that end later":
        matrix.indptr[-1] += 10**6
    elif wrong == "rows that end at 0":
        matrix.indptr[-1] = 0
    elif wrong == "rows that end below 0":  # and their difference overflows
        matrix.indptr[1:] = 2**31 - 1
        matrix.indptr[-1] = -2
    return matrix


@pytest.mark.parametrize("dtype", ["f4", "f2", ">f4", "u1"])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_indices_are_refused(tmp_path: Path, wrong: str, dtype: str) -> None:
    given = csr(wrong, dtype)
    parts = {"data": given.data, "indices": given.indices, "indptr": given.indptr}
    with pytest.raises(InputError, match=MESSAGE):
        data.from_object(given)
    assert given.data is parts["data"] and given.indptr is parts["indptr"]  # as it was
    for layout, shape in (("csr", counts.shape), ("csc", counts.shape[::-1])):
        np.savez(tmp_path / "a.npz", format=layout.encode(), shape=shape, **parts)
        with pytest.raises(InputError, match=MESSAGE):
            data.load(str(tmp_path / "a.npz"))


def outside(layout: str) -> Any:
    """Return a matrix in another layout with a place outside, or one that SciPy reads wrongly."""
    matrix = getattr(sparse.csr_matrix(counts.astype("f4")), f"to{layout}")()
    match layout:
        case "bsr":  # its shape is no multiple of its blocks, which SciPy accepts
            blocks = np.ones((8, 2, 2)), np.arange(8) % 2, np.arange(0, 9, 2)
            return sparse.bsr_matrix(blocks, shape=(9, 4))
        case "lil":
            matrix.rows[0] = [10**6]
            matrix.data[0] = [1.0]
        case "dok":
            matrix._dict[10**6, 10**6] = 1.0
        case "coo":
            matrix.col[3] = 10**6
    return matrix


@pytest.mark.parametrize("layout", ["bsr", "lil", "dok", "coo"])
def test_wrong_indices_in_other_layouts(layout: str) -> None:
    with pytest.raises(InputError, match=r"is not a sparse matrix of shape"):
        data.from_object(outside(layout))


@pytest.mark.parametrize("layout", ["csr", "csc", "bsr", "coo", "lil", "dok", "dia"])
def test_all_layouts_hold_the_same(tmp_path: Path, layout: str) -> None:
    expected = data.from_object(counts).fingerprint
    matrix = getattr(sparse.csr_matrix(counts), f"to{layout}")()
    assert data.from_object(matrix).fingerprint == expected
    if layout not in ("lil", "dok"):
        sparse.save_npz(tmp_path / "a.npz", matrix)
        assert data.load(str(tmp_path / "a.npz")).fingerprint == expected


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_indices_in_a_file_of_anndata(
    tmp_path: Path, wrong: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    anndata, h5py = pytest.importorskip("anndata"), pytest.importorskip("h5py")
    path = tmp_path / "a.h5ad"
    anndata.AnnData(csr()).write_h5ad(path)
    given = csr(wrong)
    with h5py.File(path, "a") as file:
        file["X/indices"][:], file["X/indptr"][:] = given.indices, given.indptr
    if large:
        monkeypatch.setattr("pyro_vae.data.sources.anndata_files.LARGE", 100)
    with pytest.raises(InputError, match=r"is not a sparse matrix|not a file of|cannot be used"):
        data.load(str(path)).train[:]


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_wrong_indices_of_tensors(tmp_path: Path, layout: str) -> None:
    dense = torch.tensor(counts).float()
    with quiet():
        if layout == "coo":
            places, values = dense.nonzero().T.clone(), dense[dense != 0]
            places[1, 0] = 10**6
            tensor = torch.sparse_coo_tensor(places, values, dense.shape, check_invariants=False)
        elif layout == "csr":
            tensor = dense.to_sparse_csr()
            tensor.col_indices()[0] = 10**6
        else:
            tensor = dense.to_sparse_csc()
            tensor.row_indices()[0] = -1
        torch.save(tensor, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a tensor of shape \[30, 4\] is not a sparse one that"):
        data.from_object(tensor)
    with pytest.raises(InputError, match=r"not a sparse one that|indices do not fit its shape"):
        data.load(str(tmp_path / "a.pt"))


def test_sparse_tensors_are_read_as_dense_ones(tmp_path: Path) -> None:
    dense = torch.tensor(counts).float()
    with quiet():
        tensors = [dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc()]
    for tensor in tensors:
        torch.save(tensor, tmp_path / "a.pt")
        expected = data.from_object(dense).fingerprint
        assert data.from_object(tensor).fingerprint == expected
        assert data.load(str(tmp_path / "a.pt")).fingerprint == expected
    huge = torch.zeros(1, 1).to_sparse().sparse_resize_((10**9, 10**6), 2, 0)
    with pytest.raises(InputError, match="a sparse tensor holds"):
        data.from_object(huge)


def test_values_of_one_place_are_added_up() -> None:
    rows, columns = np.nonzero(counts)
    twice = sparse.coo_matrix(
        (
            np.r_[counts[rows, columns], np.ones(3, int)],
            (np.r_[rows, 0, 0, 0], np.r_[columns, 1, 1, 1]),
        ),
        shape=counts.shape,
    )
    dense = counts.copy()
    dense[0, 1] += 3
    assert data.from_object(twice).fingerprint == data.from_object(dense).fingerprint
    values, starts = np.array([200, 100, 1, 2], "u1"), np.array([0, 2, 4])
    given = sparse.csr_matrix((values, np.array([2, 2, 1, 2]), starts), (2, 3))
    found = checked_csr(given, "x", "x")
    assert found.toarray().tolist() == [[0, 0, 300], [0, 1, 2]]
    assert found.nnz == 3 and given.nnz == 4  # the caller's is as it was
    places = np.array([0, 0, 1, 1]), np.array([2, 2, 1, 2])
    for layout in ("coo", "csc"):
        matrix = sparse.coo_matrix((values, places), (2, 3))
        matrix = matrix if layout == "coo" else given.tocsc()
        assert checked_csr(matrix, "x", "x").toarray().tolist() == [[0, 0, 300], [0, 1, 2]]


def test_values_of_one_place_in_a_large_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anndata, h5py = pytest.importorskip("anndata"), pytest.importorskip("h5py")
    monkeypatch.setattr("pyro_vae.data.sources.anndata_files.LARGE", 100)
    path = str(tmp_path / "a.h5ad")
    anndata.AnnData(csr()).write_h5ad(path)
    with h5py.File(path, "a") as file:
        place = file["X/indices"]
        place[1] = place[0]
    with pytest.raises(InputError, match="some values have the same place"):
        data.load(path).train[:]


def test_one_dimension_is_refused() -> None:
    with pytest.raises(InputError, match=r"the matrix has shape \[5\]: expected \[N, D\]"):
        data.from_object(sparse.coo_array(np.arange(5)))


def write(folder: Path, x: np.ndarray, dtype: str) -> tuple[str, str]:
    """Write a file of anndata and one of a sparse matrix, whose numbers have a type."""
    anndata, h5py = pytest.importorskip("anndata"), pytest.importorskip("h5py")
    anndata.AnnData(x.astype("f4")).write_h5ad(folder / "a.h5ad")
    with h5py.File(folder / "a.h5ad", "a") as file:
        attributes = dict(file["X"].attrs)
        del file["X"]
        file["X"] = x.astype(dtype)
        file["X"].attrs.update(attributes)
    given = sparse.csr_matrix(x.astype("f4"))
    parts = {"data": given.data.astype(dtype), "indices": given.indices, "indptr": given.indptr}
    np.savez(folder / "a.npz", format=b"csr", shape=given.shape, **parts)
    return str(folder / "a.h5ad"), str(folder / "a.npz")


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", ">f8", "g", ">i2", "u2", "?"])
def test_any_type_of_numbers_in_any_byte_order(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (counts > 0) if dtype == "?" else counts
    expected = [data.load(name).fingerprint for name in write(tmp_path, x, "f4")]
    names = write(tmp_path, x, dtype)
    assert [data.load(name).fingerprint for name in names] == expected
    for name in names:
        mixed = data.load(name, columns={"0": "real", "all": "counts"})
        found = torch.cat([mixed.train[:], mixed.validation, mixed.test]).tolist()
        assert sorted(found) == sorted(x.tolist())  # they are split in another order
    monkeypatch.setattr("pyro_vae.data.sources.anndata_files.LARGE", 10)
    assert data.load(names[0]).fingerprint == expected[0]
