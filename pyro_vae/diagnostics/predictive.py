"""Predictive checks: do images drawn from the model look like the data, by statistics of images?

A bound on log p(x) says which of two models is better, and not what is wrong with either. A
statistic T(x) whose distribution under the model is not that in the data says so (Gelman, Meng &
Stern 1996).
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Check:
    """A statistic, for images of the data, and for images drawn from the model.

    Attributes:
        data: its values, shape [N].
        model: its values, shape [M].
    """

    data: np.ndarray
    model: np.ndarray

    @property
    def difference(self) -> float:
        """The mean under the model, less that in the data."""
        return float(self.model.mean() - self.data.mean())

    @property
    def se(self) -> float:
        """The standard error of the difference, over images of both."""
        from scipy import stats

        return float(np.hypot(stats.sem(self.data), stats.sem(self.model)))

    @property
    def p_value(self) -> float:
        """Of the two having one distribution, by the Kolmogorov-Smirnov test.

        Conservative where the statistic has few values, as counts have.
        """
        from scipy import stats

        return float(stats.ks_2samp(self.data, self.model).pvalue)


def check(data: Tensor, drawn: Tensor) -> dict[str, Check]:
    """Compare images of the data with images drawn from a model.

    Args:
        data: intensities in [0, 1], shape [N, H, W], [N, C, H, W] or [N, D].
        drawn: the same, shape [M, ...].

    Returns:
        By name: `mean intensity`; `stroke mass`, the share of the pixels that are above one half,
        which is the same for binary images;
        `components`, how many regions those are connected to, sides and corners (images only).
    """
    return {
        name: Check(values, drawn_values)
        for (name, values), drawn_values in zip(
            statistics(data).items(), statistics(drawn).values(), strict=True
        )
    }


def statistics(images: Tensor) -> dict[str, np.ndarray]:
    """Return the statistics of each image, by name, shape [N]; see `check`."""
    if images.dim() == 4:
        images = images.mean(1)
    pixels = images.cpu().double().numpy()
    on = pixels > 0.5
    flat = (len(pixels), -1)
    found = {
        "mean intensity": pixels.reshape(flat).mean(1),
        "stroke mass": on.reshape(flat).mean(1),
    }
    if images.dim() == 3:
        from scipy import ndimage

        counts = [ndimage.label(image, np.ones((3, 3)))[1] for image in on]
        found["components"] = np.array(counts, dtype=float)
    return found


def report(checks: dict[str, Check]) -> str:
    """Return a table of checks."""
    columns = f"{'data':>8} {'model':>8} {'difference':>11} {'se':>8} {'p-value':>8}"
    lines = [f"{'predictive checks':20} {columns}"]
    for name, found in checks.items():
        lines.append(
            f"{name:20} {found.data.mean():8.4f} {found.model.mean():8.4f} "
            f"{found.difference:+11.4f} {found.se:8.4f} {found.p_value:8.2g}"
        )
    return "\n".join(lines)
