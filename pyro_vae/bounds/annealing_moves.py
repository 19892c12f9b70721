"""Chains between f_0 and f_1: Hamiltonian Monte Carlo moves, their pilot run, and their weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.bounds.annealing_settings import Settings
from pyro_vae.bounds.batches import fastest
from pyro_vae.bounds.densities import Densities, Point
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.pair import Pair
from pyro_vae.programs.random_streams import preserve_rng_state

TARGET_ACCEPTANCE = 0.75  # the acceptance probability to which step sizes are adapted
PILOT_CHAINS = 4
SCALE_DRAWS = 32  # the number of draws from f_0 that measure the scale of each coordinate


@dataclass(frozen=True)
class Moves:
    """What the pilot run determined. It is frozen in the run that counts.

    Attributes:
        scale: the scale of each coordinate, shape [batch, D].
        steps: the step size for each temperature and example, shape [T, batch].
    """

    scale: Tensor
    steps: Tensor


class Chains:
    """Annealing of one batch of examples after another.

    Args:
        pair: the model, and a program that draws from f_0 as its guide.
        x: a first batch of examples, from which the layout of the programs is read.
        settings: the settings of the chains.
        num_examples: the number of examples in all batches, to decide whether compiling saves time.
        compile: whether to compile the densities; None decides by the amount of work.

    Raises:
        InputError: if HMC cannot move the sites of the guide.
    """

    def __init__(
        self,
        pair: Pair,
        x: Arguments,
        settings: Settings,
        num_examples: int = 0,
        compile: bool | None = None,
    ) -> None:
        self.settings = settings
        self.betas = settings.betas().tolist()
        self.densities = Densities(pair, x)
        self.units = (settings.chains + PILOT_CHAINS) * settings.temperatures
        with preserve_rng_state(x):
            example = self.densities.draw(settings.chains, x)
        self._point = fastest(
            self.densities.point,
            example,
            arguments=x,
            pixels=self.units * settings.leapfrog * num_examples * x.numel_per_example,
            wanted=compile,
        )

    @property
    def is_compiled(self) -> bool:
        """Whether the densities are compiled: that changes the last digits."""
        return self._point != self.densities.point

    def pilot(self, x: Arguments, advance: Callable[[int], Any]) -> Moves:
        """Determine the scale of each coordinate, and step sizes by example and temperature.

        The scale is that of f_0. While the pilot's chains go from one temperature to the next, the
        step sizes are adapted to the acceptance.

        Args:
            x: the examples.
            advance: a function to be told how many moves are done.
        """
        scale = self.densities.draw(SCALE_DRAWS, x).std(0)
        scale = scale.clamp(min=torch.finfo(scale.dtype).tiny ** 0.5)
        point = self.densities.point(self.densities.draw(PILOT_CHAINS, x), x)
        step = torch.full_like(point.log_p[0], self.densities.dims**-0.25)
        steps = [step]
        for beta in self.betas[1:-1]:
            steps.append(step)
            point, accepted = self.move(point, x, beta, step, scale)
            step = step * torch.exp(0.5 * (accepted.mean(0) - TARGET_ACCEPTANCE))
            advance(PILOT_CHAINS * point.log_p.shape[1])
        advance(PILOT_CHAINS * point.log_p.shape[1])
        return Moves(scale, torch.stack(steps))

    def run(
        self,
        u: Tensor,
        x: Arguments,
        moves: Moves,
        advance: Callable[[int], Any],
        backward: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Run chains from f_0 to f_1, or backwards from f_1 to f_0.

        Args:
            u: where the chains begin, shape [chains, batch, D].
            x: the examples.
            moves: the result of the pilot run.
            advance: a function to be told how many moves are done.
            backward: whether to run from f_1 to f_0.

        Returns:
            log w of each chain, `float64`, shape [chains, batch], and the mean acceptance, [batch].
            E[w] = p(x) for chains from f_0 to f_1, and E[1 / w] = 1 / p(x) for backward chains.
        """
        point = Point(*self._point(u, x))
        log_w = torch.zeros_like(point.log_p, dtype=torch.float64)
        acceptance = torch.zeros_like(log_w[0])
        last = len(self.betas) - 1
        for t in reversed(range(1, last + 1)) if backward else range(1, last + 1):
            # The move of f_t comes after the weight of step t, or before it in a backward chain.
            if backward and t < last:
                point, accepted = self.move(point, x, self.betas[t], moves.steps[t], moves.scale)
                acceptance += accepted.mean(0)
            width = self.betas[t] - self.betas[t - 1]
            log_w += width * (point.log_p - point.log_q).double()
            if not backward and t < last:
                point, accepted = self.move(point, x, self.betas[t], moves.steps[t], moves.scale)
                acceptance += accepted.mean(0)
            advance(point.log_p.numel())
        return log_w, acceptance / max(1, last - 1)

    def move(
        self, point: Point, x: Arguments, beta: float, step: Tensor, scale: Tensor
    ) -> tuple[Point, Tensor]:
        """Move every chain by HMC that leaves f_0^(1 - beta) f_1^beta invariant.

        Args:
            point: the positions of the chains.
            x: the examples.
            beta: the inverse temperature.
            step: the step size of each example, shape [batch].
            scale: the scale of each coordinate, shape [batch, D]; its inverse square is the mass.

        Returns:
            The new positions, and the acceptance probability of each move, [chains, batch].
        """
        momentum = first_momentum = torch.randn_like(point.u)
        scaled_step = step[:, None] * scale
        new = point
        for _ in range(self.settings.leapfrog):
            momentum = momentum + 0.5 * scaled_step * _between(new.grad_q, new.grad_p, beta)
            new = Point(*self._point(new.u + scaled_step * momentum, x))
            momentum = momentum + 0.5 * scaled_step * _between(new.grad_q, new.grad_p, beta)
        before, after = (_between(p.log_q, p.log_p, beta) for p in (point, new))
        kinetic = 0.5 * (first_momentum.square() - momentum.square()).sum(-1)
        log_ratio = after - before + kinetic
        # NaN is where the trajectory left the support of f_t: such a move is never accepted.
        probability = log_ratio.exp().clamp(max=1).nan_to_num(0.0)
        accepted = torch.rand_like(probability) < probability
        moved_or_not = [
            torch.where(accepted if moved.dim() == 2 else accepted[..., None], moved, unmoved)
            for moved, unmoved in zip(new, point, strict=True)
        ]
        return Point(*moved_or_not), probability


def _between(zero: Tensor, one: Tensor, beta: float) -> Tensor:
    return (1 - beta) * zero + beta * one
