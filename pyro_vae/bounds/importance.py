"""Importance-weighted lower bounds on log p(x) and their errors, from one stream of log-weights.

    ELBO   = E[log w]                                   (Kingma & Welling 2014, equation 2)
    IWAE_K = E[log 1/K sum_k w_k]                       (Burda, Grosse & Salakhutdinov 2016, eq. 8)
    ELBO = IWAE_1 <= IWAE_K <= IWAE_(K+1) <= log p(x)

Each estimate at a given K is an unbiased estimate of the bound at that K. IWAE_K is below log p(x)
by about Var(w) / (2 K E[w]^2), so bounds can only be compared at the same K.

The jackknife removes this leading term. It is an estimate of log p(x), not a bound (Nowozin 2018).

The upper bounds that the same weights give, CUBO and reverse importance sampling, are left out.
The first, log E[w^2] / 2, is estimated too low, because the part of the weights' tail that was not
drawn is missing. The second is loose by many nats. `annealing` has upper bounds.

The tail of the weights says how far all this can be trusted: see the Pareto k-hat of each example
(Vehtari et al. 2024). Above 0.7, the Monte Carlo error of IWAE_K may be unknown (see
`known_errors`), and IWAE_K may be far below log p(x).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pyro import validation_enabled
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from pyro_vae.bounds.batches import Results, fastest, in_batches
from pyro_vae.bounds.estimates import Estimate, leave_one_out
from pyro_vae.bounds.importance_results import Bounds
from pyro_vae.bounds.streaming import Stream
from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at, look_at_once
from pyro_vae.programs.pair import EvidenceOf, Pair
from pyro_vae.programs.traces import Program

LADDER = (1, 5, 50, 500, 5000)
REDUCED_TOGETHER = 500  # draws of an example: reducing fewer takes as much time


def elbo(log_w: Tensor) -> Tensor:
    """Estimate the ELBO of each example.

    Args:
        log_w: log-weights in nats, shape [num_samples, batch].

    Returns:
        Nats, shape [batch].
    """
    return log_w.mean(0)


def iwae(log_w: Tensor) -> Tensor:
    """Estimate IWAE_K of each example, K = num_samples.

    Args:
        log_w: log-weights in nats, shape [num_samples, batch].

    Returns:
        Nats, shape [batch].
    """
    return log_w.logsumexp(0) - math.log(len(log_w))


def jackknife(log_w: Tensor, order: int = 1) -> Tensor:
    """Estimate log p(x) by jackknife variational inference (Nowozin 2018, definition 1).

    The bias is O(1 / K^2) for order 1 and O(1 / K^3) for order 2; that of IWAE_K is O(1 / K). The
    estimate is not a bound, and its variance is larger. Order 1 takes O(K) operations, order 2
    O(K^2).

    Args:
        log_w: log-weights in nats, shape [num_samples, batch].
        order: the order, 1 or 2.

    Returns:
        Nats, shape [batch].

    Raises:
        InputError: if the order is another one, or the number of draws is not above the order.
    """
    count = len(log_w)
    if order not in (1, 2) or count <= order:
        raise InputError(
            f"the jackknife is of order 1 or 2, and takes more draws than its order: order {order} "
            f"and {count} draws were given",
            "order",
        )
    # The mean log-mean-exp over the subsets of K, K - 1 and K - 2 draws.
    all_draws, one_left_out = iwae(log_w), leave_one_out(log_w).mean(0)
    if order == 1:
        return count * all_draws - (count - 1) * one_left_out
    two_left_out = torch.stack(
        [leave_one_out(torch.cat([log_w[:k], log_w[k + 1 :]])).mean(0) for k in range(count)]
    ).mean(0)
    return (
        count**2 * all_draws - 2 * (count - 1) ** 2 * one_left_out + (count - 2) ** 2 * two_left_out
    ) / 2


def evaluate(
    model: Program,
    guide: Program,
    x: Any,
    num_samples: int = 5000,
    *,
    ladder: Sequence[int] = LADDER,
    plate: str | None = None,
    vectorize: bool | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    chunk_size: int | None = None,
    adapt: Callable[..., Program] | None = None,
    compile: bool | None = None,
    keep: Path | None = None,
    progress: bool = False,
) -> Bounds:
    """Estimate the ELBO and the ladder of IWAE bounds of each example.

    The log-weights are drawn in chunks, and each chunk is reduced when it is drawn: memory does not
    grow with K. For a rung k < K the estimate is the mean over disjoint groups of k of the same K
    draws.

    Modules run in the mode that they are in: call `eval()` first if they have dropout or batch
    normalisation.

    What this takes for granted about the programs is checked first, by running them: see
    `programs.looking`. If some site is outside the plate of the examples, the result is for all
    data together, and has a single value.

    Args:
        model: a Pyro program.
        guide: a Pyro program, the model's guide.
        x: the data, which both programs are called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`. The examples are along the first dimension.
        num_samples: K, the number of draws for each example.
        ladder: the sizes k at which IWAE_k is estimated. Sizes above K are left out, and K is
            added.
        plate: the name of the plate of the examples; by default it is found.
        vectorize: whether to make several draws at once; by default if the programs allow it.
        seed: the seed of the draws; the global random state is restored.
        batch_size: the number of examples that are taken at once; by default 50, or all if the
            programs give other log-probabilities in batches.
        chunk_size: the number of draws, over all examples of a batch, that are decoded at once; by
            default 5000, or fewer if they have more than a million numbers, which fit into caches.
        adapt: a function that makes a guide for a batch of examples, which it is called with; it
            replaces `guide`.
        compile: whether to compile the programs; by default if that saves more time than it takes.
            The draws are the same. Guides that `adapt` makes are not compiled.
        keep: a file for the results so far. If the call is interrupted, a later call with the same
            arguments continues from it. The caller removes the file.
        progress: whether to show a progress bar.

    Returns:
        Estimates in nats.

    Raises:
        InputError: if num_samples < 1, if no bound follows from the programs, or if `compile` is
            set for guides that `adapt` makes.
    """
    if adapt is not None and compile:
        raise InputError("guides that adapt makes cannot be compiled: leave compile out", "compile")
    if num_samples < 1:
        raise InputError(f"num_samples has to be at least 1, but is {num_samples}", "num_samples")
    arguments = Arguments.of(x)
    if chunk_size is None:
        chunk_size = max(1, min(5000, 1_000_000 // arguments.numel_per_example))
    if min([chunk_size, *ladder]) < 1:
        raise InputError("chunk_size and the ladder's rungs have to be at least 1", "ladder")
    rungs = sorted({k for k in ladder if k < num_samples} | {num_samples})
    pair = look_at(
        model,
        guide,
        arguments,
        plate=plate,
        vectorize=vectorize,
        batch_size=batch_size,
        most_at_once=min(50, chunk_size),
    )
    # One draw at a time: a graph of many runs would take minutes to compile, and gain nothing.
    chunk = chunk_size // max(1, pair.batch_size) if pair.vectorize else 1
    evaluator = _Evaluator(pair, adapt, rungs, max(1, chunk))
    numbers = num_samples * max(1, len(arguments)) * arguments.numel_per_example
    evaluator.prepare(arguments.take(slice(pair.batch_size)), numbers, compile)
    results = in_batches(
        evaluator.evaluate_batch,
        arguments,
        work_name="bounds",
        description="bounds" if adapt is None else "bounds, guide adapted",
        batch_size=pair.batch_size,
        seed=seed,
        units=num_samples,
        unit="draw",
        progress=progress,
        keep=keep,
        depends_on=[model, guide, pair.plate, rungs, chunk_size, adapt, evaluator.is_compiled],
    )
    return _bounds(results, rungs, pair.evidence_of)


class _Evaluator:
    """Draws the log-weights of one batch after another, and reduces them.

    Args:
        pair: the programs.
        adapt: as in `evaluate`.
        rungs: the sizes k at which IWAE_k is estimated, ascending; the last is K.
        chunk: the number of draws for each example that are decoded at once.
    """

    def __init__(
        self, pair: Pair, adapt: Callable[..., Program] | None, rungs: list[int], chunk: int
    ) -> None:
        self.pair = pair
        self.adapt = adapt
        self.rungs = rungs
        self.chunk = chunk
        self._adapted = False
        self._draw_chunk: Callable[[Arguments], Tensor] = self._draw_plain_chunk

    def prepare(self, first: Arguments, numbers: int, compile: bool | None) -> None:
        """Compile for batches like the first one, if `fastest` says so."""
        if self.adapt is None:  # each batch would compile its own guide
            self._draw_chunk = fastest(
                self._draw_plain_chunk, arguments=first, pixels=numbers, wanted=compile
            )

    @property
    def is_compiled(self) -> bool:
        """Whether the programs are compiled: that changes the last digits."""
        return self._draw_chunk != self._draw_plain_chunk

    @torch.no_grad()
    def evaluate_batch(self, batch: Arguments, advance: Callable[[int], Any]) -> Results:
        """Return the estimates for a batch of examples, and call `advance` with progress."""
        num_samples = self.rungs[-1]
        stream = Stream(self.rungs)
        pair = self.pair
        if self.adapt is not None:
            guide = batch.call(self.adapt)
            if not self._adapted:  # one is looked at: all are made in the same way
                found = look_at_once(pair.model, guide, batch, plate=pair.plate)
                self._adapted = found.plate == pair.plate
            pair = replace(pair, guide=guide)
        validate = is_validation_enabled()
        waiting: list[Tensor] = []  # chunks that are not reduced yet
        for drawn in range(0, num_samples, self.chunk):
            count = min(self.chunk, num_samples - drawn)
            with validation_enabled(validate and drawn == 0):  # only the first chunk is validated
                if pair is self.pair and count == self.chunk:
                    log_w = self._draw_chunk(batch)
                else:
                    log_w = _log_w(pair, batch, count)
            waiting.append(log_w)
            if drawn + count == num_samples or len(waiting) * self.chunk >= REDUCED_TOGETHER:
                stream.add(torch.cat(waiting).double())
                waiting = []
            advance(log_w.numel())
        return stream.results()

    def _draw_plain_chunk(self, batch: Arguments) -> Tensor:
        return _log_w(self.pair, batch, self.chunk)


def _log_w(pair: Pair, batch: Arguments, count: int) -> Tensor:
    """Return log-weights in nats, shape [count, batch]."""
    draws = pair.draw(batch, count)
    return draws.log_p() - draws.log_q()


def _bounds(results: Results, rungs: list[int], evidence_of: EvidenceOf = "each example") -> Bounds:
    """Make `Bounds` of what `Stream` returned for all batches."""
    count = rungs[-1]

    def estimate(name: str, groups: int = 1) -> Estimate:
        freedom = (groups if groups > 1 else count) - 1
        return Estimate(
            results[name], results[f"{name}_variance"], results[f"{name}_limit"], freedom
        )

    return Bounds(
        num_samples=count,
        elbo=estimate("elbo"),
        iwae={k: estimate(f"iwae_{k}", count // k) for k in rungs},
        gap=estimate("gap"),
        jackknife=estimate("jackknife"),
        ess=results["ess"],
        khat=results["khat"],
        evidence_of=evidence_of,
    )
