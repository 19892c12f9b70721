"""The smoothness of a latent space, measured by paths, neighbours, and noise.

The loss of a plain autoencoder (beta = 0) does not encourage the points between two codes to have a
meaning. The KL in the loss of a VAE encourages this. These numbers compare the two, for the same
examples.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from pyro_vae.diagnostics.means import mean_and_error, mean_as_text
from pyro_vae.diagnostics.units import unit_means
from pyro_vae.errors import InputError
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.vae import VAE

NOISE = (0.0, 0.1, 0.25, 0.5, 1.0)
PAIRS = 200  # pairs of codes with a path between them, at most


@dataclass(frozen=True)
class Smoothness:
    """What `smoothness` returns.

    Attributes:
        detour: the length of the decoded straight path between two codes, divided by the distance
            between its ends; 1 if one example changes evenly into the other; shape [pairs]. None if
            the likelihood has no mean, or none that is finite, so that no path can be decoded; NaN
            where both ends are the same example.
        jump: the longest step of the path, divided by the mean step; 1 if the steps are even; shape
            [pairs].
        turning: the mean angle between one step and the next, in radians: the curvature of the path
            in the space of examples; shape [pairs].
        neighbours: the share of an example's nearest neighbours that are nearest neighbours of its
            code too; shape [N].
        noise: the decrease of log p(x|z), in nats, caused by noise on z, by the scale of the noise,
            in units of each dimension's standard deviation over the data; shape [N].
    """

    detour: Tensor | None
    jump: Tensor | None
    turning: Tensor | None
    neighbours: Tensor
    noise: dict[float, Tensor]

    def to_dict(self) -> dict[str, Any]:
        """Return means and standard errors, for `diagnostics.json`."""
        paths = {"detour": self.detour, "jump": self.jump, "turning": self.turning}
        return {
            **{
                name: None if v is None else mean_and_error(self._of_paths(v))
                for name, v in paths.items()
            },
            "neighbours": mean_and_error(self.neighbours),
            "noise": {str(scale): mean_and_error(cost) for scale, cost in self.noise.items()},
        }

    def __str__(self) -> str:
        lines = []
        if self.detour is not None and self.jump is not None and self.turning is not None:
            same, pairs = int(self.detour.isnan().sum()), len(self.detour)
            detour, jump, turning = map(self._of_paths, (self.detour, self.jump, self.turning))
            if same == pairs:
                lines.append(
                    "The decoder draws the same example for different codes: there are no paths"
                )
            elif same:
                lines.append(
                    f"The decoder draws the same example for both codes of {same} of {pairs} pairs,"
                    "\nwhich have no path between them"
                )
            if same < pairs:
                lines.append(
                    f"{'d' if same else 'D'}ecoded paths are {mean_as_text(detour)} times as long "
                    "as the straight way between examples,\ntheir longest step is "
                    f"{mean_as_text(jump)} times the mean step, and they turn by "
                    f"{mean_as_text(turning)} radians a step"
                )
        costs = [
            f"{mean_as_text(cost)} nats at {scale:g}" for scale, cost in self.noise.items() if scale
        ]
        lines += [
            f"{100 * self.neighbours.mean():.0f} % of an example's nearest neighbours are nearest "
            "neighbours of its code too",
            f"noise on z, in standard deviations of z, costs {', '.join(costs)}",
        ]
        return ";\n".join(lines) + "."

    def _of_paths(self, values: Tensor) -> Tensor:
        """Return the values of the pairs that have a path; all if fewer than two have one."""
        known = torch.ones_like(values, dtype=torch.bool)
        if self.detour is not None:
            known = ~self.detour.isnan()
        return values[known] if known.sum() > 1 else values


def smoothness(
    vae: VAE,
    x: Tensor,
    *,
    steps: int = 17,
    neighbours: int = 10,
    noise: tuple[float, ...] = NOISE,
    seed: int = 0,
) -> Smoothness:
    """Measure the smoothness of a latent space.

    An example's code is its posterior mean, estimated from draws. On the unit sphere the mean is
    scaled back to length 1, and the path between two codes is the great circle. Conditions stay
    those of the first example along a path.

    Args:
        vae: a VAE whose codes are real vectors or on the sphere, in evaluation mode.
        x: examples, as the likelihood sees them, shape [N, *event], N > `neighbours`; one half is
            paired with the other.
        steps: the number of points on a path, three at least.
        neighbours: the number of nearest neighbours that are compared.
        noise: scales of the noise, in units of each dimension's standard deviation over the data.
        seed: seed of the draws and of the noise.

    Raises:
        InputError: if the codes are discrete, or in layers, or there are too few examples or
            points on a path.
    """
    if vae.posterior.support not in ("real", "sphere"):
        raise InputError(
            f"smoothness is defined for codes that are real, not {vae.posterior.support}"
        )
    if steps < 3:
        raise InputError(f"a path needs three points or more, but {steps} were given")
    if len(x) <= neighbours:
        raise InputError(
            f"comparing {neighbours} nearest neighbours needs more than {neighbours} examples, "
            f"but there are {len(x)}"
        )
    on_sphere = vae.posterior.support == "sphere"
    with torch.no_grad(), preserve_rng_state(x):
        torch.manual_seed(seed)
        ((z, _),) = unit_means(vae.guide, x).values()
        if on_sphere:
            z = normalize(z, dim=-1)
        costs = {}
        spread = z.std(0)
        direction = torch.randn_like(z)
        reference = _log_likelihood(vae, z, x)
        for scale in noise:
            moved = z + scale * spread * direction
            moved = normalize(moved, dim=-1) if on_sphere else moved
            costs[scale] = reference - _log_likelihood(vae, moved, x)
        return Smoothness(
            *_measure_paths(vae, z, x, steps, on_sphere),
            neighbours=_shared_neighbours(
                z, vae.likelihood.kind.features(x).flatten(1), neighbours
            ),
            noise=costs,
        )


def _paths(start: Tensor, end: Tensor, steps: int, on_sphere: bool) -> Tensor:
    """Return `steps` points on the path between each pair of codes, [steps, pairs, D]."""
    position = torch.linspace(0, 1, steps, device=start.device)[:, None, None]
    if not on_sphere:
        return (1 - position) * start + position * end
    # Points at even distances on the great circle (Shoemake 1985).
    angle = (start * end).sum(-1, keepdim=True).clamp(-1, 1).acos().clamp(1e-4, 3.1415)
    weighted = ((1 - position) * angle).sin() * start + (position * angle).sin() * end
    return weighted / angle.sin()


def _measure_paths(
    vae: VAE, z: Tensor, x: Tensor, steps: int, on_sphere: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the detour, the longest step and the mean turn of the paths between codes."""
    pairs = min(len(z) // 2, PAIRS)
    codes = _paths(z[:pairs], z[-pairs:], steps, on_sphere)
    likelihood = vae.likelihood.under(x[:pairs])
    try:
        decoded = torch.stack(
            [
                likelihood.kind.features(likelihood.typical(vae.prior.code(code))).flatten(1)
                for code in codes
            ]
        )
    except NotImplementedError:
        return None, None, None
    if not decoded.isfinite().all():  # such as the mean of a Cauchy
        return None, None, None
    changes = decoded.diff(dim=0)  # [steps - 1, pairs, values]
    lengths = changes.norm(dim=-1)
    straight = (decoded[-1] - decoded[0]).norm(dim=-1)
    straight = straight.where(straight > 1e-6, torch.nan)  # no path, if the ends are the same
    cosine = cosine_similarity(changes[1:], changes[:-1], dim=-1).clamp(-1, 1)
    turning = cosine.acos().mean(0).where(straight.isfinite(), torch.nan)
    return lengths.sum(0) / straight, lengths.max(0).values * (steps - 1) / lengths.sum(0), turning


def _log_likelihood(vae: VAE, z: Tensor, x: Tensor) -> Tensor:
    parts = zip(z.split(500), x.split(500), strict=True)
    return torch.cat(
        [vae.likelihood.given(vae.prior.code(code), part).log_prob(part) for code, part in parts]
    )


def _shared_neighbours(z: Tensor, x: Tensor, count: int) -> Tensor:
    """Return the share of the `count` nearest neighbours that are the same in both spaces."""
    nearest = []
    for points in (z, x):
        distance = torch.cdist(points, points)
        distance.fill_diagonal_(torch.inf)
        nearest.append(distance.topk(count, largest=False).indices)
    shared = (nearest[0][:, :, None] == nearest[1][:, None, :]).any(-1)
    return shared.float().mean(1)
