"""Chains between f_0 and f_1: their moves, their pilot run, and their weights.

Hamiltonian Monte Carlo moves the continuous coordinates, given the discrete ones. The proposals of
`discrete_moves` move the discrete ones, given the continuous ones. Each of the two leaves f_t
invariant, and is its own reverse. If there are both, the first comes first, and a backward chain,
which has to undo them, takes them in the reversed order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.bounds import discrete_moves
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
        scale: the scale of each coordinate that HMC moves, shape [batch, continuous].
        steps: the step size for each temperature, kind of moves and example, [T, kinds, batch].
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
        InputError: if there is no move for a site of the guide.
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
        # Each kind of moves, with its first step size and its largest one.
        self._kinds: list[tuple[Callable[..., tuple[Point, Tensor]], float, float]] = []
        if self.densities.continuous:
            self._kinds.append((self.move, self.densities.continuous**-0.25, math.inf))
        if self.densities.variables:
            self._kinds.append((self.move_discrete, 1.0, 1.0))
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
        scale = self.densities.scale(self.densities.draw(SCALE_DRAWS, x))
        point = self.densities.point(self.densities.draw(PILOT_CHAINS, x), x)
        step = torch.stack([torch.full_like(point.log_p[0], first) for _, first, _ in self._kinds])
        largest = step.new_tensor([largest for _, _, largest in self._kinds])[:, None]
        steps = [step]
        for beta in self.betas[1:-1]:
            steps.append(step)
            point, accepted = self._move_all(point, x, beta, step, scale)
            step = step * torch.exp(0.5 * (accepted - TARGET_ACCEPTANCE))
            step = step.minimum(largest)
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
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run chains from f_0 to f_1, or backwards from f_1 to f_0.

        Args:
            u: where the chains begin, shape [chains, batch, D].
            x: the examples.
            moves: the result of the pilot run.
            advance: a function to be told how many moves are done.
            backward: whether to run from f_1 to f_0.

        Returns:
            log w of each chain, `float64`, shape [chains, batch]; the mean acceptance, [batch]; and
            where the chains end. E[w] = p(x) for chains from f_0 to f_1, and E[1 / w] = 1 / p(x)
            for backward chains.
        """
        point = Point(*self._point(u, x))
        log_w = torch.zeros_like(point.log_p, dtype=torch.float64)
        acceptance = torch.zeros_like(log_w[0])
        last = len(self.betas) - 1
        for t in reversed(range(1, last + 1)) if backward else range(1, last + 1):
            # The move of f_t comes after the weight of step t, or before it in a backward chain.
            if backward and t < last:
                point, accepted = self._move_all(
                    point, x, self.betas[t], moves.steps[t], moves.scale, backward
                )
                acceptance += accepted.mean(0)
            width = self.betas[t] - self.betas[t - 1]
            log_w += width * (point.log_p - point.log_q).double()
            if not backward and t < last:
                point, accepted = self._move_all(
                    point, x, self.betas[t], moves.steps[t], moves.scale
                )
                acceptance += accepted.mean(0)
            advance(point.log_p.numel())
        return log_w, acceptance / max(1, last - 1), point.u

    def _move_all(
        self,
        point: Point,
        x: Arguments,
        beta: float,
        steps: Tensor,
        scale: Tensor,
        backward: bool = False,
    ) -> tuple[Point, Tensor]:
        """Move every chain by all kinds of moves, in the reversed order in a backward chain.

        Args:
            point: the positions of the chains.
            x: the examples.
            beta: the inverse temperature.
            steps: the step sizes of each kind, shape [kinds, batch].
            scale: as in `move`.
            backward: whether the chain runs backwards.

        Returns:
            The new positions, and the mean acceptance of each kind, shape [kinds, batch].
        """
        accepted = torch.empty_like(steps)
        order = range(len(self._kinds))
        for kind in reversed(order) if backward else order:
            move, _, _ = self._kinds[kind]
            point, probability = move(point, x, beta, steps[kind], scale)
            accepted[kind] = probability.mean(0)
        return point, accepted

    def move(
        self, point: Point, x: Arguments, beta: float, step: Tensor, scale: Tensor
    ) -> tuple[Point, Tensor]:
        """Move every chain by HMC that leaves f_0^(1 - beta) f_1^beta invariant.

        Args:
            point: the positions of the chains.
            x: the examples.
            beta: the inverse temperature.
            step: the step size of each example, shape [batch].
            scale: the scale of each coordinate, shape [batch, continuous]; its inverse square is
                the mass.

        Returns:
            The new positions, and the acceptance probability of each move, [chains, batch].
        """
        count = self.densities.continuous
        momentum = first_momentum = torch.randn_like(point.u[:, :, :count])
        scaled_step = step[:, None] * scale

        def kick(at: Point) -> Tensor:
            return 0.5 * scaled_step * _between(at.grad_q, at.grad_p, beta)[:, :, :count]

        new = point
        for _ in range(self.settings.leapfrog):
            momentum = momentum + kick(new)
            new = Point(*self._point(self.densities.add(new.u, scaled_step * momentum), x))
            momentum = momentum + kick(new)
        kinetic = 0.5 * (first_momentum.square() - momentum.square()).sum(-1)
        return self._accept(point, new, beta, kinetic)

    def move_discrete(
        self, point: Point, x: Arguments, beta: float, step: Tensor, scale: Tensor
    ) -> tuple[Point, Tensor]:
        """Move the discrete variables of every chain, by as many proposals as leapfrog steps.

        Args:
            point: the positions of the chains.
            x: the examples.
            beta: the inverse temperature.
            step: the step size of each example, shape [batch].
            scale: not used.

        Returns:
            The new positions, and the mean acceptance of the proposals, shape [chains, batch].
        """
        variables = self.densities.variables

        def proposal_at(at: Point) -> list[Tensor]:
            gradient = _between(at.grad_q, at.grad_p, beta)
            return discrete_moves.proposal(at.u, gradient, step, variables)

        total = torch.zeros_like(point.log_p)
        for _ in range(self.settings.leapfrog):
            forward = proposal_at(point)
            continuous = point.u[:, :, : self.densities.continuous]
            u = torch.cat([continuous, discrete_moves.propose(forward)], -1)
            new = Point(*self._point(u, x))
            log_ratio = discrete_moves.log_probability(proposal_at(new), point.u, variables)
            log_ratio = log_ratio - discrete_moves.log_probability(forward, new.u, variables)
            point, probability = self._accept(point, new, beta, log_ratio)
            total = total + probability
        return point, total / self.settings.leapfrog

    def _accept(
        self, point: Point, new: Point, beta: float, log_ratio: Tensor
    ) -> tuple[Point, Tensor]:
        """Accept or refuse proposals by the Metropolis-Hastings rule.

        Args:
            point: the positions of the chains.
            new: the proposed positions.
            beta: the inverse temperature.
            log_ratio: the log-ratio of the densities of the reverse and of the forward proposal,
                shape [chains, batch].

        Returns:
            The positions after the move, and the acceptance probabilities, shape [chains, batch].
        """
        before, after = (_between(p.log_q, p.log_p, beta) for p in (point, new))
        log_ratio = after - before + log_ratio
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
