"""Annealed importance sampling: log p(x) from below, and from above, with Monte Carlo errors.

A chain begins with a draw from f_0, which is q(z|x) or p(z), and moves to f_1 = p(x, z) through

    f_t = f_0^(1 - b_t) f_1^(b_t),    0 = b_0 < b_1 < .. < b_T = 1,

by moves that leave f_t invariant (Neal 2001; Wu, Burda, Salakhutdinov & Grosse 2017): Hamiltonian
Monte Carlo for continuous variables, on circles and spheres too, and proposals from gradients for
discrete variables. Its weight

    log w = sum_t (b_t - b_(t-1)) (log f_1 - log f_0)(z_(t-1))

has E[w] = p(x), for every T and however badly the chain mixes. The mean w of C chains has the same
expectation. By Jensen's inequality the expectation of its logarithm is at most log p(x): a lower
bound.

Step sizes are adapted in a pilot run and then frozen. Moves that are adapted in the run that counts
would not leave f_t invariant, and E[w] would not be p(x).

**From above, on any data.** log is concave, so for any X > 0 log p <= log X + p / X - 1. If Y is an
unbiased estimate of p that is independent of X, then

    E[log X + Y / X - 1] >= log p(x)

(Struski et al. 2022). Here Y is the weight of one chain and X the mean weight of the others, for
each chain in turn. The mean of Y / X is estimated only as well as the tails of w / p allow: with
plain importance weights this upper bound comes out below better lower bounds. The k-hat of the
tails is checked.

**From above, on data drawn from the model** (bidirectional Monte Carlo, Grosse, Ghahramani & Adams
2015; Grosse, Ancha & Roy 2016). The z from which x was drawn is an exact draw from p(z|x). A chain
that runs backwards from it has a weight with E[1 / w] = 1 / p(x), hence log p(x) <= -E[log 1/w].

Neither upper bound covers all cases. If no chain reaches some mode of p(z|x), the mass of this mode
is missing from all w, and the estimate of the first upper bound is too low. The second bound cannot
miss a mode, but it is for simulated x, which may be unlike the real ones: it certifies the settings
(T, the moves), not the data.

The settings are in `annealing_settings`, the chains in `annealing_moves`, and the bounds that the
weights give in `annealing_results`.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pyro_vae.bounds.annealing_moves import Chains
from pyro_vae.bounds.annealing_results import Annealed, Bidirectional, lower_bound
from pyro_vae.bounds.annealing_settings import Settings
from pyro_vae.bounds.batches import Results, in_batches
from pyro_vae.bounds.densities import prior_of
from pyro_vae.bounds.estimates import Estimate
from pyro_vae.bounds.simulation import simulate
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.traces import Program


def anneal(
    model: Program,
    guide: Program,
    x: Any,
    settings: Settings | None = None,
    *,
    plate: str | None = None,
    vectorize: bool | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    compile: bool | None = None,
    keep: Path | None = None,
    progress: bool = False,
) -> Annealed:
    """Bound log p(x) from both sides, by annealed importance sampling.

    Args:
        model: a Pyro program.
        guide: a Pyro program.
        x: the data, which both programs are called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`.
        settings: the settings of the chains.
        plate: the name of the plate of the examples; by default it is found.
        vectorize: whether all chains run at once; by default if the programs allow it.
        seed: the seed of all noise; the global random state is restored.
        batch_size: the number of examples that are annealed at once, each with all its chains; by
            default 50, or all if the programs do not allow batches.
        compile: whether to compile the programs; by default if that saves more time than it takes.
        keep: a file for the results so far. If the call is interrupted, a later call with the same
            arguments continues from it. The caller removes the file.
        progress: whether to show a progress bar.

    Raises:
        InputError: if a site is discrete with infinitely many values, or has another support for
            which there is no move, or no bound follows from the programs.
    """
    call = _Call(model, guide, x, settings, plate, vectorize, seed, batch_size, compile, keep)
    return _annealed(call, call.run("annealing", _forward, progress))


def bidirectional(
    model: Program,
    guide: Program,
    x: Any,
    settings: Settings | None = None,
    *,
    plate: str | None = None,
    vectorize: bool | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    compile: bool | None = None,
    keep: Path | None = None,
    progress: bool = False,
) -> Bidirectional:
    """Bound log p(x) of data drawn from the model, from both sides.

    Args:
        model: a Pyro program that observes its arguments as they are.
        guide: a Pyro program.
        x: a template of the data: as many examples as are to be drawn, in their shape, with any
            values that the programs accept.
        settings: as in `anneal`.
        plate: as in `anneal`.
        vectorize: as in `anneal`.
        seed: as in `anneal`.
        batch_size: as in `anneal`.
        compile: as in `anneal`.
        keep: as in `anneal`.
        progress: as in `anneal`.

    Raises:
        InputError: as `anneal`; if the guide computes its latent sites from auxiliary sites; and
            if the model observes something else than its arguments.
    """
    call = _Call(model, guide, x, settings, plate, vectorize, seed, batch_size, compile, keep)
    results = call.run("bidirectional", _both_ways, progress, passes=2)
    upper = -lower_bound(-results["log_w_backward"].T).values  # since E[1 / w] = 1 / p(x)
    return Bidirectional(
        _annealed(call, results), Estimate(upper, torch.full_like(upper, math.nan))
    )


class _Call:
    """A call of `anneal` or `bidirectional`, with the same arguments."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        x: Any,
        settings: Settings | None,
        plate: str | None,
        vectorize: bool | None,
        seed: int,
        batch_size: int | None,
        compile: bool | None,
        keep: Path | None,
    ) -> None:
        self.arguments = Arguments.of(x)
        self.settings = settings or Settings()
        self.seed = seed
        self.keep = keep
        pair = look_at(
            model,
            guide if self.settings.start == "posterior" else prior_of(model),
            self.arguments,
            plate=plate,
            vectorize=vectorize,
            batch_size=batch_size,
            most_at_once=50,
        )
        self.pair = pair
        first = self.arguments.take(slice(pair.batch_size))
        self.chains = Chains(pair, first, self.settings, len(self.arguments), compile)
        self.depends_on = [model, guide, pair.plate, self.settings, self.chains.is_compiled]

    def run(
        self,
        work_name: str,
        work: "Callable[[_Call, Arguments, Callable[[int], Any]], Results]",
        progress: bool,
        passes: int = 1,
    ) -> Results:
        """Anneal all examples, batch by batch.

        Args:
            work_name: the name of the work, which is part of the seed.
            work: what is done with a batch of examples.
            progress: whether to show a progress bar.
            passes: the number of times that `work` runs the pilot and the chains.
        """
        return in_batches(
            partial(work, self),
            self.arguments,
            work_name=work_name,
            batch_size=self.pair.batch_size,
            seed=self.seed,
            units=passes * self.chains.units,
            unit="move",
            progress=progress,
            keep=self.keep,
            depends_on=self.depends_on,
        )


def _forward(call: _Call, x: Arguments, advance: Callable[[int], Any]) -> Results:
    """Return log-weights, shape [batch, chains], and the mean acceptance of each example."""
    moves = call.chains.pilot(x, advance)
    u = call.chains.densities.draw(call.settings.chains, x)
    log_w, acceptance, _ = call.chains.run(u, x, moves, advance)
    return {"log_w": log_w.T, "acceptance": acceptance}


def _both_ways(call: _Call, x: Arguments, advance: Callable[[int], Any]) -> Results:
    """Do the same for simulated data, and return the log-weights of backward chains, too."""
    latents, x = simulate(call.pair.model, x)
    forward = _forward(call, x, advance)
    u = call.chains.densities.coordinates_of(latents, call.settings.chains, x)
    moves = call.chains.pilot(x, advance)
    log_w, _, _ = call.chains.run(u, x, moves, advance, backward=True)
    return {**forward, "log_w_backward": log_w.T}


def _annealed(call: _Call, results: Results) -> Annealed:
    return Annealed(
        call.settings,
        results["log_w"].T,
        results["acceptance"],
        evidence_of=call.pair.evidence_of,
    )
