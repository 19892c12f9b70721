"""Pictures that a VAE decodes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pyro_vae.diagnostics import unit_means, unit_shares
from pyro_vae.diagnostics.units import THRESHOLD
from pyro_vae.kinds import Categories, Conditional
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MISSING = (0.85, 0.45, 0.35)  # the colour of missing pixels


def image_grid(ax: "Axes", images: Tensor, columns: int) -> "Axes":
    """Draw images in a grid, row by row. Vectors become the rows of a single picture.

    Args:
        ax: the axes.
        images: shape [N, H, W], [N, C, H, W] or [N, D], values in [0, 1]. Three channels are red,
            green and blue; for any other number of channels, their mean is drawn in grey.
        columns: the number of columns of the grid.

    Pixels that are NaN are missing, and drawn in a colour of their own.
    """
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    if images.isnan().any():
        images = _with_missing(images)
    if images.dim() == 2:
        picture = images
        ax.set(xlabel="dimension", ylabel="example")
    else:
        picture = _tiled(images, columns)
        ax.set_frame_on(False)
    ax.imshow(picture.cpu().numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_aspect("auto" if images.dim() == 2 else "equal")
    return ax


def _name_rows(
    ax: "Axes", images: Tensor, columns: int, names: Sequence[str], lines: str = ""
) -> None:
    """Name the rows of a grid of images.

    Vectors are lines of a single picture: there a name stands beside the lines of its row.

    Args:
        ax: the axes, on which `image_grid` has drawn.
        images: all images of the grid.
        columns: the number of columns of the grid.
        names: one for each row.
        lines: what the lines of a row are, one below the other, if the images are vectors.
    """
    if images.dim() > 2:
        height, gap = images.shape[-2] + 1, 1.0
    elif not images.isnan().any():
        height, gap = columns, 0.5
        ax.set_ylabel(lines)
    else:  # with missing pixels, they are a grid of pictures with one row each
        height, gap = 2, 1.0
    ax.set_yticks([(row + 0.5) * height - gap for row in range(len(names))], names)
    ax.tick_params(length=0)


def _with_missing(images: Tensor) -> Tensor:
    """Return images in colour, with a colour of its own for missing pixels.

    Vectors become pictures of one row.
    """
    if images.dim() == 2:
        images = images[:, None]
    if images.dim() == 3:
        images = images[:, None]
    if images.shape[1] != 3:
        images = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    colour = torch.tensor(MISSING, device=images.device).view(3, 1, 1)
    return torch.where(images.isnan(), colour, images)


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
        decoded = vae.likelihood.under(x).picture(vae.prior.code(vae.guide(x)))
    shown = vae.likelihood.kind.intensities(x)
    images = torch.cat([shown, decoded])
    image_grid(ax, images, columns=len(x))
    _name_rows(ax, images, len(x), ["data", "reconstruction"])
    ax.set_title("examples, and means of p(x|z) for one draw of z from q(z|x) of each")
    return ax


def hard_examples(ax: "Axes", images: Tensor) -> "Axes":
    """Draw the examples of lowest likelihood, and below them those with the loosest ELBO.

    Args:
        ax: the axes.
        images: both sorts, as many of each, shape [2 N, *event], values in [0, 1].
    """
    columns = len(images) // 2
    image_grid(ax, images, columns)
    _name_rows(ax, images, columns, ["lowest log p(x)", "loosest ELBO"])
    ax.set_title("test examples, the most extreme ones first")
    return ax


def samples(ax: "Axes", vae: VAE, count: int = 64, like: Tensor | None = None) -> "Axes":
    """Draw decoded codes from the prior.

    Args:
        ax: the axes.
        vae: the VAE that decodes.
        count: the number of codes.
        like: examples as the likelihood sees them, one or more, shape [N, *event]. A VAE with
            conditions draws under those of these examples, again and again in this order.
    """
    likelihood = vae.likelihood
    if like is not None:
        like = like[torch.arange(count, device=like.device) % len(like)]
        likelihood = likelihood.under(like)
    with torch.no_grad():
        decoded = likelihood.picture(vae.draw_codes(count, like))
    image_grid(ax, decoded, columns=max(1, round(count**0.5)))
    if decoded.dim() == 2:
        ax.set_ylabel("draw of z")
    ax.set_title("means of p(x|z) for draws of z from the prior")
    return ax


def samples_by_class(ax: "Axes", vae: VAE, like: Tensor, columns: int = 12) -> "Axes":
    """Draw decoded codes from the prior for each class: a row for each.

    Args:
        ax: the axes.
        vae: a VAE whose condition is one column of categories.
        like: an example as the likelihood sees it, shape [1, *event].
        columns: the number of pictures of a class.
    """
    kind = vae.likelihood.kind
    assert isinstance(kind, Conditional)
    names = kind.given.categories[0] if isinstance(kind.given, Categories) else ("0", "1")
    classes = torch.arange(len(names), device=like.device).repeat_interleave(columns)[:, None]
    x = kind.parted(like)[0].expand(len(classes), *kind.of.shape)
    examples = kind.packed(x, classes.to(like))
    with torch.no_grad():
        codes = vae.draw_codes(len(examples), examples)
        decoded = vae.likelihood.under(examples).picture(codes)
    image_grid(ax, decoded, columns=columns)
    _name_rows(ax, decoded, columns, names)
    ax.set_ylabel(kind.given.names[0] if kind.given.names else "class")
    ax.set_title("means of p(x|z, y) for draws of z from the prior, a row for each y")
    return ax


def interpolation(ax: "Axes", vae: VAE, starts: Tensor, ends: Tensor, steps: int = 9) -> "Axes":
    """Draw decoded codes along the straight line between the codes of two images, for each pair.

    An image's code is one draw from q(z|x), because not every posterior has a known mean. If codes
    lie on the unit sphere, the path follows the great circle. Conditions are those of the first
    image.

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
        decoded = vae.likelihood.under(starts[:, None]).picture(vae.prior.code(codes))
    image_grid(ax, decoded.flatten(0, 1), columns=steps)
    ax.set_title("means of p(x|z) between the codes of two images")
    if decoded.dim() == 3:  # vectors
        names = [f"pair {row + 1}" for row in range(len(decoded))]
        _name_rows(ax, decoded.flatten(0, 1), steps, names, "code of A above, of B below")
    else:
        width = decoded.shape[-1] + 1
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
        decoded = vae.likelihood.under(x[0]).picture(vae.prior.code(codes))
    image_grid(ax, decoded.flatten(0, 1), columns=steps)
    names = [f"z[{unit}]" for unit in shown]
    _name_rows(ax, decoded.flatten(0, 1), steps, names, "-2 sd above, +2 sd below")
    ax.set_title("means of p(x|z), where one unit of z moves, the most active one first")
    if decoded.dim() > 3:
        width = decoded.shape[-1] + 1
        ax.set_xticks(
            [width / 2 - 1, steps * width / 2 - 1, (steps - 0.5) * width - 1],
            ["-2 sd", "the image's code", "+2 sd"],
        )
    return ax


def manifold(ax: "Axes", vae: VAE, side: int = 20, like: Tensor | None = None) -> "Axes":
    """Draw decoded codes of a grid over a two-dimensional real latent space.

    The grid points are evenly spaced quantiles of N(0, 1) in each dimension. So under the prior
    N(0, I) each image stands for a cell of the same probability.

    Args:
        ax: the axes.
        vae: a VAE with two latent dimensions.
        side: the number of images in a row, and in a column.
        like: an example whose conditions all images have, shape [*event]; only a VAE with
            conditions needs it.
    """
    from scipy import special

    line = torch.tensor(special.ndtri((np.arange(side) + 0.5) / side), dtype=torch.float32)
    first, second = torch.meshgrid(line, line.flip(0), indexing="xy")
    z = torch.stack([first, second], -1).reshape(-1, 2).to(next(vae.parameters()).device)
    likelihood = vae.likelihood if like is None else vae.likelihood.under(like)
    with torch.no_grad():
        decoded = likelihood.picture(z)
    image_grid(ax, decoded, columns=side)
    ax.set_title("means of p(x|z) for z on a grid of quantiles of N(0, I)")
    if decoded.dim() == 2:
        ax.set_ylabel("point of the grid, row by row")
    else:
        height, width = (length + 1 for length in decoded.shape[-2:])
        ticks = range(0, side, max(1, side // 5))
        ax.set_xticks([(i + 0.5) * width - 1 for i in ticks], [f"{line[i]:.1f}" for i in ticks])
        ax.set_yticks([(i + 0.5) * height - 1 for i in ticks], [f"{-line[i]:.1f}" for i in ticks])
        ax.set(xlabel="z[0]", ylabel="z[1]")
    return ax
