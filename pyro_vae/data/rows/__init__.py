"""Rows that are read when they are needed. Nothing here knows what the values are.

| file | content |
|---|---|
| `rows.py` | `Rows`, which batches are taken of; `LARGE`, the size from which on |
| `row_reader.py` | `RowReader`: how rows are read, by their indices; `SomeColumns` of another one |
| `mapped_rows.py` | rows of an array that is mapped from a file |
| `sparse_rows.py` | rows of a sparse matrix, which become dense |
| `row_chunks.py` | all rows, a piece at a time; mapped pages are given back |
| `workers.py` | threads that read ahead |

A reader for one kind of file is beside the source that uses it: `sources/picture_rows.py` and
`sources/h5ad_rows.py`.
"""

from pyro_vae.data.rows.row_reader import RowReader
from pyro_vae.data.rows.rows import LARGE, Rows, batches

__all__ = ["LARGE", "RowReader", "Rows", "batches"]
