"""A Monte Carlo error that is stated is right; it is unknown where it cannot be estimated."""

import json
import math
from dataclasses import replace

import pytest
import torch
from conftest import LinearGaussian
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.bounds import Bounds, Estimate, Settings, known_errors
from pyro_vae.bounds.annealing_results import Annealed, lower_bound, upper_bound
from pyro_vae.bounds.estimates import leave_one_out, table
from pyro_vae.bounds.importance import _bounds
from pyro_vae.bounds.streaming import Stream
from pyro_vae.runs import comparison, files

RERUNS = 40


def draw(shape: float, count: int, examples: int) -> Tensor:
    """Draw log-weights: normal with spread `shape`; if that is negative, of Pareto weights."""
    if shape < 0:
        return torch.rand(count, examples, dtype=torch.float64).log() / shape
    return shape * torch.randn(count, examples, dtype=torch.float64)


def reduce(log_w: Tensor, rungs: tuple[int, ...] = ()) -> Bounds:
    sizes = sorted({*rungs, len(log_w)})
    stream = Stream(sizes)
    for part in log_w.split(100):
        stream.add(part)
    return _bounds(stream.results(), sizes)


def by_rerun(estimate: Estimate) -> list[Estimate]:
    return [estimate[index] for index in torch.arange(len(estimate.values)).chunk(RERUNS)]


def check_stated(count: int, light: float, heavy: float, share: float) -> str:
    """Compare stated errors of means over 100 examples with the spread over reruns.

    Returns:
        What is said: `stated`, `unknown`, or `both`. An error that is stated in a tenth of the
        reruns or more must not be more than 1.3 times too small (1.5 with the spread's own error).
    """
    many = round(100 * share)
    kinds = [(light, 100 - many), (heavy, many)]
    runs = [torch.cat([draw(s, count, n) for s, n in kinds if n], 1) for _ in range(RERUNS)]
    result = reduce(torch.cat(runs, 1))
    stated = 0
    for estimate in (result.bound, result.gap, result.jackknife, result.elbo):
        means = torch.tensor([run.mean for run in by_rerun(estimate)])
        errors = torch.tensor([run.mc_se for run in by_rerun(estimate)])
        known = errors[errors.isfinite()]
        if len(known) >= RERUNS / 10:
            assert means.std() < 1.5 * known.square().mean().sqrt()
        stated += len(known) if estimate is result.bound else 0
    return {0: "unknown", RERUNS: "stated"}.get(stated, "both")


@pytest.mark.parametrize("count", [5, 200])
@pytest.mark.parametrize(
    ("light", "heavy", "share"),
    [(0.3, 0.3, 0), (3, 3, 0), (6, 6, 0), (20, 20, 0), (-1, -1, 0), (-0.3, -0.3, 0)]
    + [(0.3, spread, 0.04) for spread in (2, 3, 6, 20, -0.3)],
)
def test_no_stated_error_is_too_small(count: int, light: float, heavy: float, share: float) -> None:
    said = check_stated(count, light, heavy, share)
    if (light, share) == (0.3, 0):
        assert said == "stated"
    if share == 0 and light != 0.3:
        assert said == "unknown"


def test_the_formula_alone_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rule, heavy weights make errors that are far too small."""
    monkeypatch.setattr("pyro_vae.bounds.estimates.is_known", lambda *_: True)
    for case in ((500, 6, 6, 0), (500, 0.3, 6, 0.04), (5, 3, 3, 0)):
        with pytest.raises(AssertionError):
            check_stated(*case)


def test_heavy_examples_are_unknown_one_by_one() -> None:
    """A heavy example has no error, nor has a subset in which it counts; the others keep theirs."""
    log_w = torch.cat([draw(0.5, 2000, 99), draw(8, 2000, 1)], 1)
    top = reduce(log_w).bound
    assert top.mc_variance[:99].isfinite().all() and top.mc_variance[99].isnan()
    first = top[torch.arange(99)]
    assert math.isnan(top.mc_se) and math.isnan(top[torch.tensor([99])].mc_se)
    assert first.mc_se == (first.variance.sum().sqrt() / 99).item()  # bit for bit the formula's
    assert math.isnan((top - first[torch.zeros(100, dtype=torch.long)]).mc_se)
    rarely = few_heavy()
    assert rarely.mc_se == (rarely.variance.sum().sqrt() / 40).item()  # two count for little


def few_heavy() -> Estimate:
    """An estimate for 40 examples, of which two are heavy."""
    ones = torch.ones(40, dtype=torch.float64)
    limit = ones.clone()
    limit[[3, 17]] = 9.0
    return Estimate(-ones, ones, limit)


@pytest.mark.parametrize("groups", [2, 3, 10])
def test_few_groups(groups: int) -> None:
    """The spread between two groups is no error of one example; of a hundred it is."""
    result = reduce(draw(1, 50 * groups + 7, 100 * RERUNS), (50,))
    rung = result.iwae[50]
    assert math.isnan(rung[torch.tensor([0])].mc_se) == (groups < 10)
    means = torch.tensor([run.mean for run in by_rerun(rung)])
    errors = torch.tensor([run.mc_se for run in by_rerun(rung)])
    assert means.std().item() == pytest.approx(
        errors.square().mean().sqrt().item(), rel=4.5 / math.sqrt(2 * RERUNS)
    )


@pytest.mark.parametrize("count", [3, 26, 200, 3000])
def test_jackknife_variances_of_a_stream(count: int) -> None:
    """Running sums and the largest weights give what leaving out each draw gives."""
    log_w = draw(1, count, 6) * torch.tensor([0.5, 1, 2, 4, 9, 9])
    log_w[0, 5] += 3000  # nothing is left of the other weights' share
    stream = Stream([count])
    for part in log_w.split(100):
        stream.add(part)
    logs, elbos = leave_one_out(log_w), (log_w.sum(0) - log_w) / (count - 1)
    for found, left_out in zip(stream.jackknife_variances(), (logs, logs - elbos), strict=True):
        expected = left_out.var(0) * (count - 1) ** 2 / count
        torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


@pytest.mark.parametrize(("spread", "known"), [(0.3, True), (1, True), (3, False), (30, False)])
def test_annealing(spread: float, known: bool) -> None:
    """Of 16 chains: the lower bound by the jackknife, the upper bound by its own flaws."""
    log_w = draw(spread, 16, 300 * RERUNS)
    lower = lower_bound(log_w)
    for run in by_rerun(lower):
        assert math.isfinite(run.mc_se) == known
    if known:
        means = torch.tensor([run.mean for run in by_rerun(lower)])
        assert means.std() < 1.5 * lower.mc_se * RERUNS**0.5
    result = Annealed(Settings(), log_w[:, :300], torch.ones(300))
    assert math.isnan(result.upper.mc_se) == (result.upper_flaw is not None)
    torch.testing.assert_close(result.upper.variance, upper_bound(log_w[:, :300]).variance)


def test_one_number_for_the_data_set() -> None:
    """Tables say unknown, files null; the verdicts speak of one number."""
    known = LinearGaussian()
    x = known.marginal.sample((1,))
    model, guide = known.vae.model, known.vae.guide
    importance = bounds.evaluate(model, guide, x, 2000, ladder=[5, 1000])
    annealed = bounds.anneal(model, guide, x, Settings(temperatures=10, leapfrog=2))
    assert "of" not in importance.to_dict() and "of" not in annealed.to_dict()
    for result in (
        replace(importance, evidence_of="the data set"),
        replace(annealed, evidence_of="the data set"),
        bounds.bidirectional(model, guide, x, Settings(temperatures=5, leapfrog=2)),
    ):
        printed = table(result.rows())
        assert "unknown" in printed and "nan" not in printed + result.verdict
        content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        if not isinstance(result, bounds.Bidirectional):
            assert content["of"] == "the data set"
            assert "the data set as a whole" in result.verdict
    entry = importance.to_dict()["iwae"]
    assert entry["1000"]["mc_se"] is None and entry["5"]["mc_se"] > 0  # 2 groups, 400 groups
    assert entry["5"]["ci95"] == [None, None] and entry["5"]["se"] is None


def test_comparisons_say_unknown() -> None:
    exact = Estimate(torch.zeros(20).double(), torch.zeros(20).double())
    heavy = reduce(draw(9, 500, 20)).bound
    *_, last = str(bounds.compare({"exact": exact, "heavy": heavy})).splitlines()
    assert last.endswith("unknown") and "nan" not in last


def test_files_keep_what_a_comparison_needs() -> None:
    few = few_heavy()
    assert few.mc_variance.isnan().sum() == 2 and math.isfinite(few.mc_se)
    many = reduce(draw(6, 200, 50)).bound
    for estimate in (few, many):
        content = json.loads(json.dumps(files._rounded(estimate), allow_nan=False))
        back = comparison._estimate(content)
        assert back.mc_se == pytest.approx(estimate.mc_se, rel=1e-3, nan_ok=True)
        torch.testing.assert_close(
            back.mc_variance.isnan(),
            estimate.mc_variance.isnan() if estimate is few else torch.ones(50, dtype=torch.bool),
        )


def test_the_threshold() -> None:
    one = torch.ones(4)
    assert known_errors.is_known(one, 1.69 * one, 100)
    assert not known_errors.is_known(one, 1.7 * one, 100)
    assert not known_errors.is_known(one, one, 2) and known_errors.is_known(one, one, 3)
    assert not known_errors.is_known(one * math.nan, one, 100)
    assert known_errors.is_known(0 * one, 0 * one, 100)


def test_weights_in_an_expanded_tensor() -> None:
    """All chains of an example have the same weight, which is in memory once."""
    same = torch.arange(4, dtype=torch.float64).expand(16, 4)
    for _ in range(20):
        used = [torch.full((size,), math.nan, dtype=torch.float64) for size in (4, 16, 64, 256)]
        del used  # memory that PyTorch gives out again holds NaN
        assert known_errors.upper_spread(same).tolist() == [0.0] * 4
