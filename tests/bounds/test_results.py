"""The protocol that results share: rows, verdict, bound, conditions, and what files hold."""

import json
import math
from dataclasses import asdict, replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import LinearGaussian
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.bounds import Annealed, Bidirectional, Bounds, Corrected, Estimate, Result, Settings
from pyro_vae.bounds.estimates import HEADER, standard_error, table, with_error

SETTINGS = Settings(temperatures=10, chains=4, leapfrog=2)


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """A result of each class, for 30 examples of which 10 are annealed."""
    torch.manual_seed(0)
    known = LinearGaussian()
    x = known.marginal.sample((30,))
    model, guide = known.vae.model, known.vae.guide
    importance = bounds.evaluate(model, guide, x, 200)
    annealed = bounds.anneal(model, guide, x[:10], SETTINGS)
    gaps = bounds.gaps(importance, None, annealed)
    assert gaps is not None
    return {
        "importance": importance,
        "annealed": annealed,
        "simulated": bounds.bidirectional(model, guide, x[:8], SETTINGS),
        "whole": Corrected(importance.bound, annealed.lower, torch.arange(10)),
        "gaps": gaps,
    }


def test_every_result_has_the_protocol(results: dict[str, Result]) -> None:
    for name, result in results.items():
        assert isinstance(result, Result), name
        rows = result.rows()
        assert rows and all(len(label) <= 20 for label, _ in rows)
        printed = table(rows).splitlines()
        assert printed[0] == HEADER and {len(line) for line in printed} == {len(HEADER)}
        for (label, summary), line in zip(rows, printed[1:], strict=True):
            assert line.startswith(label) and f"{summary.mean:.3f}" in line
        assert all(line.endswith(".") for line in result.verdict.splitlines())
        json.dumps(result.to_dict(), allow_nan=False)
        json.dumps(result.conditions, allow_nan=False)
        assert isinstance(result.bound, Estimate | None)
        assert (result.bound is None) == (result.conditions == {})


def test_a_data_set_drawn_from_the_model() -> None:
    """Where the evidence is that of the data set, the verdict does not count examples."""

    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(0.0, 0.5))

    verdict = bounds.bidirectional(model, guide, torch.tensor([0.3, -0.2, 0.8]), SETTINGS).verdict
    assert verdict.startswith("On a data set drawn from the model, the bounds of chains in both")


def test_importance_sampling(results: dict[str, Result]) -> None:
    result = results["importance"]
    assert isinstance(result, Bounds)
    names = [name for name, _ in result.rows()]
    assert names == [
        "ELBO",
        "IWAE_5",
        "IWAE_50",
        "IWAE_200",
        "IWAE_200 - ELBO",
        "JVI_200 (no bound)",
    ]
    assert result.bound is result.iwae[200] and result.conditions == {"num_samples": 200}
    assert str(result) == table(result.rows())


def test_annealing(results: dict[str, Result]) -> None:
    """Rows and verdict use IWAE of the same examples, if it is known."""
    result, importance = results["annealed"], results["importance"]
    assert isinstance(result, Annealed) and importance.bound is not None
    assert [name for name, _ in result.rows()] == ["AIS, lower", "AIS, upper"]
    torch.testing.assert_close(result.bound.values, result.lower.values)
    assert result.conditions == asdict(SETTINGS)
    said = result.verdict
    assert "10 examples from both sides, by 4 chains of 10 temperatures from the posterior" in said
    assert f"above {result.certified():.3f}" in said
    assert f"effective number of chains is {result.ess.median():.1f} (median)" in said
    assert "below IWAE" not in said
    iwae = importance.bound[torch.arange(10)]
    beside = replace(result, iwae=iwae)
    name, difference = beside.rows()[-1]
    assert name == "AIS - IWAE"
    assert difference.mean == pytest.approx(result.lower.mean - iwae.mean)
    assert beside.to_dict() == result.to_dict()


def annealed(log_w: Tensor, acceptance: float = 0.8, iwae: Estimate | None = None) -> Annealed:
    return Annealed(
        Settings(chains=len(log_w)), log_w, torch.full(log_w.shape[1:], acceptance), iwae
    )


def test_flaws_of_annealing_are_said() -> None:
    log_w = 0.1 * torch.randn(16, 50, dtype=torch.float64)
    good = annealed(log_w)
    assert "Do not rely" not in good.verdict and "may be loose" not in good.verdict
    above = Estimate(good.upper.values + 1, good.upper.mc_variance)
    assert (
        "Do not rely on the upper bound: it is below IWAE." in annealed(log_w, iwae=above).verdict
    )
    below = Estimate(good.upper.values - 1, good.upper.mc_variance)
    assert "Do not rely" not in annealed(log_w, iwae=below).verdict
    assert "The bounds may be loose: only 10 % of moves" in annealed(log_w, 0.1).verdict
    heavy = annealed(-3 * torch.rand(16, 50, dtype=torch.float64).log())
    assert "Do not rely on the upper bound: the weights' tails" in heavy.verdict


def test_simulated_data(results: dict[str, Result]) -> None:
    result = results["simulated"]
    assert isinstance(result, Bidirectional)
    assert result.bound is None
    assert [name.split(", ")[1] for name, _ in result.rows()] == ["lower", "upper", "gap"]
    assert "8 examples drawn from the model" in result.verdict
    assert f"differ by {with_error(result.gap.mean, result.gap.se)} nats" in result.verdict
    assert "nan" not in table(result.rows())  # the Monte Carlo error of the upper bound is unknown


@pytest.mark.parametrize(
    ("mean", "spread", "expected"),
    [
        (
            -0.041,
            0.053,
            "-0.041 ± 0.053 nats, which is within the error: annealing is tight on them.",
        ),
        (-0.41, 53.0, "± 53 nats, which is within the error."),  # too coarse to call it tight
        (0.5, 0.1, "0.50 ± 0.10 nats: log p(x) of these lies between them."),
        (-0.5, 0.1, "-0.50 ± 0.10 nats, and a gap below zero is noise: use more examples or more "),
    ],
)
def test_gaps_of_simulated_data(mean: float, spread: float, expected: str) -> None:
    """The estimate is said as it is, with its error, also if noise makes it negative."""
    log_w = torch.linspace(-9, 9, 50, dtype=torch.float64).expand(4, 50)
    found = annealed(log_w)
    gap = torch.linspace(-1, 1, 50, dtype=torch.float64)
    gap = mean + gap * (spread / standard_error(gap))
    upper = Estimate(found.lower.values + gap, torch.zeros(50))
    result = Bidirectional(found, upper)
    assert (result.gap.mean, result.gap.se) == pytest.approx((mean, spread))
    assert expected in result.verdict


def test_the_mean_over_all_examples(results: dict[str, Result]) -> None:
    result = results["whole"]
    assert isinstance(result, Corrected)
    ((name, summary),) = result.rows()
    assert name == "AIS, all examples" and summary.mean == result.mean
    assert f"all 30 examples is {result.mean:.3f} (se {result.se:.3f}" in result.verdict
    assert f"{result.subset_se:.3f}" in result.verdict and "on 10." in result.verdict


def test_gaps() -> None:
    """The parts sum to the whole, for the examples that were annealed."""

    def bound(mean: float, count: int = 6) -> Estimate:
        return Estimate(
            mean + torch.arange(count, dtype=torch.float64), torch.full((count,), 0.01).double()
        )

    def result(elbo: float, iwae: float) -> Bounds:
        unknown = torch.ones(6)
        return Bounds(9, bound(elbo), {9: bound(iwae)}, bound(0), bound(0), unknown, unknown)

    amortised, refined = result(-5.0, -3.0), result(-4.0, -2.0)
    log_w = (torch.arange(4, dtype=torch.float64) - 1.5).expand(16, 4)
    ais = annealed(log_w)
    assert bounds.gaps(amortised) is None
    for gaps, expected in (
        (
            bounds.gaps(amortised, refined),
            {"log p - ELBO": 3, "approximation": 2, "amortisation": 1},
        ),
        (bounds.gaps(amortised, None, ais), {"log p - ELBO": 3.5}),
        (
            bounds.gaps(amortised, refined, ais),
            {"log p - ELBO": 3.5, "approximation": 2.5, "amortisation": 1},
        ),
    ):
        assert gaps is not None and gaps.verdict == "" and gaps.bound is None
        content = gaps.to_dict()
        assert {name: part["mean"] for name, part in content.items()} == pytest.approx(expected)
        assert [name.strip() for name, _ in gaps.rows()] == list(expected)
        assert [s.mean for _, s in gaps.rows()] == pytest.approx(list(expected.values()))
    assert len(gaps.total.values) == 4
    assert gaps.total.mc_se == pytest.approx(math.sqrt(4 * 0.01) / 4)
