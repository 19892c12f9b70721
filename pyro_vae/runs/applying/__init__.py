"""Putting a trained run to work on new data, in Python, without the data that it was trained on.

| file | content |
|---|---|
| `trained` | `load` and `Trained`: score, encode, reconstruct, sample, impute |
| `decoding` | moments of codes, what is typical of p(x given z), and draws from the model |
| `sampling`, `seeded_batches` | many examples, some at a time; batches with seeds of their own |
| `new_rows` | new data as a run stores its examples, or an error that says what does not fit |
| `new_columns` | the columns of new tables: found by name, and read as in training |
| `noise_of_rows` | pixels that are drawn from grey values: by row, in any order |
| `own_form` | examples in the form that the data had: tables with names of categories, or arrays |
| `files_of_rows` | the same on files: `score_file`, `encode_file`, .. |
| `output_file` | a file that is whole, or not there |
| `held_folder` | the hidden folder of what is not finished, which one process at a time has |
| `row_writer`, `picture_writer` | the files that are written: numbers, and grids of pictures |
| `pieces` | results of chunks in a hidden folder, until the file is whole |
| `requests` | all that results depend on: whether a call goes on after an interrupted one |
| `exported` | encoder and decoder as programs that run without pyro_vae |
| `exported_encoders` | what an exported encoder takes and gives, for each family of q(z given x) |
| `answers` | what `Trained` returns |
"""

from pyro_vae.runs.applying.answers import Codes, Imputed, RowScores
from pyro_vae.runs.applying.exported import export
from pyro_vae.runs.applying.files_of_rows import (
    encode_file,
    impute_file,
    reconstruct_file,
    sample_file,
    score_file,
)
from pyro_vae.runs.applying.output_file import Written
from pyro_vae.runs.applying.trained import Trained, load

__all__ = [
    "Codes",
    "Imputed",
    "RowScores",
    "Trained",
    "Written",
    "encode_file",
    "export",
    "impute_file",
    "load",
    "reconstruct_file",
    "sample_file",
    "score_file",
]
