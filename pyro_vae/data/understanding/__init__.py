"""What values are: from arrays or DataFrames to stored examples and a `ColumnSpec` of each column.

| file | content |
|---|---|
| `arrays.py` | arrays of the parts -> `Source`: the entrance for all that are arrays or tensors |
| `data_frames.py` | tables whose columns differ in type, as pandas holds them |
| `matrices.py` | numbers [N, D], dense or sparse |
| `image_arrays.py` | images and series |
| `column_kinds.py` | one column after the other: numbers, words, dates |
| `odd_columns.py` | columns that are to be dropped, in one error |
| `rules.py` | the rules by which a kind is inferred, as tables and as code |
| `summaries.py` | the facts about numbers that the rules ask for |
| `skewness.py` | one of these facts |
| `given_kinds.py` | what the user says instead: `--columns`, `--drop`, `--labels` |
| `missing_values.py` | NaN, masks and infinite values |
| `storing.py` | values -> `uint8`, `int32`, `float32`, in memory or in their file |
| `labels.py` | labels -> 0, 1, .. |
| `parts.py` | training, validation and test examples: joined to be understood, and parted again |
"""
