"""Data files of all sources as an adversary would write them, each from a number."""

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from PIL import Image

DTYPES = ["u1", "i1", "u2", ">u2", "i4", ">i4", "i8", "u8", "f2", "f4", ">f4", "f8", ">f8", "g"]
DTYPES += ["c8", "?", "M8[D]", "m8[s]", "S5", "U5", "V3", "i4,f4"]
SHAPES: list[tuple[int, ...]] = [
    (40, 3),
    (40, 3),
    (40, 3),
    (60, 4, 4),
    (30, 3, 4, 4),
    (30, 4, 4, 3),
]
SHAPES += [(), (0,), (5,), (40,), (40, 0), (0, 3), (1, 3), (2, 3), (40, 1), (4, 5, 2, 2, 2)]
NAMES = ["x", "train", "test", "y", "labels", "x_train", "y_train", "data", "mask", "missing"]
NAMES += ["observed", "columns", "feature_names", "arr_0", "images", "a", "../b", "", "é", "x_test"]


class Executed:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, ("executed", "w")


def numbers(rng: Random, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers of one of many sorts, as floats."""
    draw = np.random.default_rng(rng.randrange(2**32))
    sort = rng.randrange(12)
    x = draw.normal(size=shape)
    if sort == 0:
        x = (x > 0).astype(float)
    elif sort == 1:
        x = draw.integers(0, 256, shape).astype(float)
    elif sort == 2:
        x = np.full(shape, rng.choice([0.0, 1.0, np.nan, np.inf, -1.0]))
    elif sort == 3:
        x = np.where(draw.random(shape) < 0.2, np.nan, x)
    elif sort == 4:
        x = np.where(draw.random(shape) < 0.1, rng.choice([np.inf, -np.inf]), x)
    elif sort == 5:
        x = x * rng.choice([1e300, 1e38, 1e-320, 1e-40, 1e20])
    elif sort == 6:
        x = draw.poisson(3.0, shape).astype(float)
    elif sort == 7:
        x = np.exp(10 * x)
    elif sort == 8:
        x = draw.random(shape)
    elif sort == 9:
        x = draw.integers(0, 4, shape) * rng.choice([1.0, 1e15, 2.0**62])
    return np.asarray(x)


def array(rng: Random) -> np.ndarray:
    """Return an array of any type and shape."""
    x = numbers(rng, rng.choice(SHAPES))
    with np.errstate(all="ignore"):
        if rng.random() < 0.03:
            return np.array([Executed(), None, {}], dtype=object)
        dtype = rng.choice(["f4", "f8", "u1", *DTYPES])
        if dtype in ("S5", "U5"):
            return x.astype("U5").astype(dtype)
        if dtype in ("V3", "i4,f4"):
            return np.zeros(x.shape, dtype)
        x = np.nan_to_num(x) if dtype[0] in "Mm" else x
        found = x.astype("i8").astype(dtype) if dtype[0] in "Mm" else x.astype(dtype)
    return np.asfortranarray(found) if rng.random() < 0.2 else found


def npy(rng: Random, path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array(rng), allow_pickle=True)
    content = buffer.getvalue()
    if rng.random() < 0.1:  # a header that promises much
        size = rng.choice([10**6, 10**9, 10**12, 10**18, 10**25, -5])
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size}, 3), }}"
        header = header.ljust(117) + "\n"
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        content += bytes(480)
    elif rng.random() < 0.03:
        content = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31 - 1) + bytes(1000)
    path.write_bytes(content)


def sparse_matrix(rng: Random) -> dict[str, np.ndarray]:
    """Return the parts of a sparse matrix by rows (CSR); in half of them one part is wrong."""
    x = np.nan_to_num(numbers(rng, (40, 3)).astype("f8"), posinf=0.0, neginf=0.0)
    places = np.nonzero(x)
    starts = np.concatenate([[0], np.cumsum(np.bincount(places[0], minlength=40))])
    parts = {"data": x[places], "indices": places[1], "indptr": starts}
    name = rng.choice([*parts, "", "", ""])
    if name and len(parts[name]):
        part = parts[name].copy()
        part[rng.randrange(len(part))] = rng.choice([-1, 2, 3, 10**3, 10**7, 2**31 - 1])
        parts[name] = rng.choice([part, part, part[:-1], part.astype("f4"), array(rng)])
    return parts


def npz(rng: Random, path: Path) -> None:
    if rng.random() < 0.05:
        layout = rng.choice([b"csr", b"csr", b"csc"])
        shape = np.array([40, 3] if layout == b"csr" else [3, 40])
        np.savez(path, format=layout, shape=shape, **sparse_matrix(rng))
        return
    if rng.random() < 0.05:  # what says that it is a sparse matrix of SciPy
        size = rng.choice([3, 3, 10**6, 10**10, 10**17])
        parts = {"format": rng.choice([b"csr", b"coo", b"csc", b"bsr", b"dia", b"?"])}
        arrays = {name: array(rng) for name in ("data", "indices", "indptr", "row", "col")}
        np.savez(path, **parts, **arrays, shape=np.array([size, 3]))
        return
    arrays = {rng.choice(NAMES): array(rng) for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3]))}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice([0, 8])) as archive:
        for name, each in arrays.items():
            inner = io.BytesIO()
            np.save(inner, each, allow_pickle=True)
            inside = f"{name}.npy" if rng.random() < 0.97 else name or "without a name"
            archive.writestr(inside, inner.getvalue())
        if rng.random() < 0.05:  # a bomb: gigabytes of zeros in megabytes
            size = rng.choice([10**8, 3 * 10**9, 10**12])
            header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size // 10}, 10), }}"
            header = header.ljust(117) + "\n"
            head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
            with archive.open(f"{rng.choice(NAMES)}.npy", "w") as file:
                file.write(head)
                for _ in range(4):
                    file.write(bytes(10**7))
    path.write_bytes(buffer.getvalue())


def pt(rng: Random, path: Path) -> None:
    def tensor() -> torch.Tensor:
        x = torch.from_numpy(numbers(rng, rng.choice(SHAPES)).astype("f4"))
        sort = rng.randrange(14)
        if sort == 0:
            return torch.zeros(1).expand(rng.choice([10**5, 10**9, 10**13]), 3)
        if sort == 1 and x.ndim == 2:
            return x.to_sparse()
        if sort == 2:
            return x.bfloat16()
        if sort == 3:
            return x.to(torch.complex64)
        if sort == 4:
            return torch.quantize_per_tensor(x.nan_to_num(0, 0, 0), 0.1, 0, torch.qint8)
        if sort == 5:
            return x.requires_grad_()
        if sort == 6 and x.ndim == 2 and x.numel():
            return x.nan_to_num().to_sparse_csr()
        if sort == 11:
            parts = sparse_matrix(rng)
            try:
                values, inside, starts = (torch.tensor(part.tolist()) for part in parts.values())
                if rng.random() < 0.5:
                    return torch.sparse_csr_tensor(
                        starts, inside, values, (40, 3), check_invariants=False
                    )
                places = torch.stack([torch.arange(len(inside)) % 40, inside])
                return torch.sparse_coo_tensor(places, values, (40, 3), check_invariants=False)
            except (RuntimeError, TypeError, ValueError, OverflowError):
                return x
        if sort == 7:
            return torch.empty(x.shape, device="meta")
        if sort == 8:
            return x.to(torch.float8_e5m2)
        if sort == 9:
            return x.bool()
        if sort == 10:
            return x.nan_to_num(0, 0, 0).long()
        return x

    sort = rng.randrange(9)
    what: Any = tensor()
    if sort == 0:
        what = {rng.choice(NAMES): tensor() for _ in range(rng.randrange(4))}
    elif sort == 1:
        what = [tensor() for _ in range(rng.randrange(4))]
    elif sort == 2:
        what = rng.choice([Executed(), {"x": Executed()}, None, 3, "x", {1: {2: tensor()}}, {}])
    elif sort == 3:
        what = (tensor(), torch.arange(40))
    elif sort == 4:
        what = torch.nn.Linear(2, 2).state_dict()
    torch.save(what, path, _use_new_zipfile_serialization=rng.random() < 0.8)


def table(rng: Random) -> pd.DataFrame:
    """Return a table with columns of all sorts."""
    rows = rng.choice([0, 1, 2, 30, 30, 30, 80])
    columns: dict[Any, Any] = {}
    for j in range(rng.choice([0, 1, 2, 3, 4, 6])):
        name = rng.choice([f"c{j}", "x", "id", "label", "a.b", "m, kg", "", "é", "=1+1", "all"])
        sort = rng.randrange(8)
        values: Any = numbers(rng, (rows,))
        if sort == 0:
            values = [rng.choice(["a", "b", "c", None]) for _ in range(rows)]
        elif sort == 1:
            values = [f"t{rng.random()}" for _ in range(rows)]
        elif sort == 2:
            values = [rng.choice([True, False]) for _ in range(rows)]
        elif sort == 3:
            values = pd.to_datetime(["2020-01-01"] * rows)
        elif sort == 4:
            values = [
                rng.choice(["1", "2.5", "NA", "-", "1e400", "0x10", "1_000"]) for _ in range(rows)
            ]
        elif sort == 5:
            values = pd.Categorical([rng.choice(["u", "v"]) for _ in range(rows)])
        columns[name] = values
    return pd.DataFrame(columns)


def text(rng: Random, path: Path) -> None:
    separator = "\t" if path.suffix == ".tsv" else rng.choice([",", ",", ",", ";", "|", " "])
    content = table(rng).to_csv(index=rng.random() < 0.2, sep=separator).encode()
    sort = rng.randrange(24)
    if sort == 0:
        content = content.replace(b",", b"\x00", 3)
    elif sort == 1:
        content += b'"an open quote,\n' * 3
    elif sort == 2:
        content = content.decode().encode(rng.choice(["utf-16", "utf-8-sig", "utf-32"]))
    elif sort == 3:
        content += b"1" * rng.choice([1000, 200_000, 5_000_000])
    elif sort == 4:
        content = b",".join(b"c%d" % j for j in range(rng.choice([2000, 60_000]))) + b"\n1,2\n"
    elif sort == 5:
        content = content.replace(b"\n", rng.choice([b"\r", b"\r\n", b"\n\n", b""]))
    elif sort == 6:
        content += b"1,2,3,4,5,6,7,8,9\n" * 2
    elif sort == 7:
        content = b"\xff\xfe" + content
    path.write_bytes(content)


def parquet(rng: Random, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if rng.random() < 0.06:  # a bomb: many rows of one value
        rows = rng.choice([10**6, 3 * 10**6])
        pq.write_table(pa.table({"a": pa.array(np.zeros(rows, "f8"))}), path)
        return
    if rng.random() < 0.2:
        column: Any = rng.choice([[[1], [2, 3]], [{"a": 1}, {"a": 2}], [b"x", b"y"], [None, None]])
        pq.write_table(pa.table({"a": column, "b": [1.0, 2.0]}), path)
        return
    found = table(rng)
    found.columns = [f"{name}{j}" for j, name in enumerate(found.columns)]
    found.to_parquet(path)


def h5ad(rng: Random, path: Path) -> None:
    with h5py.File(path, "w") as file:
        sort = rng.randrange(8)
        if sort == 0:
            size = rng.choice([10**5, 10**9, 10**12])
            file.create_dataset("X", (size, 300), "f4", chunks=(1000, 300), compression="gzip")
        elif sort == 1:
            group = file.create_group("X")
            group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
            group.attrs["shape"] = np.array([rng.choice([40, 10**6, 10**14]), 3])
            for name, part in sparse_matrix(rng).items():
                group[name] = np.zeros(3) if part.dtype.kind in "MmUOVSg" else part
        elif sort > 2:
            found = array(rng)
            file["X"] = np.zeros((40, 3)) if found.dtype.kind in "MmUOVSg" else found
        rows = file["X"].shape[0] if "X" in file and getattr(file["X"], "shape", ()) else 40
        columns = [3, 3, 4, 0]
        if "X" in file and len(getattr(file["X"], "shape", ())) == 2:
            columns += 3 * [min(file["X"].shape[1], 1000)]
        for name, length in (("obs", min(rows, 100)), ("var", rng.choice(columns))):
            group = file.create_group(name)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
            group.attrs["_index"] = "_index"
            group.attrs["column-order"] = np.array([], dtype="S1")
            group["_index"] = np.array([f"r{i}" for i in range(length)], dtype="S5")
        if rng.random() < 0.7:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
                file.create_group(name).attrs.update(
                    {"encoding-type": "dict", "encoding-version": "0.1.0"}
                )


def folder(rng: Random, path: Path) -> None:
    path.mkdir()
    for i in range(rng.choice([0, 1, 3, 12])):
        mode = rng.choice(["L", "L", "L", "RGB", "RGBA", "P", "1", "I;16", "CMYK", "F"])
        side = rng.choice([4, 4, 4, 5, 1, 300])
        inside = path / rng.choice(["", "", "a", "b", "train", "test/a", ".hidden"])
        inside.mkdir(parents=True, exist_ok=True)
        picture = Image.new(mode, (side, 4), rng.choice([0, 1]))
        if mode == "L":
            picture = Image.fromarray(np.random.default_rng(i).integers(0, 255, (side, 4), "u1"))
        file = inside / f"{i}.{rng.choice(['png', 'png', 'png', 'tif', 'bmp', 'gif', 'jpg'])}"
        try:
            picture.save(file)
        except (OSError, ValueError, KeyError):
            file.write_bytes(b"no picture")
        if rng.random() < 0.1:
            damage(rng, file)
    if rng.random() < 0.05:  # a picture of many pixels
        Image.new("1", (30_000, 12_000)).save(path / "bomb.png")
    if rng.random() < 0.1:
        (path / "notes.txt").write_text("x")
    if rng.random() < 0.05:
        (path / "link.png").symlink_to("/dev/zero")


WRITERS: dict[str, Callable[[Random, Path], None]] = {
    **{".npy": npy, ".npz": npz, ".pt": pt, ".csv": text, ".tsv": text},
    **{".parquet": parquet, ".h5ad": h5ad, "": folder},
}


def damage(rng: Random, path: Path) -> None:
    """Damage a file, as disks and adversaries do."""
    content = bytearray(path.read_bytes())
    sort = rng.randrange(7)
    at = rng.randrange(len(content) + 1)
    if sort == 0:
        content = content[:at]
    elif sort == 1:
        for _ in range(rng.choice([1, 1, 5, 50])):
            if content:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif sort == 2:
        content[at : at + rng.choice([10, 1000])] = bytes(rng.choice([10, 1000]))
    elif sort == 3:
        content = content + rng.randbytes(100)
    elif sort == 4:
        content = bytearray(rng.randbytes(rng.choice([1, 100, 5000])))
    elif sort == 5:
        content = bytearray()
    else:
        content = bytearray(pickle.dumps(rng.choice([Executed(), {"x": Executed()}, [1, 2]])))
    path.write_bytes(bytes(content))


def write(rng: Random, where: Path) -> tuple[str, Path]:
    """Write a data file; return what it is, and its path."""
    suffix = rng.choice([*WRITERS, ".npy", ".npz", ".pt", ".csv"])
    path = where / f"given{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        WRITERS[suffix](rng, path)
    what = suffix or "folder"
    if suffix and rng.random() < 0.4:
        damage(rng, path)
        what += ", damaged"
    return what, path


def options(rng: Random) -> dict[str, Any]:
    """Return what a user may say about the data."""
    found: dict[str, Any] = {}
    if rng.random() < 0.15:
        kind = rng.choice(["real", "counts", "binary", "positive", "categories", "ordered a < b"])
        found["columns"] = {rng.choice(["all", "c0", "x", "nothing"]): kind}
    if rng.random() < 0.1:
        found["drop"] = rng.choice(["c0", "x,c1", "nothing", ",,", '"'])
    if rng.random() < 0.1:
        found["labels"] = rng.choice(["y", "label", "c1", "nothing"])
    if rng.random() < 0.05:
        found["image_size"] = rng.choice([1, 4, 10_000])
    if rng.random() < 0.1:
        found["hold_out_entries"] = rng.choice([0.1, 0.99])
    if rng.random() < 0.08:
        found["condition"] = rng.choice(["c0", "labels", "nothing", "c0,c1"])
    if rng.random() < 0.05:
        found["test_fraction"] = rng.choice([0.0, 0.99, 1.0, -1.0])
    return found
