"""Importance-weighted lower bounds on log p(x), from one stream of log-weights, with their errors.

    ELBO   = E[log w]                                   (Kingma & Welling 2014, equation 2)
    IWAE_K = E[log 1/K sum_k w_k]                       (Burda, Grosse & Salakhutdinov 2016, eq. 8)
    ELBO = IWAE_1 <= IWAE_K <= IWAE_(K+1) <= log p(x)

What is estimated at a given K is the bound at that K, without bias. IWAE_K lies below log p(x) by
about Var(w) / (2 K E[w]^2), and only bounds at the same K are to be compared.

The jackknife takes that leading term away: an estimate of log p(x), and no bound (Nowozin 2018).
Not here are the upper bounds that the same weights give, CUBO and reverse importance sampling: the
first, log E[w^2] / 2, is estimated too low by as much as the tail that was not drawn holds, and the
second is loose by many nats. `annealing` has upper bounds.

How far to trust all this, the weights' tail says: the Pareto k-hat of each example (Vehtari et al.
2024). Above 0.7, the Monte Carlo error is understated, and IWAE_K may be far below log p(x).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro import validation_enabled
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from pyro_vae.bounds.batches import Results, fastest, in_batches
from pyro_vae.bounds.estimates import HEADER, Estimate, finite, leave_one_out, row
from pyro_vae.bounds.khat import good_k, pareto_k, tail_length
from pyro_vae.bounds.weights import log_weights
from pyro_vae.errors import InputError
from pyro_vae.programs.traces import Program, plate_nesting

LADDER = (1, 5, 50, 500, 5000)
REDUCED = 500  # draws of an example that are reduced to bounds at a time


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

    Of order 1 its bias is O(1 / K^2), where that of IWAE_K is O(1 / K); of order 2, O(1 / K^3).
    It is no bound, and its variance is larger. Order 1 takes O(K) operations, order 2 O(K^2).

    Args:
        log_w: log-weights in nats, shape [num_samples, batch].
        order: 1 or 2.

    Returns:
        Nats, shape [batch].

    Raises:
        InputError: if there is no such order, or there are not more draws than it.
    """
    count = len(log_w)
    if order not in (1, 2) or count <= order:
        raise InputError(
            f"the jackknife is of order 1 or 2, and takes more draws than that: {order} and "
            f"{count} were given"
        )
    # The mean log-mean-exp over the subsets of K, K - 1 and K - 2 draws.
    whole, ones = iwae(log_w), leave_one_out(log_w).mean(0)
    if order == 1:
        return count * whole - (count - 1) * ones
    twos = torch.stack(
        [leave_one_out(torch.cat([log_w[:k], log_w[k + 1 :]])).mean(0) for k in range(count)]
    ).mean(0)
    return (count**2 * whole - 2 * (count - 1) ** 2 * ones + (count - 2) ** 2 * twos) / 2


@dataclass(frozen=True)
class Bounds:
    """What `evaluate` returns.

    Attributes:
        num_samples: K, the number of draws for each example.
        elbo: the ELBO, from all K draws.
        iwae: IWAE_k at each rung k of the ladder, the last of them K.
        gap: IWAE_K - ELBO: what the ELBO is known to be loose by.
        jackknife: the jackknife estimate of order 1 from all K draws, which is no bound. Its Monte
            Carlo error is that of IWAE_K, which it is to first order only.
        ess: the effective sample size of each example's weights, (sum w)^2 / sum w^2, shape [N].
        khat: the Pareto k-hat of each example's weights, shape [N].
    """

    num_samples: int
    elbo: Estimate
    iwae: dict[int, Estimate]
    gap: Estimate
    jackknife: Estimate
    ess: Tensor
    khat: Tensor

    @property
    def good_k(self) -> float:
        """The k-hat up to which K weights can be relied on."""
        return good_k(self.num_samples)

    @property
    def heavy(self) -> float:
        """The share of the examples whose k-hat is above that."""
        return (self.khat > self.good_k).double().mean().item()

    @property
    def looseness(self) -> float:
        """How far IWAE_K is below log p(x) to first order, Var(w) / 2 K E[w]^2, in nats.

        From the draws at hand: too small, perhaps by far, where the weights are heavy-tailed.
        """
        return ((1 / self.ess - 1 / self.num_samples) / 2).mean().item()

    @property
    def verdict(self) -> str:
        """What the weights' tails say of the bound, in words."""
        name, limit = f"IWAE_{self.num_samples}", f"{self.good_k:.2g}"
        if tail_length(self.num_samples) < 5:
            return f"{self.num_samples} draws are too few to tell how loose {name} is."
        share = f"{self.heavy:.0%} of the examples" if self.heavy else "none of the examples"
        found = f"k-hat is above {limit} on {share}"
        if self.heavy >= 0.05:
            return f"{found}: {name} is loose, and its MC error too small."
        return (
            f"{found}: the MC error can be relied on, and {name} is about {self.looseness:.2g} "
            "nats below log p(x)."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of it; keys are strings, numbers in nats."""
        return {
            "unit": "nats",
            "num_examples": len(self.elbo.values),
            "num_samples": self.num_samples,
            "elbo": {str(self.num_samples): self.elbo.to_dict()},
            "iwae": {str(k): estimate.to_dict() for k, estimate in self.iwae.items()},
            "gap": {str(self.num_samples): self.gap.to_dict()},
            "jackknife": {str(self.num_samples): self.jackknife.to_dict()},
            "ess": {"min": self.ess.min().item(), "median": self.ess.median().item()},
            "looseness": finite(self.looseness),
            "khat": {
                "good": self.good_k,
                "share_above": self.heavy,
                "median": finite(self.khat.median().item()),
                "max": finite(self.khat.max().item()),
            },
        }

    def __str__(self) -> str:
        rows = [("ELBO", self.elbo)]
        rows += [(f"IWAE_{k}", estimate) for k, estimate in self.iwae.items() if k > 1]
        rows += [(f"IWAE_{self.num_samples} - ELBO", self.gap)]
        if self.num_samples > 1:
            rows += [(f"JVI_{self.num_samples} (no bound)", self.jackknife)]
        return "\n".join([HEADER, *(row(name, estimate) for name, estimate in rows)])


def evaluate(
    model: Program,
    guide: Program,
    x: Tensor,
    num_samples: int = 5000,
    *,
    ladder: Sequence[int] = LADDER,
    plate: str = "data",
    seed: int = 0,
    chunk_size: int | None = None,
    adapt: Callable[[Tensor], Program] | None = None,
    compile: bool | None = None,
    keep: Path | None = None,
    progress: bool = False,
) -> Bounds:
    """Estimate the ELBO and the ladder of IWAE bounds of each example.

    The log-weights are drawn in chunks and reduced as they come: memory does not grow with K. For
    a rung k < K the estimate is the mean over disjoint groups of k of the same K draws.

    Args:
        model: a Pyro program, called as `model(x)`.
        guide: a Pyro program, called as `guide(x)`.
        x: the examples, along the first dimension; every site has to be in the data plate.
        num_samples: K, the number of draws for each example.
        ladder: the sizes k at which IWAE_k is estimated, as far as K; K itself is added.
        plate: the name of the data plate.
        seed: of the draws; the global generators stay as they were.
        chunk_size: how many draws, over all examples, are decoded at once; by default 5000, or as
            many as have a million pixels, which caches hold.
        adapt: makes a guide for each batch of examples, to be taken in the place of `guide`.
        compile: whether to compile the programs; by default where that takes less time than it
            saves. The draws are the same.
        keep: a file to go on from if the call is interrupted; the caller removes it.
        progress: whether to show a progress bar.

    Modules are run in the mode that they are in: networks with dropout or batch normalisation want
    `eval()` first.

    Returns:
        Estimates in nats.

    Raises:
        InputError: if num_samples < 1, or there are no examples.
        ValueError: if a site is not in the data plate.
    """
    if num_samples < 1:
        raise InputError(f"num_samples has to be at least 1, and {num_samples} is not")
    if len(x) == 0:
        raise InputError("there are no examples to evaluate")
    if chunk_size is None:
        chunk_size = max(1, min(5000, 1_000_000 // x[0].numel()))
    if min([chunk_size, *ladder]) < 1:
        raise InputError("chunk_size and the ladder's rungs have to be at least 1")
    rungs = sorted({k for k in ladder if k < num_samples} | {num_samples})
    batch_size = min(len(x), 50, chunk_size)
    chunk = chunk_size // batch_size
    nesting = plate_nesting(model, guide, x[:batch_size])

    def weigh(examples: Tensor, q: Program = guide, count: int = chunk) -> Tensor:
        return log_weights(model, q, examples, count, plate=plate, max_plate_nesting=nesting)

    def weigh_chunk(examples: Tensor) -> Tensor:
        return weigh(examples)

    pixels = num_samples * x.numel() if adapt is None else 0
    fast = fastest(weigh_chunk, x[:batch_size], pixels=pixels, wanted=compile)

    @torch.no_grad()
    def reduce(examples: Tensor, advance: Callable[[int], Any]) -> Results:
        stream = _Stream(rungs, num_samples)
        q = guide if adapt is None else adapt(examples)
        checks = is_validation_enabled()
        pending: list[Tensor] = []  # reduced together, which takes a while however few they are
        for drawn in range(0, num_samples, chunk):
            count = min(chunk, num_samples - drawn)
            with validation_enabled(checks and drawn == 0):
                if adapt is None and count == chunk:
                    log_w = fast(examples)
                else:
                    log_w = weigh(examples, q, count)
            if log_w.shape[1] != len(examples):
                raise ValueError(
                    f"the plate '{plate}' holds {log_w.shape[1]} of {len(examples)} examples: it "
                    "has to hold them all, in order"
                )
            pending.append(log_w)
            if drawn + count == num_samples or len(pending) * chunk >= REDUCED:
                stream.add(torch.cat(pending).double())
                pending = []
            advance(log_w.numel())
        return stream.results()

    found = in_batches(
        reduce,
        x,
        batch_size=batch_size,
        seed=seed,
        units=num_samples,
        unit="draw",
        description="bounds",
        progress=progress,
        keep=keep,
        depends_on=[model, guide, plate, rungs, chunk_size, adapt, fast is weigh_chunk],
    )

    def estimate(name: str) -> Estimate:
        return Estimate(found[name], found[f"{name}_variance"])

    return Bounds(
        num_samples,
        estimate("elbo"),
        {k: estimate(f"iwae_{k}") for k in rungs},
        estimate("gap"),
        Estimate(found["jackknife"], found[f"iwae_{num_samples}_variance"]),
        found["ess"],
        found["khat"],
    )


class _Rung:
    """Running mean and variance of IWAE_k over disjoint groups of k draws."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.groups = 0
        self.filled = 0  # draws in the group that is not full yet
        self.partial: Tensor | None = None  # their log-sum-exp
        self.sum: Tensor | float = 0.0
        self.sum_of_squares: Tensor | float = 0.0

    def add(self, log_w: Tensor) -> None:
        while len(log_w):
            if self.filled == 0 and len(log_w) >= self.size:
                whole = len(log_w) // self.size
                groups = log_w[: whole * self.size].reshape(whole, self.size, -1).logsumexp(1)
                log_w = log_w[whole * self.size :]
            else:
                taken = log_w[: self.size - self.filled]
                log_w = log_w[self.size - self.filled :]
                total = taken.logsumexp(0)
                self.partial = total if self.partial is None else self.partial.logaddexp(total)
                self.filled += len(taken)
                if self.filled < self.size:
                    continue
                groups = self.partial[None]
                self.filled, self.partial = 0, None
            bounds = groups - math.log(self.size)
            self.groups += len(bounds)
            self.sum = self.sum + bounds.sum(0)
            self.sum_of_squares = self.sum_of_squares + bounds.square().sum(0)

    def mean(self) -> Tensor:
        return torch.as_tensor(self.sum) / self.groups

    def mc_variance(self) -> Tensor:
        """The variance of the mean, from the spread between groups: two of them at least."""
        spread = self.sum_of_squares - self.groups * self.mean().square()
        return spread.clamp(min=0) / (self.groups - 1) / self.groups


class _Stream:
    """Reduces log-weights, [chunk, batch] at a time, to the estimates of `Bounds`.

    At the top rung there is one group, and no spread between groups. There, and for the gap, the
    Monte Carlo variance is that of the first-order terms (the delta method): draw k moves the
    logarithm of the mean weight by a_k / K with a_k = w_k / mean(w) - 1, the ELBO by b_k / K with
    b_k = log w_k - ELBO, and the gap by their difference. Running sums are all that it needs. A
    single draw says nothing of its error: NaN.

    The largest weights are kept: k-hat is fitted to them, and the jackknife is theirs, nearly.
    """

    def __init__(self, rungs: Sequence[int], num_samples: int) -> None:
        self.rungs = [_Rung(k) for k in rungs]
        self.elbo = _Rung(1)
        self.num_samples = num_samples
        self.log_sum = self.log_sum_of_squares = torch.tensor(-math.inf)  # of w, and of w^2
        self.tilted: Tensor | float = 0.0  # mean of log w under the normalised weights
        self.num_largest = max(tail_length(num_samples) + 1, 200)
        self.largest: Tensor | None = None

    def add(self, log_w: Tensor) -> None:
        for rung in [self.elbo, *self.rungs]:
            rung.add(log_w)
        chunk = log_w.logsumexp(0).clamp(min=torch.finfo(log_w.dtype).min)
        share = (log_w - chunk).exp()
        tilted = torch.where(share > 0, share * log_w, 0.0).sum(0)  # weights may be zero
        total = torch.logaddexp(self.log_sum.to(chunk), chunk)
        share = (chunk - total).exp()
        self.tilted = (1 - share) * self.tilted + share * tilted
        self.log_sum = total
        squares = (2 * log_w).logsumexp(0)
        self.log_sum_of_squares = torch.logaddexp(self.log_sum_of_squares.to(squares), squares)
        both = log_w if self.largest is None else torch.cat([self.largest, log_w])
        self.largest = both.topk(min(self.num_largest, len(both)), dim=0).values

    def ess(self) -> Tensor:
        """The effective sample size; 0 where no draw has any weight."""
        return (2 * self.log_sum - self.log_sum_of_squares).exp().nan_to_num(0.0)

    def jackknife(self) -> Tensor:
        """Return the estimate of order 1, whose terms are the shares p_k of the sum S of weights.

            log S - K log K + (K - 1) log(K - 1) - (K - 1) / K sum_k log(1 - p_k)

        A draw that was not kept has p <= 1/200, and -log(1 - p) is taken as p + p^2 / 2 there: the
        sum of p^3 / 3 is left out, 1e-5 nats at most.
        """
        k = self.num_samples
        share = (self._kept() - self.log_sum).exp().clamp(max=1 - 1e-15)
        squares = (self.log_sum_of_squares - 2 * self.log_sum).exp()
        left_out = (1 - share.sum(0)).clamp(min=0)
        left_out = left_out + (squares - share.square().sum(0)).clamp(min=0) / 2
        terms = left_out - torch.log1p(-share).sum(0)
        return self.log_sum - k * math.log(k) + (k - 1) * (math.log(k - 1) + terms / k)

    def results(self) -> Results:
        """Return values and variances of the estimates, and what the weights are like."""
        count, elbo, top = self.num_samples, self.elbo.mean(), self.rungs[-1].mean()
        found = {"elbo": elbo, "gap": top - elbo, "ess": self.ess()}
        found |= {f"iwae_{rung.size}": rung.mean() for rung in self.rungs}
        found["khat"] = pareto_k(self._kept().T, count)
        if count == 1:
            unknown = torch.full_like(elbo, math.nan)
            names = ("elbo", "gap", "iwae_1")
            return {**found, "jackknife": unknown, **{f"{n}_variance": unknown for n in names}}
        aa = (count**2 / self.ess() - count).clamp(min=0)
        ab = count * (self.tilted - elbo)
        bb = self.elbo.sum_of_squares - count * elbo.square()
        for rung in self.rungs:
            variance = rung.mc_variance() if rung.groups > 1 else aa / count / rung.size
            found[f"iwae_{rung.size}_variance"] = variance
        found["elbo_variance"] = self.elbo.mc_variance()
        found["gap_variance"] = (aa - 2 * ab + bb).clamp(min=0) / count**2
        found["jackknife"] = self.jackknife()
        return found

    def _kept(self) -> Tensor:
        assert self.largest is not None, "results are asked for after all draws"
        return self.largest
