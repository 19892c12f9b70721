"""Figures of training, bounds, units, checks and comparisons."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyro_vae.bounds import Annealed, Bounds, Comparison, GroupComparison
from pyro_vae.bounds.estimates import said
from pyro_vae.diagnostics import Diagnosis
from pyro_vae.diagnostics.predictive import PredictiveChecks
from pyro_vae.diagnostics.units import THRESHOLD
from pyro_vae.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LEGEND_ROW = 0.085  # the height of an entry of a legend, as a share of the axes of the ladder
CHARACTER = 0.07  # the width of a character of a tick's label, in inches


def training_curves(ax: "Axes", history: History) -> "Axes":
    """Draw the training objective of each epoch, and the validation bound where there is one."""
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) == 1 else ""
    ax.plot(
        epochs, [-row["train_loss"] for row in history], marker=marker, label="training objective"
    )
    validated = [row["epoch"] for row in history if "validation_bound" in row]
    bound = [row["validation_bound"] for row in history if "validation_bound" in row]
    marker = "o" if len(validated) == 1 else ""
    ax.plot(validated, bound, marker=marker, label="validation bound")
    best = max(range(len(bound)), key=bound.__getitem__)
    ax.plot(
        validated[best],
        bound[best],
        "k*",
        label=f"best: {bound[best]:.2f} in epoch {validated[best]}",
    )
    # The first epochs are far below the others: leave out the lowest 5 % of the values.
    objective = [-row["train_loss"] for row in history]
    values = sorted([*bound, *objective])
    low, high = values[len(values) // 20], values[-1]
    bottom = low - 0.05 * (high - low) - 1e-3
    ax.set_ylim(bottom, high + 0.05 * (high - low) + 1e-3)
    ax.set(xlabel="epoch", ylabel="nats per example")
    hidden = sum(
        min(-row["train_loss"], row.get("validation_bound", math.inf)) < bottom for row in history
    )
    if hidden:
        count = "1 epoch is" if hidden == 1 else f"{hidden} epochs are"
        ax.set_title(f"{count} below the axis")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right")
    return ax


def units(ax: "Axes", diagnosis: Diagnosis) -> "Axes":
    """Draw the KL of each dimension of the code, the largest first. They are counted from 0.

    If the KL of a dimension is not known, the bars of all show which share of its variance x
    explains.
    """
    has_kl = all(kl is not None for kl in diagnosis.kl.values())
    offset = 0
    ticks: dict[int, str] = {}
    labelled: set[str] = set()
    for site, share in diagnosis.shares.items():
        kl = diagnosis.kl[site]
        shown = kl if has_kl and kl is not None else share
        height = shown.cpu().numpy().clip(0)  # below 0 by noise
        order = np.argsort(-height)
        active = (share > THRESHOLD).cpu().numpy()[order]
        places = np.arange(len(order)) + offset
        for which, label in ((active, "active"), (~active, "not active")):
            if which.any():
                colour = "C0" if label == "active" else "C7"
                once = "_nolegend_" if label in labelled else label
                labelled.add(label)
                ax.bar(places[which], height[order][which], color=colour, label=once)
        for place, unit in zip(places.tolist(), order.tolist(), strict=True):
            ticks[place] = str(unit)
        offset += len(order) + 1
    ax.set(
        xlabel=f"units of {', then of '.join(diagnosis.shares)}, counted from 0",
        ylabel="KL, nats" if has_kl else "share of variance",
        title=diagnosis.verdict
        if diagnosis.verdict == "collapsed"  # whatever the number of active units
        else f"{diagnosis.active} of {diagnosis.units} units are active",
    )
    # Names of more than 40 units would overlap.
    step = -(-len(ticks) // 40)
    ax.set_xticks([*ticks][::step], [*ticks.values()][::step])
    ax.legend()
    return ax


def tightness(axes: "Sequence[Axes]", importance: Bounds, annealed: Annealed | None = None) -> None:
    """Draw the ladder of bounds on the first axes, and the k-hat of the weights on the second."""
    ladder(axes[0], importance, annealed)
    pareto_k(axes[1], importance)


def ladder(ax: "Axes", importance: Bounds, annealed: Annealed | None = None) -> "Axes":
    """Draw IWAE_K against K, with the ELBO and the bounds by annealing, and their errors.

    All bounds are for the same examples. If only some were annealed, all bounds are for
    those. The bars and the bands are 95 % Monte Carlo intervals over draws of z; where that error
    is unknown, there is none. The legend has Monte Carlo standard errors, and the title has the
    standard error over examples, which moves all bounds together.
    """
    count = len(importance.elbo.values) if annealed is None else annealed.log_w.shape[1]
    examples = torch.arange(count)
    estimates = {k: estimate[examples] for k, estimate in importance.iwae.items()}
    rungs = list(estimates)
    means = [estimate.mean for estimate in estimates.values()]
    half_widths = [1.96 * estimate.mc_se for estimate in estimates.values()]
    ax.errorbar(rungs, means, half_widths, fmt="o-", capsize=4, label="IWAE, lower")
    elbo = importance.elbo[examples].mean
    ax.axhline(elbo, color="k", ls="--", lw=1, label=f"ELBO: {elbo:.2f}")
    best, name = estimates[rungs[-1]], f"IWAE_{rungs[-1]}"
    if annealed is not None:
        best, name = annealed.lower, "AIS"
        sides = [("lower", annealed.lower, "C2", "^")]
        if annealed.upper_flaw is None:
            sides.append(("upper", annealed.upper, "C3", "v"))
        for side, bound, colour, marker in sides:
            label = f"AIS, {side}: {bound.mean:.2f}"
            if math.isfinite(bound.mc_se):
                low, high = bound.mean - 1.96 * bound.mc_se, bound.mean + 1.96 * bound.mc_se
                ax.axhspan(low, high, color=colour, alpha=0.25, lw=0)
                label += f", MC error {bound.mc_se:.2f}"
            ax.axhline(bound.mean, color=colour, lw=1)
            ax.plot(rungs[-1] * 3, bound.mean, color=colour, marker=marker, ls="", label=label)
    ax.set_xscale("log")
    ax.set_xticks(rungs, _rung_labels(ax, rungs, means))
    ax.minorticks_off()
    ax.set(
        xlabel="number of draws K, with the bound below",
        ylabel="bound on log p(x), nats per example",
    )
    se = said(best.se, ".2f")
    ax.set_title(f"log p(x) by {name}: {best.mean:.2f}, se over examples {se}", fontsize=9)
    # The ELBO is the lowest line: the legend stands below it.
    low, high = ax.get_ylim()
    entries = len(ax.get_legend_handles_labels()[0])
    ax.set_ylim(high - (high - low) / (1 - LEGEND_ROW * entries), high)
    ax.legend(loc="lower right", borderaxespad=0.2)
    return ax


def _rung_labels(ax: "Axes", rungs: list[int], means: list[float]) -> list[str]:
    """Return the labels of the numbers of draws, with the bound below where there is room.

    Of rungs that are close to each other, only the last has a label. The last one has its bound.
    """
    low, high = (math.log10(end) for end in ax.get_xlim())
    inches = ax.bbox.width / ax.figure.dpi / (high - low)  # for a factor of ten
    labels = [f"{rungs[-1]}\n{means[-1]:.2f}"]
    left, end = rungs[-1], len(f"{means[-1]:.2f}") * CHARACTER / 2
    for (k, mean), later in zip(
        list(zip(rungs, means, strict=True))[-2::-1], rungs[:0:-1], strict=True
    ):
        half = len(f"{mean:.2f}") * CHARACTER / 2
        if later < 3 * k:
            labels.append("")
        elif inches * math.log10(left / k) > end + half:
            labels.append(f"{k}\n{mean:.2f}")
            left, end = k, half
        else:
            labels.append(str(k))
    return labels[::-1]


def pareto_k(ax: "Axes", importance: Bounds) -> "Axes":
    """Draw a histogram over examples of the Pareto k-hat of their weights."""
    from matplotlib.ticker import MaxNLocator

    finite = importance.khat[importance.khat.isfinite()].numpy()
    xlabel = f"Pareto k-hat of {importance.num_samples} weights"
    if len(finite) == 0:
        ax.text(0.5, 0.5, "too few draws to tell", ha="center", transform=ax.transAxes)
        ax.set(xlabel=xlabel, xticks=[], yticks=[])
        return ax
    ax.hist(finite, _bin_edges(finite, 40), color="C0", alpha=0.7)
    reliable = importance.good_k
    ax.axvline(reliable, color="k", ls="--", lw=1, label=f"reliable up to {reliable:.2f}")
    ax.set(xlabel=xlabel, ylabel="examples")
    ax.margins(y=0.2)  # room for the legend
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(f"not reliable on {100 * importance.heavy:.0f} % of the examples", fontsize=9)
    ax.legend()
    return ax


def _bin_edges(values: np.ndarray, bins: int) -> list[float]:
    """Return the edges of a histogram's bins, also for values that differ by rounding only."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6 * max(1.0, abs(low)):
        low, high = low - 0.01, high + 0.01
    steps = np.diff(np.unique(values))
    step = steps[steps > 1e-6 * (high - low)].min(initial=high - low)
    if bins < (high - low) / step < 20 * bins:  # on a grid: each bin has as many of its points
        width = step * np.ceil((high - low) / step / bins)
        return np.arange(low - step / 2, high + width, width).tolist()
    return np.linspace(low, high, bins + 1).tolist()


def predictive_checks(axes: "Sequence[Axes]", checks: PredictiveChecks) -> None:
    """Draw the distribution of each statistic in the data and under the model.

    Args:
        axes: one for each statistic; those that are left over are hidden.
        checks: the values of each statistic.
    """
    for ax, (name, check) in zip(axes, checks.by_statistic.items(), strict=False):
        both = np.concatenate([check.data, check.model])
        if name == "components":
            edges = (np.arange(both.min(), both.max() + 2) - 0.5).tolist()
        else:
            edges = _bin_edges(both, 30)
        for values, label, style in ((check.data, "data", "C7"), (check.model, "model", "C0")):
            kind: Any = "stepfilled" if label == "data" else "step"
            ax.hist(
                values,
                edges,
                density=True,
                histtype=kind,
                color=style,
                lw=1.5,
                label=label,
                alpha=0.5 if label == "data" else 1,
            )
        ax.set(xlabel=name, yticks=[])
        ax.set_title(f"difference {check.difference:+.3f}, se {check.se:.3f}", fontsize=9)
    for ax in list(axes)[len(checks.by_statistic) :]:
        ax.set_visible(False)
    axes[0].margins(y=0.25)  # room for the legend
    axes[0].set_ylabel("density")
    axes[0].legend()


def forest(ax: "Axes", comparison: Comparison) -> "Axes":
    """Draw the difference of each model to the first, with 95 % intervals over examples."""
    names = list(comparison.bounds)
    for i, name in enumerate(names[1:], start=1):
        difference = comparison.differences[name]
        low, high = difference.ci95
        colour = "C7" if low <= 0 <= high else "C0" if low > 0 else "C3"
        ax.errorbar(
            difference.mean,
            i,
            xerr=[[difference.mean - low], [high - difference.mean]],
            fmt="o",
            color=colour,
            capsize=4,
        )
    ax.plot(0, 0, "k|", ms=12)
    ax.axvline(0, color="k", lw=0.8, ls="--")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set(xlabel=f"nats per example above {names[0]}, with 95 % intervals")
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    return ax


def forest_of_groups(ax: "Axes", comparison: GroupComparison) -> "Axes":
    """Draw the difference of each group to the first, and a dot for each run.

    The bars are 95 % intervals over runs and examples; where the error over runs is unknown, there
    is no bar. A dot is the mean of a run minus the mean of the first group.
    """
    first = next(iter(comparison.bounds))
    for i, (name, means) in enumerate(comparison.run_means.items()):
        dots = [mean - comparison.bounds[first].mean for mean in means]
        ax.plot(dots, [i + 0.2] * len(dots), "k.", alpha=0.6, label="runs" if i == 0 else None)
        if name != first:
            difference = comparison.differences[name]
            low, high = difference.ci95
            colour = {"higher": "C0", "lower": "C3"}.get(difference.verdict, "C7")
            ax.plot(difference.mean, i, "o", color=colour)
            if math.isfinite(low) and math.isfinite(high):
                ax.plot([low, high], [i, i], "|-", color=colour)
    ax.plot(0, 0, "k|", ms=12)
    ax.axvline(0, color="k", lw=0.8, ls="--")
    ax.set_yticks(range(len(comparison.bounds)), list(comparison.bounds))
    ax.invert_yaxis()
    ax.set(xlabel=f"nats per example above the mean of {first}, with 95 % intervals")
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    ax.legend()
    return ax
