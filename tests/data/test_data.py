"""Data sets, splits, and what is said of arrays that cannot be used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import Tensor

from pyro_vae import InputError, data
from pyro_vae.data import dataset
from pyro_vae.data.sources.digits import read_digits
from pyro_vae.kinds import Binary, Incomplete, Levels
from pyro_vae.runs.options import Options

PLACES = [ROOT / "data", ROOT / "../shared/data"]
MNIST = next((place for place in PLACES if (place / "MNIST/raw").exists()), None)


def rows(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def test_digits_are_split_without_overlap() -> None:
    digits = data.load("digits")
    assert digits.kind.shape == (8, 8) and digits.train.dtype == torch.uint8
    sizes = [len(digits.train), len(digits.validation), len(digits.test)]
    assert sizes == [1457, 161, 179] and sum(sizes) == 1797
    everything = torch.cat([digits.train, digits.validation, digits.test])
    assert sorted(rows(everything)) == sorted(
        rows(read_digits("digits", Path(), data.ReadOptions()).train.examples)
    )
    assert (everything.min(), everything.max()) == (0, 16) and str(digits.kind) == "17 levels"


def test_split_depends_on_the_seed_alone() -> None:
    first, again, other = (data.load("digits", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.test, again.test) and torch.equal(first.train, again.train)
    assert not torch.equal(first.test, other.test)


@pytest.mark.parametrize(
    "shape", [(40, 7), (40, 5, 3), (40, 28, 28), (40, 3, 5, 4), (40, 1, 5, 4), (40, 3, 4, 3)]
)
@pytest.mark.parametrize("dtype", ["uint8", "float64", "float32", "bool"])
def test_arrays(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape)
    array = images.astype("uint8") if dtype == "uint8" else (images / 255).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    loaded = data.load(str(tmp_path / "a.npy"))
    assert loaded.kind.shape == shape[1:]
    assert [len(loaded.train), len(loaded.validation), len(loaded.test)] == [32, 4, 4]
    everything = torch.cat([loaded.train, loaded.validation, loaded.test])
    stored = {"bool": "uint8", "float64": "float64" if len(shape) == 2 else "float32"}
    expected = array.astype(stored.get(dtype, dtype))
    assert sorted(rows(everything)) == sorted(image.tobytes() for image in expected)
    np.savez(tmp_path / "a.npz", anything=array)
    assert torch.equal(data.load(str(tmp_path / "a.npz")).test, loaded.test)


def test_arrays_that_come_split(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    train, validation, test = (draw.integers(0, 99, (n, 2), dtype=np.uint8) for n in (20, 5, 7))
    np.savez(tmp_path / "a.npz", train=train, test=test)
    loaded = data.load(str(tmp_path / "a.npz"))
    assert [len(loaded.train), len(loaded.validation), len(loaded.test)] == [18, 2, 7]
    np.savez(tmp_path / "b.npz", train=train, validation=validation, test=test)
    loaded = data.load(str(tmp_path / "b.npz"))
    assert torch.equal(loaded.train, torch.from_numpy(train))
    assert torch.equal(loaded.validation, torch.from_numpy(validation))
    assert torch.equal(loaded.test, torch.from_numpy(test))


good = np.zeros((30, 4))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (good + np.nan, "has no values: all are missing"),
        (good.reshape(30, 2, 2) + np.nan, "has no values: all are missing"),
        (good + np.inf, "infinite values in 4 of 4 columns: 0 \\(30\\)"),
        (good.astype(complex), "complex128"),
        (good.astype(str), "<U"),
        (good[:, 0], "shape"),
        (good[:, :0], "shape"),
        (good.reshape(30, 1, 2, 2, 1), "shape"),
        (np.zeros((30, 8, 8, 5)), r"shape \[30, 8, 8, 5\].*transpose it to \[N, C, H, W\]"),
        (np.eye(3, 4), "set of .* is empty"),
        (good[:0], "is empty: it has no rows"),
        (good.astype("datetime64[s]"), "dates are not numbers"),
        (np.array([{}], dtype=object), "holds Python objects: save an array of numbers"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, array: Any, said: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=said):
        data.load(str(tmp_path / "a.npy"))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        data.load(str(tmp_path / "none.npy"))
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(InputError, match="not a NumPy array"):
        data.load(str(tmp_path / "text.npy"))
    np.save(tmp_path / "cut.npy", good)
    content = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[:-5])
    with pytest.raises(InputError, match="not a NumPy array"):
        data.load(str(tmp_path / "cut.npy"))
    np.savez(tmp_path / "two.npz", a=good, b=good)
    with pytest.raises(InputError, match="holds a, b"):
        data.load(str(tmp_path / "two.npz"))
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="holds Python objects"):
        data.load(str(tmp_path / "objects.npz"))
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match="not a NumPy array"):
        data.load(str(tmp_path / "text.npz"))
    np.savez(tmp_path / "odd.npz", train=good, test=good[:, :3])
    with pytest.raises(InputError, match="make them alike"):
        data.load(str(tmp_path / "odd.npz"))
    with pytest.raises(InputError, match="choose digits, mnist"):
        data.load("cifar")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0])
def test_fractions(fraction: float) -> None:
    for name in ("test_fraction", "validation_fraction"):
        with pytest.raises(InputError, match="fraction") as caught:
            data.load("digits", **{name: fraction})
        assert caught.value.parameter == name


def test_missing_set_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import KMNIST

    def offline(self: KMNIST) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(KMNIST, "download", offline)
    with pytest.raises(
        InputError, match=r"kmnist could not be read .* \(no route to host\).*name the folder"
    ) as caught:
        data.load("kmnist", tmp_path)
    assert caught.value.parameter == "root"


def test_a_new_source_is_a_function_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(name: str, root: Path, options: data.ReadOptions) -> data.Source:
        numbers = torch.from_numpy(np.loadtxt(name, dtype=np.float32))
        return data.Source(data.Part(numbers, torch.arange(len(numbers))))

    monkeypatch.setitem(dataset.SOURCES, ".txt", read_text)
    np.savetxt(tmp_path / "a.txt", np.arange(60.0).reshape(30, 2) + 0.5)
    loaded = data.load(str(tmp_path / "a.txt"))
    assert torch.equal(loaded.test[:, 0], 2.0 * loaded.test_labels + 0.5)
    assert [len(loaded.train), len(loaded.validation), len(loaded.test)] == [24, 3, 3]
    assert [column.kind for column in loaded.columns] == ["real", "real"]  # by the rules
    with pytest.raises(
        InputError, match=r"mnist, .* or the path of a .npy or .npz .* or .txt file, or of a folder"
    ):
        data.load("cifar")


def test_what_a_source_says_stays_where_kinds_are_inferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, labels, the usual kind and missing values, of a source that gives no columns."""
    draw = np.random.default_rng(0)
    pixels = torch.from_numpy(draw.integers(0, 256, (40, 4)).astype(np.uint8))
    weights = torch.from_numpy(draw.normal(size=(40, 2)).astype(np.float32))
    weights[3, 1] = torch.nan

    def read(name: str, root: Path, options: data.ReadOptions) -> data.Source:
        labels = torch.arange(40) % 2
        examples, names = (pixels, "abcd") if "pixels" in name else (weights, ("height", "weight"))
        return data.Source(
            data.Part(examples, labels),
            names=tuple(names),
            label_names=("no", "yes"),
            usual=Binary if "pixels" in name else None,
        )

    monkeypatch.setitem(dataset.SOURCES, ".own", read)
    loaded = data.load(str(tmp_path / "pixels.own"))
    assert isinstance(loaded.kind, Levels) and loaded.kind.usual is Binary
    assert loaded.names == ("a", "b", "c", "d") and loaded.label_names == ("no", "yes")
    assert loaded.train_labels is not None
    loaded = data.load(str(tmp_path / "weights.own"), columns={"weight": "real"})
    assert loaded.names == ("height", "weight") and isinstance(loaded.kind, Incomplete)
    loaded = data.load(str(tmp_path / "weights.own"), labels="height", columns={"weight": "real"})
    assert loaded.names == ("weight",) and loaded.train.shape[1:] == (1,)


class Halves(data.RowReader):
    """Row i holds i / 2."""

    def __init__(self) -> None:
        super().__init__((50, 1), np.dtype(np.float32))

    def read(self, index: np.ndarray) -> np.ndarray:
        return (index[:, None] / 2).astype(np.float32)


@pytest.mark.parametrize("layout", ["rows", "sparse"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_kinds_of_rows_that_are_not_in_memory_are_not_inferred(
    monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    examples = data.Rows(Halves()) if layout == "rows" else torch.eye(50).to_sparse_csr()
    source = data.Source(data.Part(examples))
    monkeypatch.setitem(dataset.SOURCES, "own", lambda name, root, options: source)
    with pytest.raises(InputError, match=r"own: rows .* let it give Source\.columns"):
        data.load("own")
    given = replace(source, columns=(data.ColumnSpec("", "real"),))
    monkeypatch.setitem(dataset.SOURCES, "own", lambda name, root, options: given)
    assert len(data.load("own").train) == 41


def test_help_names_every_source() -> None:
    assert data.describe_sources() in " ".join(Options.__doc__.split())


def test_emnist_stands_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMNIST's files hold each image transposed."""
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    stored = np.arange(30 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(30, 28, 28)
    for part in ("train", "test"):
        header = np.array([2051, 30, 28, 28], dtype=">i4").tobytes()
        (raw / f"emnist-balanced-{part}-images-idx3-ubyte").write_bytes(header + stored.tobytes())
        labels = np.array([2049, 30], dtype=">i4").tobytes() + bytes(30)
        (raw / f"emnist-balanced-{part}-labels-idx1-ubyte").write_bytes(labels)
    test = data.load("emnist", tmp_path).test
    assert torch.equal(test, torch.from_numpy(stored).transpose(1, 2))


class FakeCIFAR10:
    """What torchvision's class has, of a few images."""

    def __init__(self, root: Path, train: bool, download: bool) -> None:
        assert download
        count = 40 if train else 20
        self.data = np.random.default_rng(train).integers(256, size=(count, 32, 32, 3), dtype="u1")
        self.targets = [i % 10 for i in range(count)]


class FakeSVHN:
    def __init__(self, root: Path, split: str, download: bool) -> None:
        of_cifar = FakeCIFAR10(root, split == "train", download)
        self.data = of_cifar.data.transpose(0, 3, 1, 2)
        self.labels = np.array(of_cifar.targets)


@pytest.mark.parametrize(("name", "fake"), [("cifar10", FakeCIFAR10), ("svhn", FakeSVHN)])
def test_sets_in_colour(
    name: str, fake: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"torchvision.datasets.{name.upper()}", fake)
    loaded = data.load(name, tmp_path)
    assert type(loaded.kind) is Levels and loaded.kind.shape == (3, 32, 32)
    assert loaded.kind.levels == 256
    stored = FakeCIFAR10(tmp_path, train=False, download=True)
    assert torch.equal(loaded.test, torch.from_numpy(stored.data).permute(0, 3, 1, 2))
    assert loaded.test_labels.tolist() == stored.targets
    assert len(loaded.train) + len(loaded.validation) == 40


@pytest.mark.skipif(MNIST is None, reason="MNIST is not here")
def test_mnist() -> None:
    assert MNIST is not None
    mnist = data.load("mnist", MNIST)
    assert [len(mnist.train), len(mnist.validation), len(mnist.test)] == [54_000, 6_000, 10_000]
    assert mnist.kind.shape == (28, 28) and mnist.train.dtype == torch.uint8
    everything = torch.cat([mnist.train, mnist.validation]).double()
    assert abs(everything.mean().item() / 255 - 0.1307) < 1e-4  # the known mean of the 60,000
