"""Figures. Each function draws on a matplotlib axes and returns it; the caller saves the file."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pyro_vae.bounds import Annealed, Bounds, Comparison
from pyro_vae.bounds.estimates import said
from pyro_vae.diagnostics import Diagnosis, unit_means, unit_shares
from pyro_vae.diagnostics.predictive import PredictiveChecks
from pyro_vae.diagnostics.units import THRESHOLD
from pyro_vae.training import History
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_curves(ax: "Axes", history: History) -> "Axes":
    """Draw the training objective and the validation bound of each epoch."""
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    marker = "o" if len(epochs) == 1 else ""
    ax.plot(
        epochs, [-row["train_loss"] for row in history], marker=marker, label="training objective"
    )
    bound = [row["validation_bound"] for row in history]
    ax.plot(epochs, bound, marker=marker, label="validation bound")
    best = max(range(len(bound)), key=bound.__getitem__)
    ax.plot(
        epochs[best], bound[best], "k*", label=f"best: {bound[best]:.2f} in epoch {epochs[best]}"
    )
    # The first epochs are far below the others: leave out the lowest 5 % of the values.
    values = sorted([*bound, *(-row["train_loss"] for row in history)])
    low, high = values[len(values) // 20], values[-1]
    ax.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    ax.set(xlabel="epoch", ylabel="nats per image")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right")
    return ax


def image_grid(ax: "Axes", images: Tensor, columns: int) -> "Axes":
    """Draw images in a grid, row by row. Vectors become the rows of a single picture.

    Args:
        ax: the axes.
        images: shape [N, H, W], [N, C, H, W] or [N, D], values in [0, 1]. Three channels are red,
            green and blue; for any other number of channels, their mean is drawn in grey.
        columns: the number of columns of the grid.
    """
    ax.set(xticks=[], yticks=[])
    if images.dim() == 2:
        picture = images
        ax.set(xlabel="dimension", ylabel="example")
    else:
        picture = _tiled(images, columns)
        ax.set_frame_on(False)
    ax.imshow(picture.cpu().numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_aspect("auto" if images.dim() == 2 else "equal")
    return ax


def _tiled(images: Tensor, columns: int) -> Tensor:
    """Return images [N, H, W] or [N, C, H, W] as one picture, in grey [.., ..] or RGBA [.., .., 4].

    The pixels between the images are NaN in a grey picture, and transparent in a coloured one, so
    that nothing is drawn there.
    """
    if images.dim() == 3:
        images = images[:, None]
    if images.shape[1] != 3:
        images = images.mean(1, keepdim=True)
    count, colours, height, width = images.shape
    rows = -(-count // columns)
    size = rows * (height + 1) - 1, columns * (width + 1) - 1
    picture = torch.full((colours, *size), torch.nan)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        picture[:, top : top + height, left : left + width] = image
    if colours == 1:
        return picture[0]
    opacity = (~picture.isnan().any(0, keepdim=True)).float()
    return torch.cat([picture.nan_to_num(), opacity]).movedim(0, -1)


def reconstructions(ax: "Axes", vae: VAE, x: Tensor) -> "Axes":
    """Draw images, and below each its reconstruction from one draw of its code.

    Args:
        ax: the axes.
        vae: the VAE that encodes and decodes.
        x: images as the likelihood sees them, shape [N, *event].
    """
    with torch.no_grad():
        decoded = vae.likelihood.picture(vae.prior.code(vae.guide(x)))
    shown = vae.likelihood.kind.intensities(x)
    image_grid(ax, torch.cat([shown, decoded]), columns=len(x))
    if x.dim() > 2:
        height = x.shape[-2] + 1
        ax.set_yticks([height / 2 - 1, 1.5 * height - 1], ["data", "reconstruction"])
        ax.tick_params(length=0)
    return ax


def samples(ax: "Axes", vae: VAE, count: int = 64) -> "Axes":
    """Draw decoded codes from the prior."""
    # The model without its site "x": drawing pixels can take far longer than drawing codes.
    with torch.no_grad():
        with pyro.plate("data", count):
            z = pyro.sample("z", vae.prior())
        decoded = vae.likelihood.picture(vae.prior.code(z))
    return image_grid(ax, decoded, columns=max(1, round(count**0.5)))


def interpolation(ax: "Axes", vae: VAE, starts: Tensor, ends: Tensor, steps: int = 9) -> "Axes":
    """Draw decoded codes along the straight line between the codes of two images, for each pair.

    An image's code is one draw from q(z|x), because not every posterior has a known mean. If codes
    lie on the unit sphere, the path follows the great circle.

    Args:
        ax: the axes.
        vae: the VAE that encodes and decodes.
        starts: the first images of the pairs, as the likelihood sees them, shape [N, *event].
        ends: the second images, shape [N, *event].
        steps: the number of images in a row, both ends included.
    """
    with torch.no_grad():
        first, last = vae.guide(starts), vae.guide(ends)
        share = torch.linspace(0, 1, steps, device=first.device)[:, None]
        codes = first[:, None] * (1 - share) + last[:, None] * share
        if vae.posterior.support == "sphere":
            codes = normalize(codes, dim=-1)
        decoded = vae.likelihood.picture(vae.prior.code(codes))
    image_grid(ax, decoded.flatten(0, 1), columns=steps)
    if starts.dim() > 2:
        width = starts.shape[-1] + 1
        ax.set_xticks([width / 2 - 1, (steps - 0.5) * width - 1], ["image A", "image B"])
        ax.tick_params(length=0)
    return ax


def traversals(ax: "Axes", vae: VAE, x: Tensor, most: int = 12, steps: int = 9) -> "Axes":
    """Draw how one image changes along each active dimension of z, the most active one first.

    Each row goes from -2 to 2 standard deviations of the codes of x around the image's own code.

    Args:
        ax: the axes.
        vae: a VAE whose codes are real vectors.
        x: examples as the likelihood sees them, shape [N, *event]; the first one is drawn.
        most: the largest number of dimensions to draw.
        steps: the number of images in a row.
    """
    ((means, _),) = unit_means(vae.guide, x).values()
    ((_, share),) = unit_shares(vae.guide, x).items()
    order = [int(unit) for unit in share.argsort(descending=True)[:most]]
    shown = [unit for unit in order if share[unit] > THRESHOLD] or order[:1]
    codes = means[:1].repeat(len(shown), steps, 1)
    offsets = torch.linspace(-2, 2, steps, device=means.device)
    for row, unit in enumerate(shown):
        codes[row, :, unit] += offsets * means[:, unit].std()
    with torch.no_grad():
        decoded = vae.likelihood.picture(vae.prior.code(codes))
    image_grid(ax, decoded.flatten(0, 1), columns=steps)
    if decoded.dim() > 3:
        height = decoded.shape[-2] + 1
        ticks = [(row + 0.5) * height - 1 for row in range(len(shown))]
        ax.set_yticks(ticks, [f"$z_{{{unit + 1}}}$" for unit in shown])
        ax.tick_params(length=0)
    return ax


def units(ax: "Axes", diagnosis: Diagnosis) -> "Axes":
    """Draw the KL of each dimension of the code, the largest first.

    If the KL of a dimension is not known, the bar shows which share of its variance x explains.
    """
    offset = 0
    for site, share in diagnosis.shares.items():
        kl = diagnosis.kl[site]
        height = (share if kl is None else kl).cpu().numpy()
        order = np.argsort(-height)
        active = (share > THRESHOLD).cpu().numpy()[order]
        places = np.arange(len(order)) + offset
        for which, label in ((active, "active"), (~active, "not active")):
            if which.any():
                ax.bar(places[which], height[order][which], label=f"{site}, {label}")
        offset += len(order) + 1
    all_known = all(kl is not None for kl in diagnosis.kl.values())
    ax.set(
        xlabel="dimension of the code, sorted",
        ylabel="KL, nats"
        if all_known
        else "KL in nats if it is known, otherwise the share of variance that x explains",
        title=f"{diagnosis.verdict}: {diagnosis.active} of {diagnosis.units} units are active",
        xticks=[],
    )
    ax.legend()
    return ax


def manifold(ax: "Axes", vae: VAE, side: int = 20) -> "Axes":
    """Draw decoded codes of a grid over a two-dimensional real latent space.

    The grid points are evenly spaced quantiles of N(0, 1) in each dimension. So under the prior
    N(0, I) each image stands for a cell of the same probability.

    Args:
        ax: the axes.
        vae: a VAE with two latent dimensions.
        side: the number of images in a row, and in a column.
    """
    from scipy import special

    line = torch.tensor(special.ndtri((np.arange(side) + 0.5) / side), dtype=torch.float32)
    first, second = torch.meshgrid(line, line.flip(0), indexing="xy")
    z = torch.stack([first, second], -1).reshape(-1, 2).to(next(vae.parameters()).device)
    with torch.no_grad():
        image_grid(ax, vae.likelihood.picture(z), columns=side)
    if len(vae.likelihood.event_shape) > 1:
        height, width = (length + 1 for length in vae.likelihood.event_shape[-2:])
        ticks = range(0, side, max(1, side // 5))
        ax.set_xticks([(i + 0.5) * width - 1 for i in ticks], [f"{line[i]:.1f}" for i in ticks])
        ax.set_yticks([(i + 0.5) * height - 1 for i in ticks], [f"{-line[i]:.1f}" for i in ticks])
        ax.set(xlabel="$z_1$", ylabel="$z_2$")
    return ax


def tightness(axes: "Sequence[Axes]", importance: Bounds, annealed: Annealed | None = None) -> None:
    """Draw the ladder of bounds on the first axes, and the k-hat of the weights on the second."""
    ladder(axes[0], importance, annealed)
    pareto_k(axes[1], importance)


def ladder(ax: "Axes", importance: Bounds, annealed: Annealed | None = None) -> "Axes":
    """Draw IWAE_K against K, with the ELBO and the bounds by annealing, and their errors.

    All bounds are for the same images. If only some images were annealed, all bounds are for
    those images. The bars are 95 % Monte Carlo intervals over draws of z; where that error is
    unknown, there is no bar. The title has the standard error over images, which moves all bounds
    together.
    """
    count = len(importance.elbo.values) if annealed is None else annealed.log_w.shape[1]
    images = torch.arange(count)
    estimates = {k: estimate[images] for k, estimate in importance.iwae.items()}
    rungs = list(estimates)
    means = [estimate.mean for estimate in estimates.values()]
    half_widths = [1.96 * estimate.mc_se for estimate in estimates.values()]
    ax.errorbar(rungs, means, half_widths, fmt="o-", capsize=4, label="IWAE, lower")
    elbo = importance.elbo[images].mean
    ax.axhline(elbo, color="k", ls="--", lw=1, label=f"ELBO: {elbo:.2f}")
    best, name = estimates[rungs[-1]], f"IWAE$_{{{rungs[-1]}}}$"
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
                label += f" ± {1.96 * bound.mc_se:.2f}"
            ax.axhline(bound.mean, color=colour, lw=1)
            ax.plot(rungs[-1] * 3, bound.mean, color=colour, marker=marker, ls="", label=label)
    ax.set_xscale("log")
    ax.set_xticks(rungs, [f"{k}\n{mean:.2f}" for k, mean in zip(rungs, means, strict=True)])
    ax.minorticks_off()
    ax.set(
        xlabel="number of draws K, with the bound below", ylabel="bound on log p(x), nats per image"
    )
    se = said(best.se, ".2f")
    ax.set_title(f"log p(x) by {name}: {best.mean:.2f}, se over images {se}", fontsize=10)
    ax.legend(loc="center right")
    return ax


def pareto_k(ax: "Axes", importance: Bounds) -> "Axes":
    """Draw a histogram over images of the Pareto k-hat of their weights."""
    finite = importance.khat[importance.khat.isfinite()].numpy()
    xlabel = f"Pareto k-hat of {importance.num_samples} weights"
    if len(finite) == 0:
        ax.text(0.5, 0.5, "too few draws to tell", ha="center", transform=ax.transAxes)
        ax.set(xlabel=xlabel, xticks=[], yticks=[])
        return ax
    ax.hist(finite, _bin_edges(finite, 40), color="C0", alpha=0.7)
    reliable = importance.good_k
    ax.axvline(reliable, color="k", ls="--", lw=1, label=f"reliable up to {reliable:.2f}")
    ax.set(xlabel=xlabel, ylabel="images")
    ax.set_title(f"not reliable on {importance.heavy:.0%} of the images", fontsize=10)
    ax.legend()
    return ax


def _bin_edges(values: np.ndarray, bins: int) -> list[float]:
    """Return the edges of a histogram's bins, also for values that differ by rounding only."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6 * max(1.0, abs(low)):
        low, high = low - 0.01, high + 0.01
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
        ax.set_title(f"difference {check.difference:+.3f} ± {1.96 * check.se:.3f}", fontsize=10)
    for ax in list(axes)[len(checks.by_statistic) :]:
        ax.set_visible(False)
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
    ax.invert_yaxis()
    ax.set(xlabel=f"log p(x) minus that of {names[0]}, nats per image, 95 % intervals")
    return ax
