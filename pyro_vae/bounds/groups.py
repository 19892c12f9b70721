"""Groups of runs, compared over their seeds and over the examples.

Another seed gives another model. Its bound may differ by more than the paired error over examples.
So a statement about kinds of models needs several runs of each, and an error that covers the choice
of the seeds as well as that of the examples.

**Model.** Run r of group g has the bound y[g, r, i] for example i. Runs are random (the seed), and
so are examples; all runs are evaluated on the same N examples. This is a two-way table with one
value in each cell and both factors random, runs nested in groups and crossed with examples:

    y[g, r, i] = mean_g + a[g, r] + c[g, i] + d[g, r, i],

where a is what the seed does to all examples, c what the group does to an example, common to its
runs, and d is the rest: the interaction of seed and example, with the Monte Carlo noise. The terms
have mean zero and are uncorrelated; c of the same example is correlated between groups.

**Errors.** The difference of the means of two groups, with R_g runs each, has the variance

    sum_g var(a_g) / R_g  +  var(c_1 - c_2) / N  +  sum_g var(d_g) / (R_g N).

It is estimated without bias by S + E - D (the analysis of variance: Searle, Casella & McCulloch
1992, chapter 4; Cameron, Gelbach & Miller 2011 have the same sum for two-way clusters):

- S = sum_g S_g, with S_g = s^2(means of the runs of group g) / R_g, which has R_g - 1 degrees of
  freedom: the variance over other runs, on the same examples. It contains the variance of d.
- E = s^2(differences of the examples, averaged over runs) / N: the variance over other examples,
  with the same runs, as in `compare`. It contains the variance of d, too.
- D = sum_g s^2(d_g) / (R_g N), from the residuals of the table of each group, so that the variance
  of d is counted once. The pigeonhole bootstrap (Owen 2007) counts it more than once.

E - D is set to zero if it is negative. Monte Carlo noise is a part of d, so it is in all of them.

**Intervals.** The half-width h of the 95 % interval is, with Student's t,

    h^2 = sum_g t^2(R_g - 1) S_g + t^2(N - 1) (E - D)       (Banerjee 1960).

For normal terms it covers the true difference with a probability of at least 95 %. Proof: let
w_k be the share of the k-th part of the true variance, and q_k its estimate over its true value.
The estimate of the difference is independent of the q_k. So the coverage is the mean of
F(sum_k w_k t_k^2 q_k), where F is the distribution function of chi^2 with one degree of freedom.
F is concave, so this is at least the sum of w_k times the mean of F(t_k^2 q_k), which is 95 % for
each k. (This takes D as known: it has N - 1 times as many degrees of freedom as S.)

If one part has nearly all the variance, the coverage is 95 %. With 2, 3, 5, 10 runs in both groups
it is at most 99.7, 98.9, 97.7, 96.4 %. With two runs t is 12.7, with three 4.3, with five 2.8: two
runs say little. Satterthwaite's degrees of freedom for S + E - D would give intervals that are
shorter, with three runs by a quarter, but cover too little: 87, 92, 94 % in the worst case with 2,
3, 5 runs. These degrees of freedom are largest where S is too small by chance.

**Pairs.** If two groups have the same seeds, each once, the runs of a seed are a pair: they start
from the same random numbers, and may be good or bad together. Then the difference is the mean of
the table of differences y[1, r, i] - y[2, r, i], which is a single group of pairs: S is
s^2(differences of the means of the pairs) / R. This interval holds whatever the correlation in a
pair. It has the same t as that above, so it is shorter on average unless the correlation is
negative. On the digits, 12 pairs of N(0, I) and VampPrior had a correlation of 0.39 (95 % interval
-0.23 to 0.79), and the interval of pairs was 6 % shorter. Whether runs are paired is decided by
their seeds, not by their bounds.

**What is left out.** The seed variances of groups are not pooled, since one kind of model may
depend on its seed more than another. If two groups have some seeds in common, but not all, and
these make them move together, the interval is too wide. All runs have the same training examples,
so the error is not that over training sets.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.bounds.estimates import Estimate, finite, said, said_interval
from pyro_vae.bounds.paired import as_estimate
from pyro_vae.errors import InputError


class TwoWay(NamedTuple):
    """The mean of a group or of a difference, and its variance over runs and examples.

    All have the shape [*], and are in nats or nats squared. What is unknown is NaN.

    Attributes:
        mean: the mean over runs and examples, or the difference of two.
        over_runs: S, the variance of the mean over other runs, on the same examples.
        over_examples: E, the variance of the mean over other examples, with the same runs.
        variance: S + max(E - D, 0), the variance of the mean over both.
        reach: h, half the width of the 95 % interval.
    """

    mean: Tensor
    over_runs: Tensor
    over_examples: Tensor
    variance: Tensor
    reach: Tensor


def two_way(group: Tensor, other: Tensor | None = None) -> TwoWay:
    """Estimate the mean of a group, or its difference to another group, with its errors.

    The formulas are those at the top of this file.

    Args:
        group: y[r, i] in nats, shape [*, R, N]. Repetitions of the whole experiment may precede.
        other: the group that is subtracted, shape [*, R', N], with the same examples.
    """
    groups = [group] if other is None else [group, other]
    by_example = group.mean(-2) if other is None else group.mean(-2) - other.mean(-2)
    over_runs = [run_variance(values) for values in groups]
    over_examples = example_variance(by_example)
    interactions = torch.stack([interaction_variance(values) for values in groups]).sum(0)
    examples_alone = (over_examples - interactions).clamp(min=0)
    parts = [*over_runs, examples_alone]
    freedoms = [*(values.shape[-2] - 1 for values in groups), group.shape[-1] - 1]
    runs = torch.stack(over_runs).sum(0)
    variance = runs + examples_alone
    return TwoWay(by_example.mean(-1), runs, over_examples, variance, half_width(parts, freedoms))


def run_variance(values: Tensor) -> Tensor:
    """Return S_g, the variance of a group's mean over other runs, shape [*]; NaN for one run."""
    return _variance_of_mean(values.mean(-1))


def example_variance(by_example: Tensor) -> Tensor:
    """Return E, the variance of a mean over other examples, shape [*]; NaN for one example."""
    return _variance_of_mean(by_example)


def interaction_variance(values: Tensor) -> Tensor:
    """Return D of one group, from the residuals of its table, shape [*]; NaN for one run."""
    runs, examples = values.shape[-2:]
    if min(runs, examples) < 2:
        return values.new_full(values.shape[:-2], math.nan)
    centred = values - values.mean(-1, keepdim=True)
    residuals = centred - centred.mean(-2, keepdim=True)
    freedom = (runs - 1) * (examples - 1)
    return residuals.square().sum((-1, -2)) / (freedom * runs * examples)


def half_width(parts: Sequence[Tensor], freedoms: Sequence[int]) -> Tensor:
    """Return half the width of the 95 % interval of Banerjee (1960), shape [*].

    Args:
        parts: the parts of the variance, each of shape [*].
        freedoms: the degrees of freedom of each part.
    """
    from scipy import special

    squares = [
        special.stdtrit(freedom, 0.975).item() ** 2 * part
        for part, freedom in zip(parts, freedoms, strict=True)
    ]
    return torch.stack(squares).sum(0).sqrt()


def _variance_of_mean(values: Tensor) -> Tensor:
    """Return the variance of the mean of independent values, shape [*, n] to [*]; NaN if n = 1."""
    count = values.shape[-1]
    if count < 2:
        return values.new_full(values.shape[:-1], math.nan)
    return values.var(-1) / count


@dataclass(frozen=True)
class OverRuns:
    """A mean of bounds over runs and examples, or the difference of two, in nats.

    Errors that are unknown are NaN: with a single run, only the error over examples is known.

    Attributes:
        mean: the mean, or the difference.
        run_se: the standard error over other runs, on the same examples.
        example_se: the standard error over other examples, with the same runs.
        se: the standard error over both. Its square is smaller than the sum of the two squares,
            since both contain the interaction of runs and examples.
        ci95: the 95 % interval over both.
        mc_se: the Monte Carlo error of the mean, for these runs and examples; it is a part of `se`.
    """

    mean: float
    run_se: float
    example_se: float
    se: float
    ci95: tuple[float, float]
    mc_se: float

    @property
    def verdict(self) -> str:
        """Whether a difference is higher or lower than zero by its interval, or not told apart."""
        low, high = self.ci95
        if math.isnan(low) or math.isnan(high):
            return "unknown"
        return "higher" if low > 0 else "lower" if high < 0 else "not told apart"

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, with None for those that are not finite."""
        numbers = {name: finite(value) for name, value in asdict(self).items() if name != "ci95"}
        return {**numbers, "ci95": [finite(end) for end in self.ci95]}


@dataclass(frozen=True)
class GroupComparison:
    """The result of `compare_groups`.

    Attributes:
        bounds: the mean bound of each group.
        differences: the mean bound of each group minus that of the first group.
        run_means: the mean bound of each run over the examples, by group.
        num_examples: N.
        paired: the groups whose runs are paired by their seeds with those of the first.
    """

    bounds: dict[str, OverRuns]
    differences: dict[str, OverRuns]
    run_means: dict[str, list[float]]
    num_examples: int
    paired: list[str]

    def __str__(self) -> str:
        first = next(iter(self.bounds))
        minus = f"minus {first}"
        width = max(map(len, [*self.bounds, minus]))
        errors = f"{'se, runs':>9} {'se, examples':>13} {'se, both':>9} {'95 % interval':>22}"
        lines = [f"{'nats':{width}} {'runs':>5} {'mean':>10} {errors} {'MC error':>9}"]
        for name, bound in self.bounds.items():
            runs = len(self.run_means[name])
            lines.append(f"{name:{width}} {runs:5} {bound.mean:10.3f} {_errors(bound)}")
        lines += ["", f"{minus:{width}} {'':5} {'difference':>10} {errors} {'MC error':>9}"]
        for name, difference in self.differences.items():
            line = f"{name:{width}} {'':5} {difference.mean:+10.3f} {_errors(difference)}"
            lines.append(f"{line}  {difference.verdict}")
        return "\n\n".join(["\n".join(lines), *self.notes])

    @property
    def notes(self) -> list[str]:
        """Sentences about runs that are paired, and about errors that are unknown."""
        notes = []
        if self.paired:
            first = next(iter(self.bounds))
            notes.append(f"Paired by seed with the runs of {first}: {', '.join(self.paired)}.")
        single = [name for name, means in self.run_means.items() if len(means) == 1]
        if single:
            notes.append(f"The error over runs is unknown: one run only in {', '.join(single)}.")
        return notes


def _errors(bound: OverRuns) -> str:
    return (
        f"{said(bound.run_se):>9} {said(bound.example_se):>13} {said(bound.se):>9} "
        f"{said_interval(bound.ci95):>22} {said(bound.mc_se, '.4f'):>9}"
    )


def compare_groups(
    groups: Mapping[str, Sequence[Tensor | Estimate]],
    seeds: Mapping[str, Sequence[int]] | None = None,
) -> GroupComparison:
    """Compare groups of runs by their bounds on log p(x) of the same examples.

    Args:
        groups: the runs of each group, by the name of the group. The runs of a group differ in
            their seed. A run is log p(x_i) or a bound on it, in nats, shape [N]; an `Estimate` also
            has the Monte Carlo variances. All runs have the same N examples in the same order, and
            the same base measure. The first group is the one with which the others are compared.
        seeds: the seeds of the runs of each group, in the same order, by the name of the group. Two
            groups with the same seeds, each once, are compared in pairs.

    Raises:
        InputError: if there are fewer than two groups, a group has no runs, the numbers of examples
            differ, two runs of a group have the same values (they are not two seeds), or a group
            has more or fewer seeds than runs.
    """
    if len(groups) < 2:
        raise InputError("a comparison takes two groups or more", "groups")
    for name, numbers in (seeds or {}).items():
        if len(numbers) != len(groups[name]):
            raise InputError(f"the group {name} needs a seed for each of its runs", "seeds")
    tables: dict[str, Tensor] = {}
    averages: dict[str, Estimate] = {}
    for name, runs in groups.items():
        estimates = [as_estimate(run) for run in runs]
        tables[name] = _table(name, estimates)
        averages[name] = _average(estimates)
    if len({len(average.values) for average in averages.values()}) > 1:
        raise InputError("groups can only be compared on the same examples", "groups")
    first, *others = groups
    orders = {name: _order_of_pairs((seeds or {}).get(name, ())) for name in groups}
    paired = [name for name in others if orders[name] and set(orders[name]) == set(orders[first])]

    def minus_first(name: str) -> TwoWay:
        if name not in paired:
            return two_way(tables[name], tables[first])
        pairs = [(orders[name][seed], orders[first][seed]) for seed in orders[name]]
        return two_way(torch.stack([tables[name][i] - tables[first][j] for i, j in pairs]))

    return GroupComparison(
        {name: _over_runs(two_way(table), averages[name]) for name, table in tables.items()},
        {name: _over_runs(minus_first(name), averages[name] - averages[first]) for name in others},
        {name: table.mean(-1).tolist() for name, table in tables.items()},
        len(averages[first].values),
        paired,
    )


def _table(name: str, runs: Sequence[Estimate]) -> Tensor:
    """Return the values of the runs of a group, shape [R, N]."""
    if not runs:
        raise InputError(f"the group {name} has no runs", "groups")
    if len({len(run.values) for run in runs}) > 1:
        raise InputError("runs can only be compared on the same examples", "groups")
    table = torch.stack([run.values for run in runs])
    if len(table.unique(dim=0)) < len(runs):
        raise InputError(
            f"two runs of the group {name} have the same values: train each with its own seed",
            "groups",
        )
    return table


def _order_of_pairs(seeds: Sequence[int]) -> dict[int, int]:
    """Return the place of the run of each seed; nothing if a seed has several runs."""
    order = {seed: place for place, seed in enumerate(seeds)}
    return order if len(order) == len(seeds) else {}


def _average(runs: Sequence[Estimate]) -> Estimate:
    """Return the mean over runs for each example, with its Monte Carlo variance."""
    return Estimate(
        torch.stack([run.values for run in runs]).mean(0),
        torch.stack([run.variance for run in runs]).sum(0) / len(runs) ** 2,
        torch.stack([run.limit for run in runs]).sum(0) / len(runs) ** 2,
        min(run.freedom for run in runs),
    )


def _over_runs(found: TwoWay, average: Estimate) -> OverRuns:
    mean, runs, examples, variance, reach = (number.item() for number in found)
    return OverRuns(
        mean,
        math.sqrt(runs),
        math.sqrt(examples),
        math.sqrt(variance),
        (mean - reach, mean + reach),
        average.mc_se,
    )
