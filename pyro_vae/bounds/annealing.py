"""Annealed importance sampling: log p(x) from below, and from above, with Monte Carlo errors.

A chain begins with a draw from f_0 = q(z|x), or p(z), and is led to f_1 = p(x, z) through

    f_t = f_0^(1 - b_t) f_1^(b_t),    0 = b_0 < b_1 < .. < b_T = 1,

by Hamiltonian Monte Carlo moves that leave f_t as it is (Neal 2001; Wu, Burda, Salakhutdinov &
Grosse 2017). Its weight

    log w = sum_t (b_t - b_(t-1)) (log f_1 - log f_0)(z_(t-1))

has E[w] = p(x), whatever T is and however well the chain mixes. So the mean w of C chains has that
expectation too, and a logarithm with an expectation of log p(x) at most: a lower bound.

Step sizes are adapted on a pilot run and frozen: moves that were adapted in the run that counts
would not leave f_t as it is, and E[w] would not be p(x).

**From above, on any data.** log is concave, so for any X > 0 log p <= log X + p / X - 1. With Y an
estimate of p without bias that is independent of X,

    E[log X + Y / X - 1] >= log p(x)

(Struski et al. 2022). Here Y is the weight of one chain and X the mean of the others, for each
chain in turn. The mean of Y / X is only estimated as well as the tails of w / p allow: on raw
importance weights it comes out below better lower bounds. The tails are checked by their k-hat.

**From above, on data drawn from the model** (bidirectional Monte Carlo, Grosse, Ghahramani & Adams
2015; Grosse, Ancha & Roy 2016). The z that x was made from is an exact draw from p(z|x). A chain
run backwards from it has a weight with E[1 / w] = 1 / p(x), hence log p(x) <= -E[log 1/w].

What neither covers: a mode of p(z|x) that no chain finds is missing from w alike, and the first
upper bound, estimated, is then too low. The second cannot miss it, but is for simulated x, which
may be unlike the real ones: it certifies the settings (T, the moves), not the data.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_vae.bounds.batches import Results, fastest, in_batches
from pyro_vae.bounds.densities import Densities, Point, prior_of, simulate
from pyro_vae.bounds.estimates import Estimate, certified, finite, leave_one_out
from pyro_vae.bounds.khat import good_k, pareto_k, tail_length
from pyro_vae.errors import InputError
from pyro_vae.programs.random_streams import undisturbed
from pyro_vae.programs.traces import Program

ACCEPTANCE = 0.75  # what step sizes are adapted to
PILOT_CHAINS = 4


@dataclass(frozen=True)
class Settings:
    """How chains are led from f_0 to f_1.

    Args:
        temperatures: T, the number of steps between the two.
        chains: C, for each example.
        leapfrog: the number of leapfrog steps of a move.
        start: f_0: `posterior` is q(z|x), `prior` is p(z), which is further away.
        schedule: of b_t: even (`linear`), or slow at both ends (`sigmoid`).
    """

    temperatures: int = 200
    chains: int = 16
    leapfrog: int = 4
    start: Literal["posterior", "prior"] = "posterior"
    schedule: Literal["sigmoid", "linear"] = "sigmoid"

    def __post_init__(self) -> None:
        for name, least in (("temperatures", 1), ("chains", 2), ("leapfrog", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name} have to be at least {least}, and {getattr(self, name)} is not"
                )
        for name, choices in (("start", ("posterior", "prior")), ("schedule", _SCHEDULES)):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} has to be {' or '.join(choices)}, and {getattr(self, name)} is not"
                )

    def betas(self) -> Tensor:
        """b_0, .., b_T, `float64`, from 0 to 1."""
        return _SCHEDULES[self.schedule](torch.linspace(0, 1, self.temperatures + 1).double())


def _sigmoid(even: Tensor) -> Tensor:
    """Wu et al. (2017), section 4: a logistic function between -4 and 4, from 0 to 1."""
    low, high = torch.sigmoid(torch.tensor([-4.0, 4.0], dtype=torch.float64))
    return ((torch.sigmoid(8 * even - 4) - low) / (high - low)).clamp(0, 1)


_SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": _sigmoid, "linear": lambda b: b}


@dataclass(frozen=True)
class Annealed:
    """What `anneal` returns.

    Attributes:
        settings: with which it was made.
        log_w: log-weights in nats, `float64`, shape [chains, N].
        acceptance: the mean acceptance probability of the moves, of each example, shape [N].
    """

    settings: Settings
    log_w: Tensor
    acceptance: Tensor

    @property
    def lower(self) -> Estimate:
        """Log-mean of the weights: a lower bound in expectation."""
        return lower(self.log_w)

    @property
    def upper(self) -> Estimate:
        """An upper bound in expectation; see `upper_k` before you believe it."""
        return upper(self.log_w)

    @property
    def ess(self) -> Tensor:
        """The effective number of chains, (sum w)^2 / sum w^2, of each example, shape [N].

        How well they agree: all of them where all weights are alike, 0 where there is no weight.
        """
        ess = (2 * self.log_w.logsumexp(0) - (2 * self.log_w).logsumexp(0)).exp()
        return ess.nan_to_num(0.0)

    @property
    def upper_k(self) -> float:
        """The Pareto k-hat of all Y / X in the upper bound, over chains and examples together.

        Above 0.7 their mean is not to be trusted, above 1 there is none.
        """
        return pareto_k((self.log_w - leave_one_out(self.log_w)).flatten()[None]).item()

    @property
    def upper_flaw(self) -> str | None:
        """What is wrong with the upper bound, in words; None if nothing is known to be."""
        k, good = self.upper_k, good_k(self.log_w.numel())
        if tail_length(self.log_w.numel()) < 5:
            return "there are too few weights to tell how heavy their tails are"
        if not math.isfinite(self.upper.mean):
            return "it is not finite"
        if k > good:
            return f"the weights' tails are too heavy (k-hat {k:.2f}, above {good:.2f})"
        return None

    @property
    def chain_flaw(self) -> str | None:
        """What is wrong with the chains, in words; None if they move, and agree."""
        chains = self.settings.chains
        if self.acceptance.mean() < 0.4 and self.settings.temperatures > 1:
            return f"only {self.acceptance.mean():.0%} of moves are accepted"
        if self.ess.median() < chains / 4:
            return f"{self.ess.median():.1f} of {chains} chains have nearly all the weight"
        return None

    def certified(self, delta: float = 0.05) -> float:
        """A number that the mean log p(x) exceeds with probability 1 - delta; see `certified`."""
        return certified(self.lower.values, delta)

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of it."""
        return {
            "num_examples": self.log_w.shape[1],
            **vars(self.settings),
            "lower": self.lower.to_dict(),
            "upper": self.upper.to_dict(),
            "upper_khat": finite(self.upper_k),
            "upper_flaw": self.upper_flaw,
            "certified95": finite(self.certified()),
            "acceptance": self.acceptance.mean().item(),
            "ess": {"min": self.ess.min().item(), "median": self.ess.median().item()},
        }


@dataclass(frozen=True)
class Bidirectional:
    """What `bidirectional` returns: bounds for data drawn from the model, in nats.

    Attributes:
        forward: chains from f_0 to f_1; its `lower` is a bound in expectation.
        upper: from chains back, from the exact draw. Its Monte Carlo variance is unknown: the
            chains of an example all begin at the one z that it was made from.
    """

    forward: Annealed
    upper: Estimate

    @property
    def gap(self) -> Estimate:
        """The upper bound less the lower one: neither is looser than that, for such x.

        All of its noise shows in its spread over examples: its error is `se`.
        """
        return self.upper - self.forward.lower

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of it."""
        return {
            "num_examples": len(self.upper.values),
            "lower": self.forward.lower.to_dict(),
            "upper": self.upper.to_dict(),
            "gap": self.gap.to_dict(),
        }


def lower(log_w: Tensor) -> Estimate:
    """Bound log p(x) from below by the log-mean of unbiased weights.

    Args:
        log_w: nats, shape [chains, N].

    Returns:
        The bounds; their Monte Carlo variance is that of the mean weight, relative, by the delta
        method.
    """
    log_w = log_w.double()
    count = len(log_w)
    values = log_w.logsumexp(0) - math.log(count)
    relative = (log_w - values.clamp(min=torch.finfo(values.dtype).min)).exp()
    return Estimate(values, relative.var(0) / count)


def upper(log_w: Tensor) -> Estimate:
    """Bound log p(x) from above, by E[log X + Y / X - 1] (Struski et al. 2022).

    Args:
        log_w: nats, of weights w with E[w] = p(x), independent, shape [chains, N], chains > 1. Not
            of plain importance sampling: the tails of those are too heavy.

    Returns:
        The mean over chains, Y being the weight of one and X the mean of the others. Its Monte
        Carlo variance is that of terms that are independent to first order.
    """
    log_w = log_w.double()
    log_x = leave_one_out(log_w)
    terms = log_x + torch.expm1(log_w - log_x)
    return Estimate(terms.mean(0), terms.var(0) / len(terms))


def anneal(
    model: Program,
    guide: Program,
    x: Tensor,
    settings: Settings | None = None,
    *,
    plate: str = "data",
    seed: int = 0,
    batch_size: int = 50,
    compile: bool | None = None,
    keep: Path | None = None,
    progress: bool = False,
) -> Annealed:
    """Bound log p(x) from both sides, by annealed importance sampling.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`, whose sites are continuous.
        x: the examples, along the first dimension; every site has to be in the data plate.
        settings: how chains are led.
        plate: the name of the data plate.
        seed: of all noise; the global generators stay as they were.
        batch_size: how many examples are worked on at once, each with all its chains.
        compile: whether to compile the programs; by default where that takes less time than it
            saves.
        keep: a file to go on from if the call is interrupted; the caller removes it.
        progress: whether to show a progress bar.

    Raises:
        InputError: if a site is discrete, or where HMC has no coordinates, or there is no example.
        ValueError: if a site is not in the data plate, or model and guide do not match.
    """
    settings = settings or Settings()
    results = _run(
        "annealing", model, guide, x, settings, plate, seed, batch_size, compile, keep, progress
    )
    return Annealed(settings, results["log_w"].T, results["acceptance"])


def bidirectional(
    model: Program,
    guide: Program,
    x: Tensor,
    settings: Settings | None = None,
    *,
    plate: str = "data",
    seed: int = 0,
    batch_size: int = 50,
    compile: bool | None = None,
    keep: Path | None = None,
    progress: bool = False,
) -> Bidirectional:
    """Bound log p(x) of data drawn from the model, from both sides.

    Args:
        model: a Pyro program, called as `model(x)`, which observes x at one site.
        guide: a Pyro program, called as `guide(x)`, whose sites are continuous.
        x: as many examples as are to be drawn, of their shape, and such as the programs take; the
            values do not matter else.
        settings: how chains are led.
        plate: the name of the data plate.
        seed: of all noise; the global generators stay as they were.
        batch_size: how many examples are worked on at once, each with all its chains.
        compile: whether to compile the programs; by default where that takes less time than it
            saves.
        keep: a file to go on from if the call is interrupted; the caller removes it.
        progress: whether to show a progress bar.

    Raises:
        InputError: as `anneal`; and if the guide makes its latent sites of auxiliary ones.
        ValueError: as `anneal`; and if the model does not observe x at one site.
    """
    settings = settings or Settings()
    results = _run(
        "bidirectional", model, guide, x, settings, plate, seed, batch_size, compile, keep, progress
    )
    forward = Annealed(settings, results["log_w"].T, results["acceptance"])
    values = -lower(-results["log_w_back"].T).values  # E[1 / w] = 1 / p(x)
    return Bidirectional(forward, Estimate(values, torch.full_like(values, math.nan)))


def _run(
    work: Literal["annealing", "bidirectional"],
    model: Program,
    guide: Program,
    x: Tensor,
    settings: Settings,
    plate: str,
    seed: int,
    batch_size: int,
    compile: bool | None,
    keep: Path | None,
    progress: bool,
) -> Results:
    """Lead chains one way, or both, for all examples."""
    start = guide if settings.start == "posterior" else prior_of(model)
    run = _Run(model, start, x[:batch_size], settings, plate, len(x), compile)
    one_way = work == "annealing"
    return in_batches(
        run.forward if one_way else run.both_ways,
        x,
        batch_size=batch_size,
        seed=seed,
        units=run.units if one_way else 2 * run.units,
        unit="move",
        description=work,
        progress=progress,
        keep=keep,
        depends_on=[model, guide, plate, settings, run.is_compiled],
    )


@dataclass(frozen=True)
class _Moves:
    """What a pilot run found, frozen: the scale of each coordinate, [batch, D], and step sizes.

    Those are for each temperature and example, shape [T, batch].
    """

    scale: Tensor
    steps: Tensor


class _Run:
    """Annealing of one batch after another."""

    def __init__(
        self,
        model: Program,
        start: Program,
        x: Tensor,
        settings: Settings,
        plate: str,
        num_examples: int = 0,
        compile: bool | None = None,
    ) -> None:
        """Take a first batch x, to see how the programs are laid out."""
        if len(x) == 0:
            raise InputError("there are no examples to evaluate")
        self.settings = settings
        self.model = model
        self.plate = plate
        self.betas = settings.betas().tolist()
        self.densities = Densities(model, start, x, plate)
        self.units = (settings.chains + PILOT_CHAINS) * settings.temperatures
        with undisturbed(x):
            example = self.densities.draw(settings.chains, x)
        self._point = fastest(
            self.densities.point,
            example,
            x,
            pixels=self.units * settings.leapfrog * num_examples * x[0].numel(),
            wanted=compile,
        )

    @property
    def is_compiled(self) -> bool:
        """Whether it is: the last digits differ."""
        return self._point != self.densities.point

    def forward(self, x: Tensor, advance: Callable[[int], Any]) -> dict[str, Tensor]:
        """Return log-weights [batch, chains], and the mean acceptance of each example."""
        moves = self._pilot(x, advance)
        u = self.densities.draw(self.settings.chains, x)
        log_w, acceptance = self._lead(u, x, moves, advance)
        return {"log_w": log_w.T, "acceptance": acceptance}

    def both_ways(self, x: Tensor, advance: Callable[[int], Any]) -> dict[str, Tensor]:
        """Do the same for simulated data, and return log-weights of chains that go back, too."""
        latents, x = simulate(self.model, x, self.plate)
        forward = self.forward(x, advance)
        u = self.densities.at(latents, self.settings.chains, x)
        log_w, _ = self._lead(u, x, self._pilot(x, advance), advance, back=True)
        return {**forward, "log_w_back": log_w.T}

    def _pilot(self, x: Tensor, advance: Callable[[int], Any]) -> _Moves:
        """Find a scale for each coordinate, and a step size for each example and temperature.

        The scale is that of f_0. Step sizes follow the acceptance as the pilot's chains go from one
        temperature to the next.
        """
        scale = self.densities.draw(32, x).std(0)
        scale = scale.clamp(min=torch.finfo(scale.dtype).tiny ** 0.5)
        point = self.densities.point(self.densities.draw(PILOT_CHAINS, x), x)
        step = torch.full_like(point.log_p[0], self.densities.dims**-0.25)
        steps = [step]
        for beta in self.betas[1:-1]:
            steps.append(step)
            point, accepted = self._move(point, x, beta, step, scale)
            step = step * torch.exp(0.5 * (accepted.mean(0) - ACCEPTANCE))
            advance(PILOT_CHAINS * len(x))
        advance(PILOT_CHAINS * len(x))
        return _Moves(scale, torch.stack(steps))

    def _lead(
        self, u: Tensor, x: Tensor, moves: _Moves, advance: Callable[[int], Any], back: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Lead chains from f_0 to f_1, or back from f_1 to f_0.

        Returns:
            log w of each chain, `float64`, shape [chains, batch], and the mean acceptance, [batch].
            Of chains that go back, E[1 / w] = 1 / p(x).
        """
        point = Point(*self._point(u, x))
        log_w = torch.zeros_like(point.log_p, dtype=torch.float64)
        acceptance = torch.zeros_like(log_w[0])
        last = len(self.betas) - 1
        for t in reversed(range(1, last + 1)) if back else range(1, last + 1):
            if back and t < last:  # f_t's own move comes after its weight, or before it, going back
                point, accepted = self._move(point, x, self.betas[t], moves.steps[t], moves.scale)
                acceptance += accepted.mean(0)
            width = self.betas[t] - self.betas[t - 1]
            log_w += width * (point.log_p - point.log_q).double()
            if not back and t < last:
                point, accepted = self._move(point, x, self.betas[t], moves.steps[t], moves.scale)
                acceptance += accepted.mean(0)
            advance(len(u) * len(x))
        return log_w, acceptance / max(1, last - 1)

    def _move(
        self, point: Point, x: Tensor, beta: float, step: Tensor, scale: Tensor
    ) -> tuple[Point, Tensor]:
        """Move every chain by HMC that leaves f_0^(1 - beta) f_1^beta as it is.

        Args:
            point: where the chains are.
            x: the examples.
            beta: the inverse temperature.
            step: the step size of each example, shape [batch].
            scale: of each coordinate, shape [batch, D]; the mass is its inverse square.

        Returns:
            Where they are then, and with what probability each move was accepted, [chains, batch].
        """
        momentum = start = torch.randn_like(point.u)
        reach = step[:, None] * scale
        new = point
        for _ in range(self.settings.leapfrog):
            momentum = momentum + 0.5 * reach * _between(new.grad_q, new.grad_p, beta)
            new = Point(*self._point(new.u + reach * momentum, x))
            momentum = momentum + 0.5 * reach * _between(new.grad_q, new.grad_p, beta)
        before, after = (_between(p.log_q, p.log_p, beta) for p in (point, new))
        log_ratio = after - before + 0.5 * (start.square() - momentum.square()).sum(-1)
        probability = log_ratio.exp().clamp(max=1).nan_to_num(0.0)  # outside of f_t: never
        accepted = torch.rand_like(probability) < probability
        kept = [
            torch.where(accepted if one.dim() == 2 else accepted[..., None], one, other)
            for one, other in zip(new, point, strict=True)
        ]
        return Point(*kept), probability


def _between(zero: Tensor, one: Tensor, beta: float) -> Tensor:
    return (1 - beta) * zero + beta * one
