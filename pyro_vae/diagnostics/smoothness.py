"""How smooth a latent space is, measured: paths, neighbours, and noise.

A plain autoencoder (beta = 0) has no reason to put anything sensible between two codes; the KL
gives a VAE one. Compare the two by these numbers, for the same images.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from pyro_vae.diagnostics.information import mean_and_error
from pyro_vae.diagnostics.units import unit_means
from pyro_vae.errors import InputError
from pyro_vae.vae import VAE

NOISE = (0.0, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Smoothness:
    """What `smoothness` found.

    Attributes:
        detour: the length of the decoded straight path between two codes, over the distance between
            its ends: 1 if the images change evenly into each other; shape [pairs]. None where the
            likelihood has no mean to draw a path of; NaN where both ends are the same image.
        jump: the longest of its steps, over the mean one: 1 if they are even; shape [pairs].
        turning: the mean angle between one step and the next, in radians: the path's curvature,
            in images; shape [pairs].
        neighbours: the share of an image's nearest neighbours that are its code's too; shape [N].
        noise: nats of log p(x|z) that noise on z costs, by its scale, in units of each dimension's
            standard deviation over the data; shape [N].
    """

    detour: Tensor | None
    jump: Tensor | None
    turning: Tensor | None
    neighbours: Tensor
    noise: dict[float, Tensor]

    def to_dict(self) -> dict[str, Any]:
        """Return means and standard errors."""
        paths = {"detour": self.detour, "jump": self.jump, "turning": self.turning}
        return {
            **{name: None if v is None else mean_and_error(v) for name, v in paths.items()},
            "neighbours": mean_and_error(self.neighbours),
            "noise": {str(scale): mean_and_error(cost) for scale, cost in self.noise.items()},
        }

    def __str__(self) -> str:
        def mean(values: Tensor) -> str:
            return f"{values.mean():.2f} ± {values.double().std() / len(values) ** 0.5:.2f}"

        lines = []
        if self.detour is not None and self.detour.isnan().any():
            lines.append("The decoder draws the same image of different codes: there are no paths")
        elif self.detour is not None and self.jump is not None and self.turning is not None:
            lines.append(
                f"Decoded paths are {mean(self.detour)} times as long as the straight way between "
                f"images,\ntheir longest step is {mean(self.jump)} times the mean one, and they "
                f"turn by {mean(self.turning)} radians a step"
            )
        lines += [
            f"{self.neighbours.mean():.0%} of an image's nearest neighbours are its code's too",
            "noise on z costs "
            + ", ".join(
                f"{mean(cost)} nats at {scale:g}" for scale, cost in self.noise.items() if scale
            )
            + " standard deviations",
        ]
        return ";\n".join(lines) + "."


def smoothness(
    vae: VAE,
    x: Tensor,
    *,
    steps: int = 17,
    neighbours: int = 10,
    noise: tuple[float, ...] = NOISE,
    seed: int = 0,
) -> Smoothness:
    """Measure how smooth a latent space is.

    An image's code is its posterior mean, estimated from draws; on the unit sphere it is that put
    back there, and the way between two codes is the great circle.

    Args:
        vae: with codes that are real vectors or on the sphere, in evaluation mode.
        x: examples, as the likelihood sees them, shape [N, *event], N > `neighbours`; one half is
            paired with the other.
        steps: points on a path, three at least.
        neighbours: how many nearest neighbours are looked at.
        noise: scales, in units of each dimension's standard deviation over the data.
        seed: of the noise.

    Raises:
        InputError: if the codes are discrete, or in two layers, or there are too few examples or
            points on a path.
    """
    if vae.posterior.support not in ("real", "sphere"):
        raise InputError(f"smoothness is of codes that are real, not {vae.posterior.support}")
    if steps < 3:
        raise InputError(f"a path has three points or more, and {steps} are not")
    if len(x) <= neighbours:
        raise InputError(f"{neighbours} nearest neighbours need more than {len(x)} examples")
    sphere = vae.posterior.support == "sphere"
    devices = [x.device] if x.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        ((z, _),) = unit_means(vae.guide, x).values()
        if sphere:
            z = normalize(z, dim=-1)
        costs = {}
        spread = z.std(0)
        direction = torch.randn_like(z)
        reference = _log_likelihood(vae, z, x)
        for scale in noise:
            moved = z + scale * spread * direction
            moved = normalize(moved, dim=-1) if sphere else moved
            costs[scale] = reference - _log_likelihood(vae, moved, x)
        return Smoothness(
            *_paths(vae, z, steps, sphere),
            neighbours=_overlap(z, vae.likelihood.kind.features(x).flatten(1), neighbours),
            noise=costs,
        )


def _paths(
    vae: VAE, z: Tensor, steps: int, sphere: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the detour, the longest step and the mean turn of the paths between codes."""
    half = min(len(z) // 2, 200)
    way = torch.linspace(0, 1, steps, device=z.device)[:, None, None]
    start, end = z[:half], z[-half:]
    codes = (1 - way) * start + way * end
    if sphere:  # at an even pace along the great circle (Shoemake 1985)
        angle = (start * end).sum(-1, keepdim=True).clamp(-1, 1).acos().clamp(1e-4, 3.1415)
        codes = (((1 - way) * angle).sin() * start + (way * angle).sin() * end) / angle.sin()
    try:
        images = torch.stack(
            [
                vae.likelihood.kind.features(vae.likelihood(vae.prior.code(code)).mean).flatten(1)
                for code in codes
            ]
        )
    except NotImplementedError:
        return None, None, None
    steps_taken = images.diff(dim=0)  # [steps - 1, pairs, pixels]
    lengths = steps_taken.norm(dim=-1)
    straight = (images[-1] - images[0]).norm(dim=-1)
    straight = straight.where(straight > 1e-6, torch.nan)  # no way, where all images are the same
    cosine = cosine_similarity(steps_taken[1:], steps_taken[:-1], dim=-1).clamp(-1, 1)
    turning = cosine.acos().mean(0).where(straight.isfinite(), torch.nan)
    return lengths.sum(0) / straight, lengths.max(0).values * (steps - 1) / lengths.sum(0), turning


def _log_likelihood(vae: VAE, z: Tensor, x: Tensor) -> Tensor:
    parts = zip(z.split(500), x.split(500), strict=True)
    return torch.cat([vae.likelihood(vae.prior.code(code)).log_prob(part) for code, part in parts])


def _overlap(z: Tensor, x: Tensor, count: int) -> Tensor:
    """Return the share of the `count` nearest neighbours that is the same in both spaces."""
    nearest = []
    for points in (z, x):
        distance = torch.cdist(points, points)
        distance.fill_diagonal_(torch.inf)
        nearest.append(distance.topk(count, largest=False).indices)
    shared = (nearest[0][:, :, None] == nearest[1][:, None, :]).any(-1)
    return shared.float().mean(1)
