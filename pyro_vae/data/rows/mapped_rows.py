"""Rows of a tensor that is mapped from a file."""

from mmap import mmap

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.rows.row_chunks import GIVE_BACK, give_back
from pyro_vae.data.rows.row_reader import RowReader

FAULT = 2**16  # bytes that are read together: 16 pages or so


class MappedRows(RowReader):
    """Rows of a mapped tensor, whose memory is given back to the system.

    Args:
        examples: shape [N, *event].
        pages: the file that they are mapped from.
    """

    def __init__(self, examples: Tensor, pages: mmap | None) -> None:
        super().__init__(examples.shape, examples.numpy().dtype)
        self._examples, self._pages, self._unreturned = examples, pages, 0

    def read(self, index: np.ndarray) -> np.ndarray:
        """Read rows; see `RowReader`."""
        found = torch.empty((len(index), *self.shape[1:]), dtype=self._examples.dtype)
        touched = max(self._examples[:1].nbytes, FAULT)
        size = max(1, GIVE_BACK // touched)
        for start in range(0, len(index), size):
            part = torch.from_numpy(index[start : start + size])
            torch.index_select(self._examples, 0, part, out=found[start : start + size])
            self._unreturned += len(part) * touched
            if self._pages is not None and self._unreturned > GIVE_BACK:
                give_back(self._pages)
                self._unreturned = 0
        return found.numpy().astype(self.dtype, copy=False)
