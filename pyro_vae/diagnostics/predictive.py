"""Predictive checks: do examples drawn from the model have the statistics of the data?

A bound on log p(x) says which of two models is better, but not what is wrong with either. A
statistic T(x) whose distribution under the model differs from its distribution in the data says
what is wrong (Gelman, Meng & Stern 1996).
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.bounds.estimates import finite
from pyro_vae.kinds import Kind, column_names

FEWEST = 2  # known values of a column that is compared
SIGNIFICANT, SMALLEST = 1e-2, 1e-4  # p-values: of differences, divided by their number; printed
MOST_NAMED = 8  # statistics in a sentence


@dataclass(frozen=True)
class PredictiveCheck:
    """One statistic, of examples of the data and of examples drawn from the model.

    Attributes:
        data: its values for the data, shape [N]; NaN where they are missing.
        model: its values for the drawn examples, shape [M], likewise.
    """

    data: np.ndarray
    model: np.ndarray

    @property
    def difference(self) -> float:
        """The mean under the model, minus the mean in the data."""
        return float(np.nanmean(self.model) - np.nanmean(self.data))

    @property
    def se(self) -> float:
        """The standard error of the difference, over examples of both."""
        from scipy import stats

        return float(np.hypot(*(stats.sem(known(each)) for each in (self.data, self.model))))

    @property
    def p_value(self) -> float:
        """The p-value of the two distributions being equal, by the Kolmogorov-Smirnov test.

        It is conservative for statistics with few distinct values, such as counts.
        """
        from scipy import stats

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful")
            return float(stats.ks_2samp(known(self.data), known(self.model)).pvalue)

    def to_dict(self) -> dict[str, float | None]:
        """Return the difference, its standard error, and the p-value."""
        numbers = {"difference": self.difference, "se": self.se, "p_value": self.p_value}
        return {name: finite(number) for name, number in numbers.items()}


def _p_value(p: float) -> str:
    return f"< {SMALLEST:g}" if p < SMALLEST else f"{p:.2g}"


def known(values: np.ndarray) -> np.ndarray:
    """Return the values that are not NaN."""
    return values[~np.isnan(values)]


@dataclass(frozen=True)
class PredictiveChecks:
    """What `compare_images` and `compare_columns` return.

    Attributes:
        by_statistic: a check for each statistic, or for each column, by its name.
    """

    by_statistic: dict[str, PredictiveCheck]

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of each statistic, by its name."""
        return {name: check.to_dict() for name, check in self.by_statistic.items()}

    def __str__(self) -> str:
        columns = f"{'data':>8} {'model':>8} {'difference':>11} {'se':>8} {'p-value':>8}"
        width = max(20, *(len(name) for name in self.by_statistic))
        lines = [f"{'predictive checks':{width}} {columns}"]
        for name, check in self.by_statistic.items():
            lines.append(
                f"{name:{width}} {np.nanmean(check.data):8.4g} {np.nanmean(check.model):8.4g} "
                f"{check.difference:+11.3g} {check.se:8.2g} {_p_value(check.p_value):>8}"
            )
        limit = SIGNIFICANT / len(self.by_statistic)  # by Bonferroni
        differ = [name for name, each in self.by_statistic.items() if each.p_value < limit]
        if differ:
            more = f" and {len(differ) - MOST_NAMED} more" if len(differ) > MOST_NAMED else ""
            lines += [
                "",
                "The model does not reproduce the distribution of "
                f"{', '.join(differ[:MOST_NAMED])}{more} (p below {limit:.2g}).",
            ]
        holes = [name for name, each in self.by_statistic.items() if np.isnan(each.data).any()]
        if holes:
            lines += [
                "",
                f"Of {', '.join(holes)} the observed values are compared with all values of drawn "
                "examples: they differ, too, if what is missing depends on other values.",
            ]
        return "\n".join(lines)


def compare_columns(data: Tensor, drawn: Tensor, kind: Kind) -> PredictiveChecks:
    """Compare each column of a table with that of rows drawn from a model, the worst ones first.

    Of categories the codes are compared: 0, 1, .. in the order of their names.

    Args:
        data: rows, shape [N, D].
        drawn: the same, shape [M, D].
        kind: what they are; it knows the names of the columns.
    """
    names = column_names(kind)
    checks = {
        name: PredictiveCheck(*(rows[:, i].double().cpu().numpy() for rows in (data, drawn)))
        for i, name in enumerate(names)
        if (~data[:, i].isnan()).sum() >= FEWEST
    }
    return PredictiveChecks(dict(sorted(checks.items(), key=lambda item: item[1].p_value)))


def compare_images(data: Tensor, drawn: Tensor) -> PredictiveChecks:
    """Compare images of the data with images drawn from a model, by all `statistics`.

    The stroke mass is left out if it is the mean intensity, as for binary images.

    Args:
        data: intensities in [0, 1], shape [N, H, W], [N, C, H, W] or [N, D].
        drawn: the same, shape [M, ...].
    """
    of_data, of_drawn = statistics(data), statistics(drawn)
    both = (of_data, of_drawn)
    if all(np.array_equal(of["mean intensity"], of["stroke mass"], equal_nan=True) for of in both):
        for of in both:
            del of["stroke mass"]
    return PredictiveChecks(
        {name: PredictiveCheck(values, of_drawn[name]) for name, values in of_data.items()}
    )


def statistics(images: Tensor) -> dict[str, np.ndarray]:
    """Return statistics of each image.

    Args:
        images: intensities in [0, 1], shape [N, H, W], [N, C, H, W] or [N, D]; NaN where they are
            missing. Means are over the others, and no missing pixel is part of a stroke.

    Returns:
        By name, shape [N]: `mean intensity`; `stroke mass`, the share of pixels above one half
        (equal to the mean intensity for binary images); and, unless the shape is [N, D],
        `components`, the number of connected regions of such pixels, with neighbours at sides and
        corners.
    """
    if images.dim() == 4:
        images = images.mean(1)
    pixels = images.cpu().double().numpy()
    strokes = pixels > 0.5
    flat = (len(pixels), -1)
    values = {
        "mean intensity": _mean(pixels.reshape(flat)),
        "stroke mass": _mean(np.where(np.isnan(pixels), np.nan, strokes).reshape(flat)),
    }
    if images.dim() == 3:
        from scipy import ndimage

        counts = [ndimage.label(image, np.ones((3, 3)))[1] for image in strokes]
        values["components"] = np.array(counts, dtype=float)
    return values


def _mean(pixels: np.ndarray) -> np.ndarray:
    """Return the mean of each row without NaN; NaN if nothing is left."""
    count = (~np.isnan(pixels)).sum(1)
    return np.where(count > 0, np.nansum(pixels, 1) / np.maximum(1, count), np.nan)
