"""Skewness of numbers, from all of them: it does not depend on their order, but for rounding."""

from typing import Any

import numpy as np

from pyro_vae.data.rows.row_chunks import row_chunks

CHUNK = 2**23  # bytes; their cubes and logarithms need memory, too


class _Moments:
    """The number, the mean, and the second and third central sums of columns, without NaN."""

    def __init__(self) -> None:
        self.count = np.zeros(1)
        self.mean = self.squares = self.cubes = np.zeros(1)

    def add(self, values: np.ndarray) -> None:
        """Add rows [N, D], by the formulas of Chan et al. for parts of a sample."""
        with np.errstate(over="ignore", invalid="ignore"):  # of values such as 1e300
            self._add(values)

    def _add(self, values: np.ndarray) -> None:
        ours, theirs = self.count, (~np.isnan(values)).sum(0).astype(np.float64)
        total = np.maximum(1, ours + theirs)
        mean = np.nansum(values, 0) / np.maximum(1, theirs)
        centred = np.where(np.isnan(values), 0, values - mean)
        squares, cubes = (centred**2).sum(0), (centred**3).sum(0)
        shift = mean - self.mean
        self.cubes = self.cubes + cubes + shift**3 * ours * theirs * (ours - theirs) / total**2
        self.cubes = self.cubes + 3 * shift * (ours * squares - theirs * self.squares) / total
        self.squares = self.squares + squares + shift**2 * ours * theirs / total
        self.mean = self.mean + shift * theirs / total
        self.count = ours + theirs

    def skewness(self) -> np.ndarray:
        """Return the third standardised moment; 0 for columns that are constant, or too large."""
        with np.errstate(over="ignore", invalid="ignore"):
            count = np.maximum(1, self.count)
            variance = self.squares / count
            scale = np.maximum(1e-300, variance + self.mean**2)
            varies = (variance > 1e-24 * scale) & np.isfinite(scale) & np.isfinite(self.cubes)
            return np.where(varies, self.cubes / count / np.where(varies, variance, 1) ** 1.5, 0)


def skewness(values: np.ndarray) -> float:
    """Return the third standardised moment of numbers [N]; 0 if they are constant."""
    moments = _Moments()
    moments.add(values[:, None])
    return float(moments.skewness()[0])


def skewness_of_rows(array: Any, columns: list[int] | None) -> list[tuple[float, float]]:
    """Return the skewness of positive numbers, and that of their logarithms, in one pass.

    Args:
        array: numbers [N, ...].
        columns: the columns of [N, D] that are looked at, each for itself; None takes all numbers
            together.
    """
    plain, logarithms = _Moments(), _Moments()
    for _, chunk in row_chunks(array, CHUNK):
        values = chunk.reshape(-1, 1) if columns is None else chunk[:, columns]
        values = values.astype(np.float64)
        plain.add(values)
        logarithms.add(np.log(values))
    return list(zip(plain.skewness().tolist(), logarithms.skewness().tolist(), strict=True))
