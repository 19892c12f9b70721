"""Data sets: examples for training, validation and testing, as tensors, and what they are.

An image is [H, W], or [C, H, W] in colour; a vector or the row of a table is [D]. Examples stay as
they are stored: `uint8`, `int32`, `float32` or `float64`. What they are, `ColumnSpec` says: it is
inferred by the rules in `rules.py`, unless the user gives it. The likelihood's kind
(`pyro_vae.kinds`) turns stored examples into what the likelihood and the encoder see.

`load` reads named sets, files and folders; `from_object` takes what is in memory. Data of more than
`LARGE` bytes (`rows.py`) stay where they are, and are `Rows`: each batch is read when it is needed,
by a `RowReader`, and the next one is read ahead. How rows are stored changes no number: neither
their hashes, nor what they are taken for, nor how they are split.

To add a source, write a function `(name, root, options) -> Source` in a new file of this folder,
and add it to `SOURCES` in `dataset.py`, under its name or under the suffix of the files that it
reads. It can leave `Source.columns` empty, to have the rules applied. No other file changes: the
help and the error messages are made from `SOURCES`. To read rows when they are needed, subclass
`RowReader`, and give `Rows` of it as a part's examples.
"""

from pyro_vae.data.dataset import SOURCES, Dataset, describe_sources, from_object, load
from pyro_vae.data.fingerprint import fingerprint, row_hashes, split_by_content
from pyro_vae.data.rows import Rows
from pyro_vae.data.source import ColumnSpec, Part, ReadOptions, Source

__all__ = [
    "SOURCES",
    "ColumnSpec",
    "Dataset",
    "Part",
    "ReadOptions",
    "Rows",
    "Source",
    "describe_sources",
    "fingerprint",
    "from_object",
    "load",
    "row_hashes",
    "split_by_content",
]
