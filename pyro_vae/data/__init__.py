"""Data sets: examples for training, validation and testing, as tensors.

An image is [H, W], or [C, H, W] in colour; a vector is [D]. Examples stay as they are stored:
`uint8` or `float32`. The likelihood's kind (`pyro_vae.kinds`) decides which values are allowed, and
turns stored examples into what the likelihood and the encoder see.

To add a source, write a function `(name, root) -> Source` in a new file of this folder, and add it
to `SOURCES` in `dataset.py`, under its name or under the suffix of the files that it reads. No
other file changes: the help and the error messages are made from `SOURCES`.
"""

from pyro_vae.data.dataset import SOURCES, Dataset, describe_sources, load
from pyro_vae.data.source import Part, Source

__all__ = ["SOURCES", "Dataset", "Part", "Source", "describe_sources", "load"]
