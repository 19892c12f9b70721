"""Files of NumPy and of torch: names of arrays, axes, types, and what cannot be used."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_vae import InputError, data
from pyro_vae.data.rows.row_chunks import row_chunks
from pyro_vae.data.sources.numpy_files import read_npy
from pyro_vae.kinds import Categories

draw = np.random.default_rng(2)
grey = draw.integers(0, 256, (100, 6, 5)).astype(np.uint8)
labels = draw.integers(0, 3, 100)


def load_npy(folder: Path, array: Any, **options: Any) -> data.Dataset:
    np.save(folder / "a.npy", array, allow_pickle=True)
    return data.load(str(folder / "a.npy"), **options)


def load_npz(folder: Path, arrays: dict[str, Any], **options: Any) -> data.Dataset:
    np.savez(folder / "a.npz", **arrays)
    return data.load(str(folder / "a.npz"), **options)


def by_content(examples: Any) -> list[bytes]:
    return sorted(np.ascontiguousarray(row).tobytes() for row in np.asarray(examples))


NAMES = [
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
    ("X_train", "Y_train", "X_test", "Y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
    ("train", "train_labels", "test", "test_labels"),
    ("xtrain", "ytrain", "xtest", "ytest"),
    ("trainX", "trainY", "testX", "testY"),
    ("train-data", "train-target", "test-data", "test-target"),
    ("training_set", "training_labels", "testing_set", "testing_labels"),
    ("imgs_tr", "class_tr", "imgs_te", "class_te"),
]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_names_that_people_use(tmp_path: Path, names: tuple[str, ...], suffix: str) -> None:
    arrays = dict(zip(names, (grey[:80], labels[:80], grey[80:], labels[80:]), strict=True))
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    loaded = data.load(str(path))
    assert (loaded.test.numpy() == grey[80:]).all()
    assert loaded.test_labels is not None and (loaded.test_labels.numpy() == labels[80:]).all()
    assert len(loaded.train) == 72 and len(loaded.validation) == 8
    assert by_content(torch.cat([loaded.train, loaded.validation])) == by_content(grey[:80])
    label_of = {row.tobytes(): label for row, label in zip(grey, labels, strict=True)}
    assert loaded.train_labels is not None
    for row, label in zip(loaded.train, loaded.train_labels, strict=True):
        assert label_of[row.numpy().tobytes()] == label


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_validation_sets(tmp_path: Path, name: str) -> None:
    names = ("train_images", f"{name}_images", "test_images")
    arrays = dict(zip(names, (grey[:60], grey[60:80], grey[80:]), strict=True))
    column = labels.reshape(-1, 1)  # as MedMNIST has it
    arrays |= {"train_labels": column[:60], f"{name}_labels": column[60:80]}
    loaded = load_npz(tmp_path, arrays)
    assert (loaded.validation.numpy() == grey[60:80]).all()
    assert loaded.validation_labels is not None and loaded.test_labels is None
    assert (loaded.validation_labels.numpy() == labels[60:80]).all()


@pytest.mark.parametrize(
    "names",
    [("X", "y"), ("images", "labels"), ("data", "target"), ("x", "classes"), ("imgs", "label")],
)
def test_examples_and_labels(tmp_path: Path, names: tuple[str, str]) -> None:
    loaded = load_npz(tmp_path, {names[0]: grey, names[1]: labels})
    assert len(loaded.test) == 10 and loaded.train_labels is not None
    assert not loaded.notes


def test_labels_of_other_types(tmp_path: Path) -> None:
    words = np.array(["cat", "dog", "ant"])[labels]
    loaded = load_npz(tmp_path, {"x": grey, "y": words})
    assert loaded.label_names == ("ant", "cat", "dog") and loaded.train_labels is not None
    one_hot = load_npz(tmp_path, {"x": grey, "y": np.eye(3)[labels]})
    whole = load_npz(tmp_path, {"x": grey, "y": labels.astype(float)})
    assert one_hot.train_labels is not None and whole.train_labels is not None
    assert torch.equal(one_hot.train_labels, whole.train_labels)
    named = load_npz(tmp_path, {"x": grey, "kind": labels, "more": labels}, labels="kind")
    assert named.train_labels is not None and torch.equal(named.train_labels, whole.train_labels)
    for no_labels, reason in [
        (draw.normal(size=100), "not whole"),
        (np.arange(100), "100 different numbers are not classes"),
        (draw.integers(0, 2, (100, 4)), "several for each example"),
        (np.array([f"name {i}" for i in range(100)]), "100 different ones"),
    ]:
        loaded = load_npz(tmp_path, {"x": grey, "y": no_labels})
        assert loaded.train_labels is None
        assert any("not used" in note and reason in note for note in loaded.notes)


def test_what_lies_beside_the_images_is_named(tmp_path: Path) -> None:
    arrays = {
        "imgs": (grey > 127).astype(np.uint8),
        "latents_values": draw.random((100, 3)),
        "metadata": np.array({"author": "x"}, dtype=object),
    }
    loaded = load_npz(tmp_path, arrays)
    assert loaded.columns == (data.ColumnSpec("", "binary", levels=2),)
    assert loaded.notes[:2] == (
        "a.npz: metadata not read, because it holds Python objects",
        "a.npz: latents_values not used",
    )


def test_names_of_columns(tmp_path: Path) -> None:
    table = {"data": draw.normal(size=(50, 3)), "feature_names": np.array(["u", "v", "w"])}
    loaded = load_npz(tmp_path, table)
    assert [column.name for column in loaded.columns] == ["u", "v", "w"] == [*loaded.names]
    assert load_npz(tmp_path, table, drop=["v"]).names == ("u", "w")


@pytest.mark.parametrize(
    ("arrays", "said", "parameter"),
    [
        ({"a": grey, "b": grey}, "holds a, b: it should hold one array", "name"),
        ({"labels": labels, "a": grey, "b": grey}, "holds a, b, labels: it should", "name"),
        ({"images": grey, "data": grey}, "holds images and data, both of which", "name"),
        ({"x": grey, "y": labels[:50]}, "50 labels for 100 examples", "labels"),
        ({"x_train": grey, "x_test": grey[:, :5]}, r"test set holds uint8 \[5, 5\]", "name"),
        ({"x_train": grey, "x_test": grey / 2}, "test set holds float64", "name"),
        ({"x": grey[:, 0, 0]}, r"has shape \[100\].*reshape it to \[N, 1\]", "name"),
        ({"x": grey, "y": np.where(labels > 1, np.nan, 1.0)}, "are missing or infinite", "labels"),
    ],
)
def test_arrays_that_do_not_go_together(
    tmp_path: Path, arrays: dict[str, Any], said: str, parameter: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_npz(tmp_path, arrays)
    assert caught.value.parameter == parameter and "\n" not in str(caught.value)


def test_a_label_array_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no array kind: it holds x, y") as caught:
        load_npz(tmp_path, {"x": grey, "y": labels}, labels="kind")
    assert caught.value.parameter == "labels"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_last_is_turned_and_said_so(tmp_path: Path, channels: int) -> None:
    last = draw.integers(0, 256, (50, 8, 9, channels)).astype(np.uint8)
    loaded = load_npy(tmp_path, last)
    assert loaded.kind.shape == (channels, 8, 9)
    everything = torch.cat([loaded.train, loaded.validation, loaded.test])
    assert by_content(everything) == by_content(np.moveaxis(last, -1, 1))
    (note,) = loaded.notes
    assert f"[N, 8, 9, {channels}]: taken as images [N, {channels}, 8, 9]" in note
    first = load_npy(tmp_path, np.moveaxis(last, -1, 1))
    assert not first.notes and first.fingerprint == loaded.fingerprint


@pytest.mark.parametrize("shape", [(24, 24, 5), (8, 8, 8), (9, 8, 9), (32, 32, 2)])
def test_axes_that_are_not_clear_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    sizes = re.escape(str([30, *shape]))
    with pytest.raises(InputError, match=f"shape {sizes}, and it is not clear which axis holds"):
        load_npy(tmp_path, np.zeros((30, *shape)))


def test_two_channels_first_are_channels(tmp_path: Path) -> None:
    loaded = load_npy(tmp_path, draw.random((30, 2, 8, 9)))
    assert loaded.kind.shape == (2, 8, 9) and not loaded.notes


def test_other_layouts_of_numbers(tmp_path: Path) -> None:
    plain = load_npy(tmp_path, grey / np.float32(300))
    swapped = load_npy(tmp_path, (grey / np.float32(300)).astype(">f4"))
    fortran = load_npy(tmp_path, np.asfortranarray(grey / np.float32(300)))
    assert plain.fingerprint == swapped.fingerprint == fortran.fingerprint
    half = load_npy(tmp_path, draw.normal(size=(50, 4, 4)).astype(np.float16))
    assert half.train.dtype == torch.float32
    double = load_npy(tmp_path, draw.normal(size=(50, 4)).astype(np.longdouble))
    assert double.train.dtype == torch.float64


def test_structured_arrays_are_tables(tmp_path: Path) -> None:
    rows = [(draw.normal(), int(draw.poisson(3)), bool(draw.integers(2))) for _ in range(60)]
    array = np.array(rows, dtype=[("size", "f8"), ("visits", "i4"), ("smoker", "?")])
    loaded = load_npy(tmp_path, array)
    assert [(column.name, column.kind) for column in loaded.columns] == [
        ("size", "real"),
        ("visits", "counts"),
        ("smoker", "binary"),
    ]


def test_infinite_values_are_counted_by_column(tmp_path: Path) -> None:
    rows = draw.normal(size=(50, 4))
    assert load_npy(tmp_path, rows, drop=["1", "2"]).names == ("0", "3")
    rows[:, 1:3], rows[7, 3] = 1.5, -np.inf
    with pytest.raises(InputError, match=r"infinite values in 1 of 4 columns: 3 \(1\)"):
        load_npy(tmp_path, rows)
    images = draw.normal(size=(50, 4, 4))
    images[3, 2, 1] = np.inf
    with pytest.raises(InputError, match="1 infinite values: replace them"):
        load_npy(tmp_path, images)


def test_kinds_are_overridden(tmp_path: Path) -> None:
    counts = draw.poisson(3, (80, 3))
    loaded = load_npy(tmp_path, counts, columns={"1": "real"}, labels="2")
    assert [column.kind for column in loaded.columns] == ["counts", "real"]
    assert loaded.train_labels is not None and loaded.train_labels.max() <= counts[:, 2].max()
    loaded = load_npy(tmp_path, counts, columns={"all": "levels 40"})
    assert loaded.columns == (data.ColumnSpec("", "levels", levels=40),)
    loaded = load_npy(tmp_path, counts, columns={"all": "real"})
    assert [column.kind for column in loaded.columns] == ["real"] * 3
    codes = draw.integers(0, 3, (80, 6, 5))
    with pytest.raises(InputError, match="pixels cannot be categories: choose levels"):
        load_npy(tmp_path, codes, columns={"all": "categories"})
    loaded = load_npy(tmp_path, codes[:, 0], columns={"all": "categories"})
    assert {column.categories for column in loaded.columns} == {("0", "1", "2")}
    assert isinstance(loaded.kind, Categories) and loaded.kind.sizes == (3,) * 5
    loaded = load_npy(tmp_path, codes, columns={"all": "counts"})
    assert loaded.columns == (data.ColumnSpec("", "counts"),)
    assert loaded.train.dtype == torch.int32


@pytest.mark.parametrize(
    ("array", "columns", "said"),
    [
        (grey, {"all": "binary"}, "pixels cannot be binary: .* from 0 to 255"),
        (grey, {"all": "levels 17"}, "'levels 17' has to be a number above the largest"),
        (grey, {"all": "unit_interval"}, "needs numbers from 0 to 1"),
        (grey, {"all": "colours"}, "cannot be 'colours': choose binary, levels"),
        (grey / 2, {"all": "counts"}, "needs whole numbers from 0 on.*not whole"),
        (grey, {"1": "real"}, "has no column 1: it holds images"),
        (grey[:, 0], {"7": "real"}, "has no column 7: its columns are 0, 1, 2, 3, 4"),
    ],
)
def test_kinds_that_do_not_fit(
    tmp_path: Path, array: np.ndarray, columns: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_npy(tmp_path, array, columns=columns)
    assert caught.value.parameter == "columns"


def resident() -> int:
    """Return how many bytes of this process are in memory."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="not Linux")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_file_is_mapped_and_read_in_little_memory(tmp_path: Path, dtype: str) -> None:
    shape = (250_000, 1000 // np.dtype(dtype).itemsize)  # 250 MB, most of it holes
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", dtype=dtype, shape=shape)
    mapped[:100] = 90 * draw.random((100, shape[1]))
    del mapped
    before = resident()
    part = read_npy(str(tmp_path / "a.npy"), tmp_path, data.ReadOptions()).train
    assert part.pages is not None and part.examples.shape == shape
    most = 0
    for _, chunk in row_chunks(part.examples.numpy(), pages=part.pages):
        most = max(most, resident() + int(chunk.max() > 1e9))  # the chunk is read
    data.row_hashes(part.examples, part.pages)
    assert max(most, resident()) - before < 120e6


def test_writing_to_a_mapped_tensor_leaves_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", grey)
    part = read_npy(str(tmp_path / "a.npy"), tmp_path, data.ReadOptions()).train
    part.examples.zero_()
    assert (np.load(tmp_path / "a.npy") == grey).all()


def test_torch_files(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    expected = load_npy(tmp_path, grey).fingerprint
    for content in (
        torch.from_numpy(grey),
        (torch.from_numpy(grey), torch.from_numpy(labels)),
        {"images": torch.from_numpy(grey), "epoch": 3},
    ):
        torch.save(content, path)
        assert data.load(str(path)).fingerprint == expected
        torch.save(content, path, _use_new_zipfile_serialization=False)
        assert data.load(str(path)).fingerprint == expected
    torch.save((torch.from_numpy(grey), torch.from_numpy(labels)), path)
    assert data.load(str(path)).train_labels is not None
    torch.save(torch.randn(50, 3, dtype=torch.bfloat16, requires_grad=True), path)
    assert data.load(str(path)).train.dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.nn.Linear(2, 2), "other than dense tensors, which is not loaded"),
        (torch.nn.Linear(2, 2).state_dict(), "holds weight, bias|holds bias, weight"),
        ([1, 2], "holds a list: expected a tensor"),
        (torch.zeros(50), r"has shape \[50\]"),
        (torch.zeros(50, 2, dtype=torch.complex64), "holds complex64"),
    ],
)
def test_torch_files_that_cannot_be_used(tmp_path: Path, content: Any, said: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=said) as caught:
        data.load(str(tmp_path / "a.pt"))
    assert caught.value.parameter == "name"


def test_torch_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        data.load(str(tmp_path / "a.pt"))
    (tmp_path / "a.pt").write_text("no tensor")
    with pytest.raises(InputError, match=r"not a file of torch\.save"):
        data.load(str(tmp_path / "a.pt"))
    torch.save(torch.zeros(500, 50), tmp_path / "b.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "b.pt").read_bytes()[:-500])
    with pytest.raises(InputError, match=r"not a file of torch\.save, or it is cut off"):
        data.load(str(tmp_path / "a.pt"))


def test_twenty_images_are_enough(tmp_path: Path) -> None:
    loaded = load_npy(tmp_path, grey[:20])
    assert [len(loaded.train), len(loaded.validation), len(loaded.test)] == [16, 2, 2]


def test_test_images_that_were_trained_on_are_named(tmp_path: Path) -> None:
    loaded = load_npz(tmp_path, {"train": grey[:80], "test": grey[75:]})
    assert any("5 of 25 test examples are training examples" in note for note in loaded.notes)
