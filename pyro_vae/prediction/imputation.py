"""Imputation: what the values that are missing can be, given those that are observed.

    p(x_missing | x_observed) = E[p(x_missing | z) | x_observed]

by weighted draws of z from p(z | x_observed): self-normalised importance sampling (Mattei &
Frellsen 2019, equation 11), or the ends of annealed chains. Numbers are imputed by their mean, with
an interval from quantiles of weighted draws, and categories by the most probable one. Draws of all
missing values of a row together are multiple imputations.

An interval is one only where the draws stand for p(z | x_observed): where the k-hat of a row's
weights is good, and each tail of the interval has five effective draws or more. Elsewhere it is
NaN.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.bounds import Settings
from pyro_vae.bounds.batches import Results
from pyro_vae.bounds.estimates import finite, said
from pyro_vae.bounds.khat import good_k, pareto_k
from pyro_vae.bounds.weighted_draws import weighted_draws
from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Incomplete, Kind
from pyro_vae.programs.arguments import Arguments
from pyro_vae.vae import VAE

NUMBERS = 4_000_000  # of draws of x that are held at once
FEWEST_IN_TAIL = 5  # effective draws


@dataclass(frozen=True)
class Imputation:
    """Imputed values of N examples. Where a value is observed, it is that value everywhere.

    Attributes:
        values: means of numbers, the most probable ones of categories, shape [N, *event].
        means: means of numbers, and probabilities of binary values; NaN for other categories.
        mc_se: Monte Carlo standard errors of the means, from the spread of the draws; NaN where
            they are not reliable.
        lower: the lower ends of the intervals of numbers; NaN for categories, and where the row's
            draws are not reliable.
        upper: the upper ends.
        draws: imputed examples, drawn from p(x_missing | x_observed), shape [draws, N, *event].
        ess: the effective number of draws of each row, shape [N].
        khat: Pareto k-hat of the weights of each row, shape [N]; infinite of fewer than 25 draws.
        level: the probability that an interval has.
        log_density: log p(known value | observed values) in nats of each value that was hidden and
            is known, and NaN elsewhere, shape [N, *event]; None if none was given.
    """

    values: Tensor
    means: Tensor
    mc_se: Tensor
    lower: Tensor
    upper: Tensor
    draws: Tensor
    ess: Tensor
    khat: Tensor
    level: float
    log_density: Tensor | None = None


def impute(
    vae: VAE,
    x: Tensor,
    num_samples: int = 1000,
    *,
    draws: int = 5,
    level: float = 0.9,
    settings: Settings | None = None,
    hidden: Tensor | None = None,
    seed: int = 0,
    keep: Path | None = None,
    progress: bool = False,
) -> Imputation:
    """Impute missing values.

    Args:
        vae: a trained VAE whose likelihood is `likelihoods.ObservedEntries`, or one given
            conditions by `likelihoods.Given`, in evaluation mode.
        x: examples as the likelihood sees them, NaN where a value is missing, shape [N, *event].
        num_samples: the number of draws of z from q(z|x) for each example.
        draws: the number of multiple imputations.
        level: the probability of an interval, between 0 and 1.
        settings: the settings of annealed chains, to draw from their ends instead of from q(z|x);
            each chain is one draw, so intervals need a hundred or more.
        hidden: values that are known but not in x, and NaN elsewhere, shape [N, *event], to have
            their log-density.
        seed: the seed of all noise.
        keep: a file for the results so far; see `bounds.evaluate`.
        progress: whether to show a progress bar.

    Raises:
        InputError: if the VAE was not made for data with missing values, or an option is out of
            range.
    """
    kind = vae.likelihood.kind
    of = kind.of if isinstance(kind, Conditional) else kind
    if not isinstance(of, Incomplete):
        raise InputError(
            "this model has seen no data with missing values, and imputes none: train it on data "
            "that have some, or hide some with hold_out_entries"
        )
    if not 0 < level < 1:
        raise InputError(f"level has to be between 0 and 1, but is {level:g}", "level")
    if hidden is not None and hidden.shape != x.shape:
        raise InputError(
            f"hidden has the shape {list(hidden.shape)}, and the examples {list(x.shape)}: make "
            "them alike",
            "hidden",
        )
    x = x.to(next(vae.parameters()).dtype)
    if draws < 0:
        raise InputError(f"draws has to be 0 or more, but is {draws}", "draws")
    count = num_samples if settings is None else settings.chains

    def use(log_w: Tensor, trace: poutine.Trace, batch: Arguments) -> Results:
        p = trace.nodes["x"]["fn"]
        return _impute_batch(p, kind, log_w, draws, level, *batch.args)

    results = weighted_draws(
        _OfFirst(vae.model),
        _OfFirst(vae.guide),
        Arguments(x) if hidden is None else Arguments(x, hidden),
        use,
        num_samples=num_samples,
        settings=settings,
        seed=seed,
        batch_size=max(1, NUMBERS // max(1, count * x[:1].numel())),
        work_name="imputation",
        keep=keep,
        depends_on=[draws, level],
        progress=progress,
    )
    drawn = results.pop("draws").movedim(1, 0)
    return Imputation(draws=drawn, level=level, **results)


class _OfFirst(nn.Module):
    """A program that ignores all its arguments but the first."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Tensor, *ignored: Tensor) -> Any:
        return self.program(x)


def _impute_batch(
    p: distributions.ObservedEntries | distributions.WithConditions,
    kind: Kind,
    log_w: Tensor,
    draws: int,
    level: float,
    x: Tensor,
    hidden: Tensor | None = None,
) -> Results:
    """Return what `Imputation` holds of a batch, the examples in the first dimension.

    Args:
        p: p(x|z) of K draws of z, of the batch shape [K, batch].
        kind: what x is.
        log_w: log-weights, shape [K, batch].
        draws: see `impute`.
        level: see `impute`.
        x: the examples, shape [batch, *event].
        hidden: see `impute`.
    """
    event = x.shape[1:]
    shape = (*log_w.shape, *event)
    weights = log_w.softmax(0)
    w = weights.view(*log_w.shape, *[1] * len(event))
    drawn = p.sample().expand(shape).double()
    try:
        means_given_z = p.mean.expand(shape).double()
    except NotImplementedError:  # no closed form
        means_given_z = drawn
    means = (w * means_given_z).sum(0)
    mc_se = (w * (means_given_z - means)).square().sum(0).sqrt()
    lower, upper = (_quantile(drawn, w, (1 + side * level) / 2) for side in (-1, 1))
    sizes = kind.num_categories.to(x.device).expand(event)
    values = means
    if sizes.any():
        values = torch.where(sizes > 0, _most_probable(p, w, sizes, x), means)
        means, mc_se = (torch.where(sizes > 2, torch.nan, each) for each in (means, mc_se))
        lower, upper = (torch.where(sizes > 0, torch.nan, each) for each in (lower, upper))
    ess = 1 / weights.square().sum(0)
    khat = pareto_k(log_w.T).to(ess)
    is_good = (khat <= good_k(len(log_w))) & (ess * (1 - level) / 2 >= FEWEST_IN_TAIL)
    is_good = is_good.view(-1, *[1] * len(event))
    lower, upper, mc_se = (torch.where(is_good, each, torch.nan) for each in (lower, upper, mc_se))
    chosen = torch.multinomial(weights.T, draws, replacement=True) if draws else None
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    imputed = drawn[:0].movedim(1, 0) if chosen is None else drawn[chosen, rows]
    there = ~x.isnan()
    results = {
        name: torch.where(there, 0.0 if name == "mc_se" else x.double(), each)
        for name, each in (
            ("values", values),
            ("means", means),
            ("mc_se", mc_se),
            ("lower", lower),
            ("upper", upper),
        )
    }
    results["draws"] = torch.where(there.unsqueeze(1), x.double().unsqueeze(1), imputed)
    if hidden is not None:
        log_p = p.entry_log_probs(hidden).expand(shape).double()
        log_density = (w.log() + log_p).logsumexp(0)
        results["log_density"] = torch.where(hidden.isnan(), torch.nan, log_density)
    return {**results, "ess": ess, "khat": khat}


def _quantile(drawn: Tensor, weights: Tensor, probability: float) -> Tensor:
    """Return the least draw whose weight, with that of lesser ones, reaches a probability."""
    ordered, order = drawn.sort(0)
    reached = weights.expand_as(drawn).gather(0, order).cumsum(0) >= probability * (1 - 1e-12)
    first = reached.to(torch.uint8).argmax(0, keepdim=True)  # the last sum may be rounded below one
    first = torch.where(reached.any(0, keepdim=True), first, len(drawn) - 1)
    return ordered.gather(0, first)[0]


def _most_probable(
    p: distributions.ObservedEntries | distributions.WithConditions,
    w: Tensor,
    sizes: Tensor,
    x: Tensor,
) -> Tensor:
    """Return the most probable category of each value that is one, `float64`."""
    shares = []
    for code in range(int(sizes.max())):
        value = torch.where(sizes > code, float(code), torch.nan).to(x.dtype)
        share = (w * p.entry_log_probs(value.expand_as(x)).double().exp()).sum(0)
        shares.append(torch.where(sizes > code, share, -1.0))
    return torch.stack(shares).argmax(0).double()


@dataclass(frozen=True)
class Scores:
    """How well hidden values were imputed. Standard errors are those of rows drawn anew.

    Attributes:
        num_values: how many values were hidden.
        num_rows: in how many rows.
        log_density: the mean of log p(hidden value | observed values) in nats, and its error.
        squared_error: the mean squared error of numbers, in squared standard deviations of their
            column; None if there are none.
        accuracy: the share of categories that were imputed right; None if there are none.
        coverage: the share of numbers that are in their intervals; None if no row has one.
        level: the probability that the intervals have.
        without_interval: the share of rows that have no interval, because their draws do not stand
            for p(z | x_observed).
    """

    num_values: int
    num_rows: int
    log_density: tuple[float, float]
    squared_error: tuple[float, float] | None
    accuracy: tuple[float, float] | None
    coverage: tuple[float, float] | None
    level: float
    without_interval: float

    def __str__(self) -> str:
        lines = [
            f"Imputation of {self.num_values:,} hidden values in {self.num_rows:,} examples:",
            "",
            f"{'':28} {'mean':>10} {'se':>10}",
        ]
        for name, pair in (
            ("log p(value), nats", self.log_density),
            ("squared error, standardised", self.squared_error),
            ("categories that are right", self.accuracy),
            (f"{100 * self.level:.0f} % intervals that cover", self.coverage),
        ):
            if pair is not None:
                lines.append(f"{name:28} {pair[0]:10.4g} {said(pair[1], '.2g'):>10}")
        if self.without_interval:
            lines += [
                "",
                f"{100 * self.without_interval:.0f} % of the examples have no intervals: their "
                "draws do not stand for p(z | x). Take more draws, or anneal them (`impute` in "
                "Python).",
            ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the scores in a form that JSON takes."""
        named = asdict(self)
        pairs = ("log_density", "squared_error", "accuracy", "coverage")
        return {
            name: {"mean": value[0], "se": finite(value[1])} if name in pairs and value else value
            for name, value in named.items()
        }


def score(imputation: Imputation, hidden: Tensor, kind: Kind, scale: Tensor) -> Scores:
    """Score imputed values by known ones that were hidden.

    Args:
        imputation: what `impute` returned for `hidden`.
        hidden: the known values, NaN elsewhere, shape [N, *event].
        kind: what x is.
        scale: the standard deviation of each number, shape [] or that of an example.

    Raises:
        InputError: if no value was hidden, or `impute` was not given the hidden values.
    """
    known = ~hidden.isnan()
    if imputation.log_density is None or not known.any():
        raise InputError("no known values were hidden: there is nothing to score", "hidden")
    truth = hidden.double()
    is_category = (kind.num_categories > 0).expand(hidden.shape[1:]).expand_as(known)
    errors = ((imputation.values - truth) / scale.double()).square()
    inside = ((imputation.lower <= truth) & (truth <= imputation.upper)).double()
    has_interval = ~imputation.lower.isnan()
    rows = known.flatten(1).any(1)
    numbers = known & ~is_category
    with_numbers = numbers.flatten(1).any(1)
    refused = with_numbers & ~(numbers & has_interval).flatten(1).any(1)
    log_density = _mean_by_rows(imputation.log_density, known)
    assert log_density is not None
    return Scores(
        num_values=int(known.sum()),
        num_rows=int(rows.sum()),
        log_density=log_density,
        squared_error=_mean_by_rows(errors, numbers & ~errors.isnan()),
        accuracy=_mean_by_rows((imputation.values == truth).double(), known & is_category),
        coverage=_mean_by_rows(inside, numbers & has_interval),
        level=imputation.level,
        without_interval=float(refused.sum() / with_numbers.sum()) if with_numbers.any() else 0.0,
    )


def deviations(x: Tensor, kind: Kind) -> Tensor:
    """Return the standard deviations of observed numbers: of each column, or of all pixels.

    Of a column with fewer than two different values it is not known: NaN.

    Args:
        x: examples, shape [N, *event].
        kind: what they are. Conditions have a deviation of one.
    """
    if isinstance(kind, Conditional):
        own = deviations(kind.parted(x)[0], kind.of).expand(kind.of.shape).reshape(-1)
        return torch.cat([own, own.new_ones(kind.given.shape)])
    values = x.double() if len(kind.shape) == 1 else x.double().reshape(-1, 1)
    there = ~values.isnan()
    count = there.sum(0)
    mean = values.nansum(0) / count.clamp(min=1)
    scale = (torch.where(there, values - mean, 0).square().sum(0) / (count - 1).clamp(min=1)).sqrt()
    scale = torch.where(scale > 0, scale, torch.nan)
    return scale if len(kind.shape) == 1 else scale[0]


def _mean_by_rows(values: Tensor, chosen: Tensor) -> tuple[float, float] | None:
    """Return the mean of chosen values, and its error: values of a row are not independent.

    Where all values are the same, they do not tell the error: it is NaN.
    """
    counts = chosen.flatten(1).sum(1).double()
    sums = torch.where(chosen, values, 0.0).flatten(1).sum(1)
    sums, counts = sums[counts > 0], counts[counts > 0]
    if len(counts) == 0:
        return None
    mean = sums.sum() / counts.sum()
    # A ratio of two means (Cochran 1977, equation 2.46).
    spread = (sums - mean * counts).square().sum() * len(counts) / max(1, len(counts) - 1)
    se = (spread.sqrt() / counts.sum()).item()
    return mean.item(), se if se > 0 else math.nan
