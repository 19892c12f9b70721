"""Data sets: examples for training, validation and testing, as tensors, and what they are.

An image is [H, W], or [C, H, W] in colour; a vector or the row of a table is [D]. Examples stay as
they are stored: `uint8`, `int32`, `float32` or `float64`. What they are, `ColumnSpec` says: it is
inferred by the rules in `understanding/rules.py`, unless the user gives it. The likelihood's kind
(`pyro_vae.kinds`) turns stored examples into what the likelihood and the encoder see.

`load` reads named sets, files and folders; `from_object` takes what is in memory. Data of more than
`LARGE` bytes (`rows/rows.py`) stay where they are, and are `Rows`: each batch is read when it is
needed, by a `RowReader`, and the next one is read ahead. How rows are stored changes no number:
neither their hashes, nor what they are taken for, nor how they are split.

In the order of the work:

| file or room | content |
|---|---|
| `dataset.py` | `load`, `from_object`, `Dataset`, and `SOURCES`, the list of readers |
| `sources/` | where data come from: a reader for each kind of file, returns a `Source` |
| `source.py` | `Source`, `Part`, and `ReadOptions`: what the user says about the data |
| `understanding/` | what values are: the rules, and what the user says instead |
| `column_spec.py` | `ColumnSpec`: what a column can be; the `Kind` of a data set of such columns |
| `fingerprint.py` | the rows' hashes, and what identifies a data set |
| `splitting.py` | training, validation and test examples; the same ones in any order of rows |
| `plain_rows.py` | the rows of a file as they are, for a model that is trained already |
| `number_types.py` | types of numbers that files have, and that torch has |
| `free_memory.py` | how much memory there is, and data that do not fit into it |
| `rows/` | rows that are read when they are needed |

Imports run from `dataset` to `sources`, `understanding`, `source`, `column_spec` and `rows`.

To add a source, write a function `(name, root, options) -> Source` in a new file of `sources/`, and
add it to `SOURCES` in `dataset.py`, under its name or under the suffix of the files that it reads.
The help and the error messages are made from `SOURCES`. The reader turns what it opened into arrays
or a DataFrame, and hands these to `understanding` (`source_of_arrays`, `understand_table`), which
applies the rules and what the user says. Or it leaves `Source.columns` empty: `load` then does
this, if all examples are dense tensors. To read rows when they are needed, subclass `RowReader`,
give `Rows` of it as a part's examples, and give `Source.columns`.
"""

from pyro_vae.data.column_spec import ColumnSpec
from pyro_vae.data.dataset import SOURCES, Dataset, describe_sources, from_object, load
from pyro_vae.data.fingerprint import fingerprint, row_hashes
from pyro_vae.data.rows import RowReader, Rows
from pyro_vae.data.source import Part, ReadOptions, Source
from pyro_vae.data.splitting import split_by_content

__all__ = [
    "SOURCES",
    "ColumnSpec",
    "Dataset",
    "Part",
    "ReadOptions",
    "RowReader",
    "Rows",
    "Source",
    "describe_sources",
    "fingerprint",
    "from_object",
    "load",
    "row_hashes",
    "split_by_content",
]
