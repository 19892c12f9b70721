"""Figures of tables: reconstructed rows, the fit of columns, and pairs of columns."""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_vae.diagnostics.predictive import PredictiveChecks, known
from pyro_vae.kinds import Kind, column_names
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 12  # distinct values, which are drawn one by one
SHOWN = 8  # columns in a table of reconstructions
POINTS = 500  # rows of a scatter plot


def reconstructed_rows(ax: "Axes", vae: VAE, x: Tensor) -> "Axes":
    """Draw rows as a table, and below each its reconstruction from one draw of its code.

    A reconstruction is the mean of p(x|z); of categories, the most probable one.

    Args:
        ax: the axes.
        vae: the VAE that encodes and decodes.
        x: rows as the likelihood sees them, shape [N, D].
    """
    kind = vae.likelihood.kind
    with torch.no_grad():
        decoded = vae.likelihood.under(x).typical(vae.prior.code(vae.guide(x)))
    names = [_short(name, 18) for name in column_names(kind)[:SHOWN]]
    text = [
        [kind.text(place, row[place].item()) for place in range(len(names))]
        for pair in zip(x.cpu(), decoded.cpu(), strict=True)
        for row in pair
    ]
    grid = ax.table(
        text, rowLabels=["data", "reconstruction"] * len(x), colLabels=names, loc="center"
    )
    grid.auto_set_font_size(False)
    grid.set_fontsize(9)
    grid.scale(1, 1.3)
    for (row, _), cell in grid.get_celld().items():
        cell.set_linewidth(0.3)
        cell.visible_edges = "B" if row % 2 == 0 else "open"
    ax.set_axis_off()
    return ax


def column_fits(axes: "Sequence[Axes]", checks: PredictiveChecks, kind: Kind) -> None:
    """Draw the distributions of columns in the data and under the model, the worst ones first.

    Args:
        axes: one for each column; those that are left over are hidden.
        checks: the values of the columns.
        kind: what the rows are.
    """
    names = column_names(kind)
    for ax, (name, check) in zip(axes, checks.by_statistic.items(), strict=False):
        data, model = known(check.data), known(check.model)
        both = np.unique(np.concatenate([data, model]))
        place = names.index(name)
        if len(both) <= FEW:  # a bar for each value
            for shift, values, label, colour in (
                (-0.2, data, "data", "C7"),
                (0.2, model, "model", "C0"),
            ):
                shares = [(values == value).mean() for value in both]
                ax.bar(np.arange(len(both)) + shift, shares, 0.4, color=colour, label=label)
            labels = [_short(kind.text(place, value), 12) for value in both]
            are_long = sum(map(len, labels)) > 18
            step = 2 if len(both) > 8 and not are_long else 1
            ticks = range(0, len(both), step)
            ax.set_xticks(ticks, labels[::step], fontsize=7, rotation=30 if are_long else 0)
            ax.set_xlim(-0.9, len(both) - 0.1)
        else:
            edges = _bins(data)
            ax.hist(data, edges, density=True, color="C7", alpha=0.5, label="data")
            ax.hist(
                model,
                edges,
                density=True,
                histtype="step",
                color="C0",
                lw=1.5,
                label="model",
            )
        ax.set(yticks=[])
        p = "p < 0.0001" if check.p_value < 1e-4 else f"p = {check.p_value:.2g}"
        ax.set_title(f"{_short(name, 24)}, {p}", fontsize=7)
        ax.tick_params(labelsize=7)
    for ax in list(axes)[len(checks.by_statistic) :]:
        ax.set_visible(False)
    axes[0].legend(fontsize=8)


def column_pairs(axes: "Sequence[Axes]", checks: PredictiveChecks, kind: Kind) -> None:
    """Draw pairs of columns in the data and under the model.

    Those pairs come first whose rank correlations differ most. Columns that are constant, in the
    data or under the model, have none, and are left out.

    Args:
        axes: one for each pair; those that are left over are hidden.
        checks: the values of the columns.
        kind: what the rows are.
    """
    names = column_names(kind)
    values = dict(list(checks.by_statistic.items())[:20])
    found = []
    for first, second in combinations(values, 2):
        one, two = values[first], values[second]
        data = _rank_correlation(one.data, two.data)
        model = _rank_correlation(one.model, two.model)
        if data is not None and model is not None:
            found.append((-abs(data - model), first, second, data, model))
    for ax, (_, first, second, data, model) in zip(axes, sorted(found), strict=False):
        one, two = values[first], values[second]
        for label, colour, size in (("model", "C0", 3), ("data", "0.25", 3)):
            chosen = np.random.default_rng(0).permutation(len(getattr(one, label)))[:POINTS]
            x = _apart(getattr(one, label)[chosen], seed=0)
            y = _apart(getattr(two, label)[chosen], seed=1)
            ax.plot(x, y, ".", color=colour, ms=size, alpha=0.7, label=label)
        for name, limits, ticks, labels in (
            (first, ax.set_xlim, ax.set_xticks, ax.set_xticklabels),
            (second, ax.set_ylim, ax.set_yticks, ax.set_yticklabels),
        ):
            own = np.unique(known(values[name].data))
            margin = max(0.05 * (own[-1] - own[0]), 0.5 if len(own) <= FEW else 0)
            limits(own[0] - margin, own[-1] + margin)
            if len(own) <= FEW:
                ticks(own)
                place = names.index(name)
                labels([kind.text(place, value)[:10] for value in own], fontsize=7)
        ax.set_xlabel(_short(first, 24), fontsize=8)
        ax.set_ylabel(_short(second, 24), fontsize=8)
        ax.set_title(f"rank correlation {data:.2f}, model {model:.2f}", fontsize=7.5)
    for ax in list(axes)[len(found) :]:
        ax.set_visible(False)
    if found:
        axes[0].legend(fontsize=7.5, markerscale=2.5, frameon=True, framealpha=0.8)


def _rank_correlation(one: np.ndarray, two: np.ndarray) -> float | None:
    """Return Spearman's rank correlation of what is known; None if one of both is constant."""
    from scipy import stats

    both = ~(np.isnan(one) | np.isnan(two))
    one, two = one[both], two[both]
    if both.sum() < 2 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return None
    return float(stats.spearmanr(one, two).statistic)


def _bins(values: np.ndarray) -> list[float]:
    """Return the ends of bins: fewer for few values, and of equal counts of whole numbers.

    They cover the middle of the values, because single ones may be far out.
    """
    low, high = np.quantile(values, [0.005, 0.995])
    margin = 0.1 * (high - low) or 0.5 * abs(low) or 0.5
    low, high = low - margin, high + margin
    count = int(np.clip(2 * np.sqrt(len(values)), 8, 30))
    if (values == np.rint(values)).all():
        width = max(1, np.ceil((high - low) / count))
        return np.arange(np.floor(low) - 0.5, high + width, width).tolist()
    return np.linspace(low, high, count).tolist()


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _apart(values: np.ndarray, seed: int) -> np.ndarray:
    """Move equal values apart a little at random, if there are few distinct ones."""
    distinct = np.unique(known(values))
    if not 1 < len(distinct) <= 2 * FEW:
        return values
    width = 0.3 * np.diff(distinct).min()
    return values + np.random.default_rng(seed).uniform(-width, width, len(values))
