"""Where data come from: one reader for each kind of file, listed in `SOURCES` (`dataset.py`).

| file | content |
|---|---|
| `digits.py` | scikit-learn's digits, which are bundled |
| `torchvision_sets.py` | MNIST and its relatives, which are downloaded |
| `numpy_files.py` | `.npy` and `.npz`, and SciPy's sparse matrices |
| `torch_files.py` | `.pt`: tensors, pairs and dicts |
| `named_arrays.py` | arrays with names, of `.npz`, `.pt` or a dict: which are labels, .. |
| `table_files.py` | `.csv`, `.tsv` and `.parquet` |
| `text_chunks.py`, `parquet_chunks.py` | the same in chunks, for tables larger than memory |
| `equal_chunks.py` | chunks of as many rows as are asked for |
| `text_format.py` | how a table of text is written: separator, decimal sign, header |
| `image_folders.py` | folders of pictures, with their classes and parts |
| `picture_files.py` | one picture: opened, scaled and cut |
| `picture_survey.py` | one pass over all pictures, which finds what they have in common |
| `picture_rows.py` | pictures that are opened when they are needed |
| `anndata_files.py` | `.h5ad`, and AnnData in memory |
| `h5ad_trial.py` | reads a `.h5ad` file in a process of its own, which a damaged one may kill |
| `h5ad_rows.py` | rows of a `.h5ad` file that are read when they are needed |
| `in_memory.py` | objects of `from_object`: arrays, tensors, DataFrames, dicts, .. |

A reader is a function `(name, root, options) -> Source`. It opens a file; `understanding` says what
the values are.
"""
