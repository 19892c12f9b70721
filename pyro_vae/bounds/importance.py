"""Importance-weighted lower bounds on log p(x), from one stream of log-weights, with their errors.

    ELBO   = E[log w]                                   (Kingma & Welling 2014, equation 2)
    IWAE_K = E[log 1/K sum_k w_k]                       (Burda, Grosse & Salakhutdinov 2016, eq. 8)
    ELBO = IWAE_1 <= IWAE_K <= IWAE_(K+1) <= log p(x)

What is estimated at a given K is the bound at that K, without bias. IWAE_K lies below log p(x) by
about Var(w) / (2 K E[w]^2), and only bounds at the same K are to be compared.

Two errors are kept apart. The standard error is over examples: how far the mean may be from that
over all examples of their kind. The Monte Carlo error is over draws of z, for the examples at
hand: the standard deviation of the mean over reruns. It is estimated from the variance of the
weights, and comes out too small where a few draws carry all the weight, as a small effective
sample size tells.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from scipy import special
from torch import Tensor
from tqdm import tqdm

from pyro_vae.bounds.weights import Program, log_weights, plate_nesting
from pyro_vae.errors import InputError

LADDER = (1, 5, 50, 500, 5000)


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


@dataclass(frozen=True)
class Estimate:
    """A bound, or a difference of bounds, for each example, and what can be said of its mean.

    Attributes:
        values: nats, `float64`, shape [N].
        mc_variance: the Monte Carlo variance of each value, shape [N].
    """

    values: Tensor
    mc_variance: Tensor

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The paired difference of two independent estimates for the same examples."""
        return Estimate(self.values - other.values, self.mc_variance + other.mc_variance)

    @property
    def mean(self) -> float:
        """The mean over the examples, in nats."""
        return self.values.mean().item()

    @property
    def se(self) -> float:
        """The standard error of the mean over examples; NaN for a single one."""
        return (
            (self.values.std() / len(self.values) ** 0.5).item()
            if len(self.values) > 1
            else math.nan
        )

    @property
    def mc_se(self) -> float:
        """The Monte Carlo error of the mean, for these examples; NaN where K = 1 hides it."""
        return (self.mc_variance.sum().sqrt() / len(self.values)).item()

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval of the mean over the population of examples, by Student's t."""
        if len(self.values) < 2:
            return math.nan, math.nan
        reach = special.stdtrit(len(self.values) - 1, 0.975).item() * self.se
        return self.mean - reach, self.mean + reach

    def to_dict(self) -> dict[str, Any]:
        """Return mean, se, ci95 and mc_se, with None for what is not finite."""
        numbers = {"mean": self.mean, "se": self.se, "mc_se": self.mc_se}
        return {
            **{key: number if math.isfinite(number) else None for key, number in numbers.items()},
            "ci95": [end if math.isfinite(end) else None for end in self.ci95],
        }


@dataclass(frozen=True)
class Bounds:
    """What `evaluate` returns.

    Attributes:
        num_samples: K, the number of draws for each example.
        elbo: the ELBO, from all K draws.
        iwae: IWAE_k at each rung k of the ladder, the last of them K.
        gap: IWAE_K - ELBO: what the ELBO is known to be loose by.
        ess: the effective sample size of each example's weights, (sum w)^2 / sum w^2, shape [N].
    """

    num_samples: int
    elbo: Estimate
    iwae: dict[int, Estimate]
    gap: Estimate
    ess: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of it; keys are strings, numbers in nats."""
        return {
            "unit": "nats",
            "num_examples": len(self.elbo.values),
            "num_samples": self.num_samples,
            "elbo": {str(self.num_samples): self.elbo.to_dict()},
            "iwae": {str(k): estimate.to_dict() for k, estimate in self.iwae.items()},
            "gap": {str(self.num_samples): self.gap.to_dict()},
            "ess": {"min": self.ess.min().item(), "median": self.ess.median().item()},
        }

    def __str__(self) -> str:
        rows = [("ELBO", self.elbo)]
        rows += [(f"IWAE_{k}", estimate) for k, estimate in self.iwae.items() if k > 1]
        rows += [(f"IWAE_{self.num_samples} - ELBO", self.gap)]
        lines = [f"{'nats':18} {'mean':>10} {'se':>8} {'95 % interval':>22} {'MC error':>9}"]
        for name, estimate in rows:
            interval = "[{:.3f}, {:.3f}]".format(*estimate.ci95)
            lines.append(
                f"{name:18} {estimate.mean:10.3f} {estimate.se:8.3f} {interval:>22} "
                f"{estimate.mc_se:9.4f}"
            )
        lines += [
            "",
            f"Effective sample size of {self.num_samples} draws: {self.ess.median():.0f} (median).",
        ]
        small = min(100, self.num_samples / 10)  # a tenth of relative error, or nine draws in ten
        few = (self.ess < small).double().mean().item()
        if few > 0:
            lines.append(
                f"For {few:.0%} of the examples it is below {small:g}: there the Monte Carlo error "
                "is understated,\nand the bound may be far below log p(x)."
            )
        return "\n".join(lines)


def evaluate(
    model: Program,
    guide: Program,
    x: Tensor,
    num_samples: int = 5000,
    *,
    ladder: Sequence[int] = LADDER,
    plate: str = "data",
    seed: int = 0,
    chunk_size: int = 5000,
    adapt: Callable[[Tensor], Program] | None = None,
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
        seed: of the draws; the global generator of x's device is left as it was.
        chunk_size: how many draws, over all examples, are in memory at once.
        adapt: makes a guide for each batch of examples, to be taken in the place of `guide`.
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
    if min([chunk_size, *ladder]) < 1:
        raise InputError("chunk_size and the ladder's rungs have to be at least 1")
    rungs = sorted({k for k in ladder if k < num_samples} | {num_samples})
    batch = min(len(x), 50, chunk_size)
    results, ess = [], []
    devices = [x.device] if x.is_cuda else []
    checks = pyro.poutine.util.is_validation_enabled()
    bar = tqdm(
        total=num_samples * len(x),
        mininterval=0.1 if sys.stderr.isatty() else 10,
        unit="draw",
        unit_scale=True,
        desc="bounds",
        disable=not progress,
    )
    with torch.no_grad(), torch.random.fork_rng(devices), bar:
        torch.manual_seed(seed)
        nesting = plate_nesting(model, guide, x[:batch])
        for examples in x.split(batch):
            stream = _Stream(rungs, num_samples)
            q = guide if adapt is None else adapt(examples)
            for drawn in range(0, num_samples, chunk_size // batch):
                count = min(chunk_size // batch, num_samples - drawn)
                with pyro.validation_enabled(checks and drawn == 0):  # once for each example
                    log_w = log_weights(
                        model, q, examples, count, plate=plate, max_plate_nesting=nesting
                    )
                if log_w.shape[1] != len(examples):
                    raise ValueError(
                        f"the plate '{plate}' holds {log_w.shape[1]} of {len(examples)} examples: "
                        "it has to hold them all, in order"
                    )
                stream.add(log_w.double())
                bar.update(log_w.numel())
            results.append(stream.estimates())
            ess.append(stream.ess())
    elbo, gap, *iwae = [
        Estimate(torch.cat([e.values for e in parts]), torch.cat([e.mc_variance for e in parts]))
        for parts in zip(*results, strict=True)
    ]
    return Bounds(num_samples, elbo, dict(zip(rungs, iwae, strict=True)), gap, torch.cat(ess))


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
    """

    def __init__(self, rungs: Sequence[int], num_samples: int) -> None:
        self.rungs = [_Rung(k) for k in rungs]
        self.elbo = _Rung(1)
        self.num_samples = num_samples
        self.log_sum = self.log_sum_of_squares = torch.tensor(-math.inf)  # of w, and of w^2
        self.tilted: Tensor | float = 0.0  # mean of log w under the normalised weights

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

    def ess(self) -> Tensor:
        """The effective sample size; 0 where no draw has any weight."""
        return (2 * self.log_sum - self.log_sum_of_squares).exp().nan_to_num(0.0)

    def estimates(self) -> list[Estimate]:
        """Return the ELBO, the gap, and each rung."""
        count, elbo = self.num_samples, self.elbo.mean()
        gap = self.rungs[-1].mean() - elbo
        if count == 1:
            unknown = torch.full_like(elbo, math.nan)
            return [Estimate(values, unknown) for values in (elbo, gap, elbo)]
        aa = count**2 / self.ess() - count
        ab = count * (self.tilted - elbo)
        bb = self.elbo.sum_of_squares - count * elbo.square()
        iwae = [
            Estimate(
                rung.mean(),
                rung.mc_variance() if rung.groups > 1 else aa.clamp(min=0) / count / rung.size,
            )
            for rung in self.rungs
        ]
        gap_variance = (aa - 2 * ab + bb).clamp(min=0) / count**2
        return [Estimate(elbo, self.elbo.mc_variance()), Estimate(gap, gap_variance), *iwae]
