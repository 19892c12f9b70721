"""Figures: a matplotlib axes in, the same axes out. Opening and saving files is for the caller."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy import special
from torch import Tensor
from torch.nn.functional import normalize

from pyro_vae.bounds import Annealed, Bounds, Comparison
from pyro_vae.diagnostics import Diagnosis, unit_means, unit_shares
from pyro_vae.diagnostics.predictive import Check
from pyro_vae.diagnostics.units import THRESHOLD
from pyro_vae.training import History
from pyro_vae.vae import VAE


def training_curves(ax: Axes, history: History) -> Axes:
    """Draw the bound that was trained, and the one on validation data, against the epoch."""
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
    # The first epochs are far below; what matters happens near the top.
    shown = sorted([*bound, *(-row["train_loss"] for row in history)])
    low, high = shown[len(shown) // 20], shown[-1]
    ax.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    ax.set(xlabel="epoch", ylabel="nats per image")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right")
    return ax


def image_grid(ax: Axes, images: Tensor, columns: int) -> Axes:
    """Draw images in a grid, row by row; vectors one below the other, as the rows of one picture.

    Args:
        ax: the axes.
        images: shape [N, H, W], [N, C, H, W] or [N, D], values in [0, 1]. Three channels are red,
            green and blue; of any other number the mean is drawn in grey.
        columns: of the grid.
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
    """Return images [N, H, W] or [N, C, H, W] as one picture: grey [.., ..], or RGBA [.., .., 4].

    What is between them is NaN where it is grey, and otherwise transparent: nothing is drawn.
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


def reconstructions(ax: Axes, vae: VAE, x: Tensor) -> Axes:
    """Draw images, and below each what the decoder makes of one draw of its code.

    Args:
        ax: the axes.
        vae: encodes and decodes.
        x: shape [N, *event], as the likelihood sees them: pixels 0 or 1, in [0, 1], or levels.
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


def samples(ax: Axes, vae: VAE, count: int = 64) -> Axes:
    """Draw what the decoder makes of codes from the prior."""
    # The model without its site "x": to draw the pixels too can take far longer than the codes.
    with torch.no_grad():
        with pyro.plate("data", count):
            z = pyro.sample("z", vae.prior())
        decoded = vae.likelihood.picture(vae.prior.code(z))
    return image_grid(ax, decoded, columns=max(1, round(count**0.5)))


def interpolation(ax: Axes, vae: VAE, starts: Tensor, ends: Tensor, steps: int = 9) -> Axes:
    """Draw the straight way between the codes of two images, for each pair of images.

    An image's code is one draw from q(z|x), which not every posterior has a mean of. Where codes
    lie on the unit sphere the way stays on it, along the great circle.

    Args:
        ax: the axes.
        vae: encodes the ends, and decodes what is between.
        starts: shape [N, *event], as the likelihood sees them.
        ends: shape [N, *event].
        steps: of each way, its ends included.
    """
    with torch.no_grad():
        start, end = vae.guide(starts), vae.guide(ends)
        way = torch.linspace(0, 1, steps, device=start.device)[:, None]
        codes = start[:, None] * (1 - way) + end[:, None] * way
        if vae.posterior.support == "sphere":
            codes = normalize(codes, dim=-1)
        decoded = vae.likelihood.picture(vae.prior.code(codes))
    image_grid(ax, decoded.flatten(0, 1), columns=steps)
    if starts.dim() > 2:
        width = starts.shape[-1] + 1
        ax.set_xticks([width / 2 - 1, (steps - 0.5) * width - 1], ["image A", "image B"])
        ax.tick_params(length=0)
    return ax


def traversals(ax: Axes, vae: VAE, x: Tensor, most: int = 12, steps: int = 9) -> Axes:
    """Draw what moving along each active dimension of z does to one image, the most active on top.

    Each row goes from -2 to 2 standard deviations of the codes of x around the image's own code.

    Args:
        ax: the axes.
        vae: with codes that are real vectors.
        x: examples, as the likelihood sees them, shape [N, *event]; the first is drawn.
        most: how many dimensions are drawn at most.
        steps: of each row.
    """
    ((means, _),) = unit_means(vae.guide, x).values()
    ((_, share),) = unit_shares(vae.guide, x).items()
    order = [int(unit) for unit in share.argsort(descending=True)[:most]]
    shown = [unit for unit in order if share[unit] > THRESHOLD] or order[:1]
    codes = means[:1].repeat(len(shown), steps, 1)
    way = torch.linspace(-2, 2, steps, device=means.device)
    for row, unit in enumerate(shown):
        codes[row, :, unit] += way * means[:, unit].std()
    with torch.no_grad():
        decoded = vae.likelihood.picture(vae.prior.code(codes))
    image_grid(ax, decoded.flatten(0, 1), columns=steps)
    if decoded.dim() > 3:
        height = decoded.shape[-2] + 1
        ticks = [(row + 0.5) * height - 1 for row in range(len(shown))]
        ax.set_yticks(ticks, [f"$z_{{{unit + 1}}}$" for unit in shown])
        ax.tick_params(length=0)
    return ax


def units(ax: Axes, diagnosis: Diagnosis) -> Axes:
    """Draw what each dimension carries, largest first: its KL, or else what x explains of it."""
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
    shared = all(kl is not None for kl in diagnosis.kl.values())
    ax.set(
        xlabel="dimension of the code, sorted",
        ylabel="KL, nats"
        if shared
        else "share of its variance that x explains (KL, where it is known)",
        title=f"{diagnosis.verdict}: {diagnosis.active} of {diagnosis.units} units are active",
        xticks=[],
    )
    ax.legend()
    return ax


def manifold(ax: Axes, vae: VAE, side: int = 20) -> Axes:
    """Draw what the decoder makes of a grid over a two-dimensional real latent space.

    The grid is even in the quantiles of N(0, I), so for that prior each image stands for the same
    probability.
    """
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


def tightness(axes: Sequence[Axes], found: Bounds, annealed: Annealed | None = None) -> None:
    """Draw the ladder of bounds on one axes, and the k-hat of the weights on the other."""
    ladder(axes[0], found, annealed)
    pareto_k(axes[1], found)


def ladder(ax: Axes, found: Bounds, annealed: Annealed | None = None) -> Axes:
    """Draw IWAE_K against K, with the ELBO and the bounds by annealing, and their errors.

    All are for the same images: if only some were annealed, for those. The bars are 95 % Monte
    Carlo intervals, over draws of z. How far the mean may be from that over other images is said in
    the title: it moves all bounds together.
    """
    chosen = torch.arange(len(found.elbo.values) if annealed is None else annealed.log_w.shape[1])
    estimates = {k: estimate[chosen] for k, estimate in found.iwae.items()}
    rungs = list(estimates)
    means = [estimate.mean for estimate in estimates.values()]
    reach = [1.96 * estimate.mc_se for estimate in estimates.values()]
    ax.errorbar(rungs, means, reach, fmt="o-", capsize=4, label="IWAE, lower")
    elbo = found.elbo[chosen].mean
    ax.axhline(elbo, color="k", ls="--", lw=1, label=f"ELBO: {elbo:.2f}")
    best, name = estimates[rungs[-1]], f"IWAE$_{{{rungs[-1]}}}$"
    if annealed is not None:
        best, name = annealed.lower, "AIS"
        sides = [("lower", annealed.lower, "C2", "^")]
        if annealed.upper_flaw is None:
            sides.append(("upper", annealed.upper, "C3", "v"))
        for side, bound, colour, marker in sides:
            low, high = bound.mean - 1.96 * bound.mc_se, bound.mean + 1.96 * bound.mc_se
            ax.axhspan(low, high, color=colour, alpha=0.25, lw=0)
            label = f"AIS, {side}: {bound.mean:.2f} ± {1.96 * bound.mc_se:.2f}"
            ax.axhline(bound.mean, color=colour, lw=1)
            ax.plot(rungs[-1] * 3, bound.mean, color=colour, marker=marker, ls="", label=label)
    ax.set_xscale("log")
    ax.set_xticks(rungs, [f"{k}\n{mean:.2f}" for k, mean in zip(rungs, means, strict=True)])
    ax.minorticks_off()
    ax.set(xlabel="draws K, and the bound there", ylabel="bound on log p(x), nats per image")
    ax.set_title(f"log p(x) by {name}: {best.mean:.2f}, se over images {best.se:.2f}", fontsize=10)
    ax.legend(loc="center right")
    return ax


def pareto_k(ax: Axes, found: Bounds) -> Axes:
    """Draw how the Pareto k-hat of the weights is spread over images."""
    finite = found.khat[found.khat.isfinite()].numpy()
    if len(finite) == 0:
        ax.text(0.5, 0.5, "too few draws to tell", ha="center", transform=ax.transAxes)
        ax.set(xlabel=f"Pareto k-hat of {found.num_samples} weights", xticks=[], yticks=[])
        return ax
    ax.hist(finite, bins=40, color="C0", alpha=0.7)
    ax.axvline(found.good_k, color="k", ls="--", lw=1, label=f"reliable up to {found.good_k:.2f}")
    ax.set(xlabel=f"Pareto k-hat of {found.num_samples} weights", ylabel="images")
    ax.set_title(f"not reliable on {found.heavy:.0%} of the images", fontsize=10)
    ax.legend()
    return ax


def predictive_checks(axes: Sequence[Axes], checks: dict[str, Check]) -> None:
    """Draw each statistic's distribution in the data and under the model."""
    for ax, (name, found) in zip(axes, checks.items(), strict=False):
        both = np.concatenate([found.data, found.model])
        if name == "components":
            edges = list(np.arange(both.min(), both.max() + 2) - 0.5)
        else:
            edges = list(np.linspace(both.min(), both.max(), 31))
        for values, label, style in ((found.data, "data", "C7"), (found.model, "model", "C0")):
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
        ax.set_title(f"difference {found.difference:+.3f} ± {1.96 * found.se:.3f}", fontsize=10)
    for ax in list(axes)[len(checks) :]:
        ax.set_visible(False)
    axes[0].set_ylabel("density")
    axes[0].legend()


def forest(ax: Axes, comparison: Comparison) -> Axes:
    """Draw each model's difference to the first, with its 95 % interval over examples."""
    names = list(comparison.bounds)
    for i, name in enumerate(names[1:], start=1):
        found = comparison.differences[name]
        low, high = found.ci95
        colour = "C7" if low <= 0 <= high else "C0" if low > 0 else "C3"
        ax.errorbar(
            found.mean,
            i,
            xerr=[[found.mean - low], [high - found.mean]],
            fmt="o",
            color=colour,
            capsize=4,
        )
    ax.plot(0, 0, "k|", ms=12)
    ax.axvline(0, color="k", lw=0.8, ls="--")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel=f"log p(x) less that of {names[0]}, nats per image, 95 % intervals")
    return ax
