"""Groups of runs: errors over seeds and examples, against exact expectations and by simulation."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import Tensor

from pyro_vae import InputError, bounds
from pyro_vae.bounds import Estimate, groups

REPETITIONS = 10_000
EXAMPLES = 30
RUNS = [(2, 2), (3, 3), (5, 5), (2, 5), (5, 2), (10, 3)]
SEED_SDS = [(0, 0), (0.1, 0.1), (1, 1), (1, 0), (0.3, 1)]  # of the sd over examples
MOST = {2: 0.997, 3: 0.989, 5: 0.977}  # as the module says, for so many runs in both groups


def simulate(
    runs: tuple[int, int],
    seed_sd: tuple[float, float],
    interaction_sd: float = 0.5,
    repetitions: int = REPETITIONS,
    correlation: float = 0,
) -> list[Tensor]:
    """Repeat an experiment with two groups whose true means are equal.

    Examples differ by 10 nats, and by 1 nat in what the group does to them. The r-th runs of both
    groups may be correlated.
    """
    normal = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(repetitions, *shape, dtype=torch.float64, generator=normal)

    hardness, by_group = 10 * draw(1, EXAMPLES), draw(1, EXAMPLES)
    seeds = [draw(count, 1) for count in runs]
    if correlation:
        seeds[1] = correlation * seeds[0] + math.sqrt(1 - correlation**2) * seeds[1]
    return [
        hardness + sign * by_group / 2 + sd * seed + interaction_sd * draw(count, EXAMPLES)
        for sign, count, sd, seed in zip((1, -1), runs, seed_sd, seeds, strict=True)
    ]


def check_coverage(
    runs: tuple[int, int], seed_sd: tuple[float, float], interaction_sd: float = 0.5
) -> float:
    """Return the coverage of the intervals, once it is at least 95 % within four errors."""
    found = groups.two_way(*simulate(runs, seed_sd, interaction_sd))
    coverage = (found.mean.abs() < found.reach).double().mean().item()
    assert coverage > 0.95 - binomial(0.95)
    return coverage


def binomial(probability: float) -> float:
    """Four standard errors of a share of the repetitions."""
    return 4 * math.sqrt(probability * (1 - probability) / REPETITIONS)


@pytest.mark.parametrize("seed_sd", SEED_SDS)
@pytest.mark.parametrize("runs", RUNS)
def test_intervals_cover_the_true_difference(
    runs: tuple[int, int], seed_sd: tuple[float, float]
) -> None:
    """They are conservative, but not by more than the module says."""
    coverage = check_coverage(runs, seed_sd)
    most = MOST[min(runs)]
    assert coverage < most + binomial(most)


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize(
    ("seed_sd", "interaction_sd"), [((0, 0), 1e-3), ((100, 0), 0.5), ((0, 100), 0.5)]
)
def test_the_coverage_is_95_percent_if_one_part_has_all_the_variance(
    runs: tuple[int, int], seed_sd: tuple[float, float], interaction_sd: float
) -> None:
    coverage = check_coverage(runs, seed_sd, interaction_sd)
    assert coverage < 0.95 + binomial(0.95)


@pytest.mark.parametrize("correlation", [-0.9, 0, 0.9])
@pytest.mark.parametrize("runs", [2, 3, 5])
def test_intervals_of_pairs_cover_the_true_difference(runs: int, correlation: float) -> None:
    """Pairs may go together or against each other; together, their intervals are shorter."""
    first, second = simulate((runs, runs), (1, 1), correlation=correlation)
    paired, unpaired = groups.two_way(first - second), groups.two_way(first, second)
    covered = paired.mean.abs() < paired.reach
    assert covered.double().mean() > 0.95 - binomial(0.95)
    if correlation >= 0:
        share = 0.6 if correlation else 1
        assert paired.reach.mean() < share * unpaired.reach.mean()


def test_the_interval_of_a_single_group_covers_its_mean() -> None:
    for runs, sd in ((2, 0.1), (3, 10.0), (5, 1.0)):
        group, _ = simulate((runs, 2), (sd, 0))
        found = groups.two_way(group)
        assert (found.mean.abs() < found.reach).double().mean() > 0.95 - binomial(0.95)


def parts(seed: float, interaction: float, runs: int, in_group: float) -> Tensor:
    """Return the tables of all independent terms of a group, each term at its standard deviation.

    The terms are those of all examples, then of all runs, then of all cells, shape [terms, R, N].
    """
    size = 7
    examples = in_group * torch.eye(size).unsqueeze(1).expand(-1, runs, -1)
    seeds = seed * torch.eye(runs).unsqueeze(2).expand(-1, -1, size)
    cells = interaction * torch.eye(runs * size).reshape(-1, runs, size)
    return torch.cat([examples, seeds, cells]).double()


def check_expectations() -> None:
    """The expectation of a quadratic form of independent terms is the sum of its values at each."""
    first, second = parts(0.7, 0.4, 2, in_group=3.0), parts(1.1, 0.9, 5, in_group=2.5)
    only_first = torch.cat([first, torch.zeros(len(second) - 7, 2, 7)])
    only_second = torch.cat([second[:7], torch.zeros(len(first) - 7, 5, 7), second[7:]])
    found = groups.two_way(only_first, only_second)
    seeds = 0.7**2 / 2 + 1.1**2 / 5
    cells = (0.4**2 / 2 + 0.9**2 / 5) / 7
    assert found.over_runs.sum().item() == pytest.approx(seeds + cells)
    assert found.over_examples.sum().item() == pytest.approx((3.0 - 2.5) ** 2 / 7 + cells)
    interactions = [groups.interaction_variance(table).sum().item() for table in (first, second)]
    assert interactions == pytest.approx([0.4**2 / 14, 0.9**2 / 35])


def check_sum() -> None:
    """The interaction, which is in both parts, is counted once."""
    first, second = simulate((3, 4), (0.2, 0.5), repetitions=50)
    found = groups.two_way(first, second)
    interaction = torch.zeros(50).double()
    for table in (first, second):
        for run in table.unbind(1):
            rest = run - table.mean(1)
            rest -= rest.mean(-1, keepdim=True)
            freedom = (table.shape[1] - 1) * (EXAMPLES - 1)
            interaction += rest.square().sum(-1) / freedom / (table.shape[1] * EXAMPLES)
    both = found.over_runs + found.over_examples - interaction
    torch.testing.assert_close(found.variance, both)


def test_variances_are_without_bias() -> None:
    check_expectations()
    check_sum()


def test_intervals_in_two_simple_cases() -> None:
    """Only seeds matter: Student's t over runs. Only examples matter: t over paired differences."""
    means = torch.tensor([-90.0, -91.5, -89.2, -90.1]).double()
    found = groups.two_way(means.unsqueeze(1).expand(-1, 6))
    low, high = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
    assert (found.mean - found.reach).item() == pytest.approx(low)
    assert (found.mean + found.reach).item() == pytest.approx(high)
    first, second = torch.randn(2, 6, dtype=torch.float64)
    found = groups.two_way(first.expand(3, -1), second.expand(2, -1))
    low, high = stats.t.interval(0.95, 5, (first - second).mean(), stats.sem(first - second))
    assert (found.mean - found.reach).item() == pytest.approx(low)
    assert (found.mean + found.reach).item() == pytest.approx(high)


def without_seeds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(groups, "run_variance", lambda values: torch.zeros(values.shape[:-2]).double())


def without_examples(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        groups, "example_variance", lambda by_example: torch.zeros(by_example.shape[:-1]).double()
    )


def without_interaction(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        groups, "interaction_variance", lambda values: torch.zeros(values.shape[:-2]).double()
    )


def divided_by_all(patch: pytest.MonkeyPatch) -> None:
    """Divide by the number of runs or examples, not by one less."""
    patch.setattr(
        groups, "_variance_of_mean", lambda values: values.var(-1, correction=0) / values.shape[-1]
    )


def freedom_of_all(patch: pytest.MonkeyPatch) -> None:
    """Take as many degrees of freedom as there are runs or examples."""
    right = groups.half_width
    patch.setattr(
        groups, "half_width", lambda parts, freedoms: right(parts, [each + 1 for each in freedoms])
    )


def satterthwaite(patch: pytest.MonkeyPatch) -> None:
    """Take Satterthwaite's degrees of freedom for the sum of all parts."""

    def reach(parts: list[Tensor], freedoms: list[int]) -> Tensor:
        variance = torch.stack(parts).sum(0)
        ratio = torch.stack([part.square() / df for part, df in zip(parts, freedoms, strict=True)])
        t = special.stdtrit((variance.square() / ratio.sum(0)).numpy(), 0.975)
        return torch.from_numpy(t) * variance.sqrt()

    patch.setattr(groups, "half_width", reach)


def seeds_cover() -> None:
    for runs in ((2, 2), (3, 3)):
        check_coverage(runs, (10, 0))  # the interval has nothing to spare
        check_coverage(runs, (1, 0))  # where Satterthwaite's is worst


def examples_cover() -> None:
    check_coverage((2, 2), (0, 0), interaction_sd=1e-3)


@pytest.mark.parametrize(
    ("mutate", "check"),
    [
        (without_seeds, seeds_cover),
        (without_seeds, check_expectations),
        (without_examples, examples_cover),
        (without_examples, check_expectations),
        (without_interaction, check_sum),
        (divided_by_all, seeds_cover),
        (divided_by_all, check_expectations),
        (freedom_of_all, seeds_cover),
        (satterthwaite, seeds_cover),
    ],
    ids=lambda value: value.__name__,
)
def test_a_wrong_estimator_is_caught(
    mutate: Callable[[pytest.MonkeyPatch], None], check: Callable[[], None]
) -> None:
    check()
    with pytest.MonkeyPatch.context() as patch:
        mutate(patch)
        with pytest.raises(AssertionError):
            check()


def noisy(values: Tensor, sd: float) -> Estimate:
    return Estimate(values, torch.full_like(values, sd**2))


def test_groups_are_compared() -> None:
    """Means, errors and intervals of the result are those of `two_way`; it is printed."""
    tables = [table[0] for table in simulate((3, 2), (1, 1), repetitions=1)]
    runs = {"second": [noisy(run, 0.1) for run in tables[1]], "first": list(tables[0])}
    runs["third"] = [noisy(run + 20, 0.2) for run in tables[1] + torch.randn(2, EXAMPLES)]
    found = bounds.compare_groups(runs)
    assert list(found.bounds) == ["second", "first", "third"]
    assert list(found.differences) == ["first", "third"]
    assert found.run_means["first"] == pytest.approx(tables[0].mean(1).tolist())
    assert found.num_examples == EXAMPLES
    expected = groups.two_way(*tables)
    difference = found.differences["first"]
    assert difference.mean == pytest.approx(expected.mean.item())
    assert difference.run_se**2 == pytest.approx(expected.over_runs.item())
    assert difference.example_se**2 == pytest.approx(expected.over_examples.item())
    assert difference.se**2 == pytest.approx(expected.variance.item())
    assert difference.ci95[1] - difference.mean == pytest.approx(expected.reach.item())
    assert math.isnan(difference.mc_se)  # the errors of the first are unknown
    of_runs = math.sqrt((0.1**2 + 0.2**2) / 2 / EXAMPLES)
    assert found.differences["third"].mc_se == pytest.approx(of_runs)
    assert found.differences["third"].verdict == "higher"
    assert found.bounds["second"].mc_se == pytest.approx(0.1 / math.sqrt(2 * EXAMPLES))
    lines = str(found).splitlines()
    assert lines[1].split()[:3] == ["second", "2", f"{found.bounds['second'].mean:.3f}"]
    assert lines[-2].split()[:3] == ["first", f"{difference.mean:+.3f}", f"{difference.run_se:.3f}"]
    assert lines[-1].endswith("higher") and "minus second" in lines[-3]
    assert difference.to_dict()["mc_se"] is None
    assert difference.to_dict()["ci95"] == list(difference.ci95)


def test_the_error_over_examples_is_that_of_a_paired_comparison() -> None:
    """With one run in each group it is all that is known: there is no interval."""
    first, second = torch.randn(2, 1, 50, dtype=torch.float64)
    found = bounds.compare_groups({"first": first, "second": second})
    paired = bounds.compare({"first": first[0], "second": second[0]}).differences["second"]
    difference = found.differences["second"]
    assert difference.example_se == pytest.approx(paired.se)
    assert difference.mean == pytest.approx(paired.mean)
    unknown = (difference.run_se, difference.se, *difference.ci95, found.bounds["first"].se)
    assert all(map(math.isnan, unknown)) and difference.verdict == "unknown"
    assert "over runs is unknown: one run only in first, second" in str(found)
    more = bounds.compare_groups({"first": torch.randn(2, 50), "second": second})
    assert math.isfinite(more.bounds["first"].se)
    assert math.isnan(more.differences["second"].se)


def test_runs_of_the_same_seeds_are_pairs() -> None:
    """In whatever order they come; groups with other seeds, or none, are not paired."""
    first, second = (table[0] for table in simulate((3, 3), (1, 1), 0.5, 1, correlation=0.9))
    runs = {"first": first, "second": second.flip(0), "third": second, "fourth": second[:2]}
    seeds = {"first": [4, 5, 6], "second": [6, 5, 4], "third": [5, 6, 7], "fourth": [4, 4]}
    found = bounds.compare_groups(runs, seeds)
    assert found.paired == ["second"]
    assert "Paired by seed with the runs of first: second." in str(found)
    pairs, apart = groups.two_way(second - first), groups.two_way(second, first)
    for name, expected in (("second", pairs), ("third", apart)):
        assert found.differences[name].mean == pytest.approx(expected.mean.item())
        assert found.differences[name].se ** 2 == pytest.approx(expected.variance.item())
    del seeds["first"]
    assert bounds.compare_groups(runs, seeds).paired == []
    seeds["third"] = [5, 6]
    with pytest.raises(InputError, match="third needs a seed for each"):
        bounds.compare_groups(runs, seeds)


def test_verdicts() -> None:
    table = torch.randn(4, 50, dtype=torch.float64)
    away = table + 0.1 * torch.randn(4, 50) + torch.tensor([[-9.0], [9.0]]).repeat(2, 1)
    found = bounds.compare_groups({"a": table, "b": table + 30, "c": table - 30, "d": away})
    verdicts = [difference.verdict for difference in found.differences.values()]
    assert verdicts == ["higher", "lower", "not told apart"]
    table[0, 3] = -math.inf  # a bound of minus infinity
    found = bounds.compare_groups({"a": table, "b": away})
    assert found.differences["b"].verdict == "unknown" and "unknown" in str(found)
    single = bounds.compare_groups({"a": torch.randn(2, 1), "b": torch.randn(3, 1)})
    assert single.differences["b"].verdict == "unknown"  # one example


def test_what_is_refused() -> None:
    runs = torch.randn(2, 5)
    for wrong, message in (
        ({"a": runs}, "two groups"),
        ({"a": runs, "b": []}, "the group b has no runs"),
        ({"a": runs, "b": runs[:, :4]}, "groups can only be compared on the same examples"),
        ({"a": runs, "b": [runs[0], runs[1, :4]]}, "runs can only be compared on the same"),
        ({"a": runs, "b": [runs[0], runs[0]]}, "two runs of the group b have the same values"),
    ):
        with pytest.raises(InputError, match=message):
            bounds.compare_groups(wrong)


def numbers(found: groups.TwoWay) -> Tensor:
    return torch.stack(list(found))


@settings(deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    runs=st.tuples(st.integers(2, 10), st.integers(2, 10)),
    size=st.integers(2, 20),
    shift=st.floats(-100, 100),
    scale=st.floats(0.01, 100),
)
def test_invariances(
    seed: int, runs: tuple[int, int], size: int, shift: float, scale: float
) -> None:
    """Order, shift and scale, whatever the numbers of runs and examples."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(n, size, dtype=torch.float64, generator=generator) for n in runs)
    found = numbers(groups.two_way(first, second))
    shuffled = torch.randperm(size, generator=generator)
    by_run = torch.randperm(runs[0], generator=generator)
    same = numbers(groups.two_way(first[by_run][:, shuffled], second.flip(0)[:, shuffled]))
    torch.testing.assert_close(same, found)
    hardness = 10 * torch.randn(size, dtype=torch.float64, generator=generator)
    same = numbers(groups.two_way(first + hardness, second + hardness))
    torch.testing.assert_close(same, found, rtol=1e-6, atol=1e-9)
    swapped = numbers(groups.two_way(second, first))
    torch.testing.assert_close(swapped, torch.cat([-found[:1], found[1:]]))
    shifted = numbers(groups.two_way(first + shift, second))
    expected = torch.cat([found[:1] + shift, found[1:]])
    torch.testing.assert_close(shifted, expected, rtol=1e-6, atol=1e-9)
    powers = torch.tensor([scale, scale**2, scale**2, scale**2, scale]).double()
    torch.testing.assert_close(
        numbers(groups.two_way(scale * first, scale * second)), found * powers
    )
