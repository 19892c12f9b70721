"""Likelihoods of data with missing values, against exact answers."""

import math
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from factor_analysis import correlated, factor_analysis, with_holes
from pairs import PAIRS
from torch import Tensor

from pyro_vae import VAE, bounds, kinds, likelihoods, objectives, posteriors, priors
from pyro_vae.errors import InputError
from pyro_vae.likelihoods import ObservedEntries
from pyro_vae.training import CompiledEngine, EagerEngine

CATEGORIES = kinds.Categories([3], None, [["a", "b"], ["a", "b", "c", "d"], ["x", "y", "z"]])
ORDERED = kinds.Ordered([2], None, [["a", "b", "c"], ["x", "y"]])
TABLE = kinds.Columns(
    [
        (kinds.Real([2]), [0, 3]),
        (kinds.Categories([1], None, [["a", "b", "c"]]), [1]),
        (kinds.Counts([1]), [2]),
        (kinds.Positive([1]), [4]),
    ]
)
GREY = kinds.Levels([3, 2], levels=256)

# A likelihood of each kind, and stored examples.
CASES: dict[str, tuple[Any, kinds.Kind, Any]] = {
    "Gaussian": (likelihoods.Gaussian, kinds.Real([4]), lambda: 5 + 3 * torch.randn(40, 4)),
    "StudentT": (likelihoods.StudentT, kinds.Real([4]), lambda: torch.randn(40, 4)),
    "LogisticMixture": (likelihoods.LogisticMixture, kinds.Real([4]), lambda: torch.randn(40, 4)),
    "Gamma": (likelihoods.Gamma, kinds.Positive([4]), lambda: torch.rand(40, 4) + 0.1),
    "LogNormal": (likelihoods.LogNormal, kinds.Positive([4]), lambda: torch.rand(40, 4) + 0.1),
    "NegativeBinomial": (
        likelihoods.NegativeBinomial,
        kinds.Counts([4]),
        lambda: torch.randint(0, 30, (40, 4)).float(),
    ),
    "Poisson with more zeros": (
        partial(likelihoods.Poisson, zero_inflation=True),
        kinds.Counts([4]),
        lambda: torch.randint(0, 9, (40, 4)).float(),
    ),
    "Categories": (
        likelihoods.Categories,
        CATEGORIES,
        lambda: (torch.rand(40, 3) * torch.tensor([2, 4, 3])).floor(),
    ),
    "CumulativeLogit": (
        likelihoods.CumulativeLogit,
        ORDERED,
        lambda: (torch.rand(40, 2) * torch.tensor([3, 2])).floor(),
    ),
    "Columns": (
        likelihoods.Columns,
        TABLE,
        lambda: torch.stack(
            [
                torch.randn(40),
                (3 * torch.rand(40)).floor(),
                (9 * torch.rand(40)).floor(),
                100 + torch.randn(40),
                torch.rand(40) + 0.1,
            ],
            1,
        ),
    ),
    "Bernoulli": (
        likelihoods.Bernoulli,
        kinds.Binary([3, 2], levels=2),
        lambda: torch.randint(0, 2, (40, 3, 2)).float(),
    ),
    "DiscretizedLogistic": (
        likelihoods.DiscretizedLogistic,
        GREY,
        lambda: torch.randint(0, 256, (40, 3, 2)).float(),
    ),
    "Beta of levels": (
        likelihoods.Beta,
        kinds.UnitInterval([3, 2]),
        lambda: torch.randint(0, 256, (40, 3, 2)).float(),
    ),
    "Gaussian in colour": (
        likelihoods.Gaussian,
        kinds.UnitInterval([3, 2, 2], levels=None),
        lambda: torch.rand(40, 3, 2, 2),
    ),
}


def built(name: str) -> tuple[ObservedEntries, Tensor, Tensor]:
    """Return a likelihood that has seen stored examples, these, and x."""
    torch.manual_seed(3)
    make, kind, draw = CASES[name]
    stored = with_holes(draw())
    likelihood = ObservedEntries(make(2, kind))
    likelihood.kind.check(stored)
    likelihood.fit_kind(stored)
    likelihood.initialize(likelihood.kind.stored_features(stored))
    return likelihood, stored, likelihood.kind.observe(stored)


def whole_x(likelihood: ObservedEntries, x: Tensor) -> Tensor:
    return likelihood.kind.fill(x)


@pytest.mark.parametrize("name", CASES)
def test_missing_values_leave_their_factors_out(name: str) -> None:
    likelihood, _, x = built(name)
    z = torch.randn(40, 2)
    log_p = likelihood(z).log_prob(x)
    assert log_p[0] == 0
    torch.testing.assert_close(log_p[1], likelihood.whole(z).log_prob(whole_x(likelihood, x))[1])
    # The observed values alone: each factor by the difference that one more value makes.
    flat, event = x.flatten(1), x.shape[1:]
    total = torch.zeros(40)
    for place in range(flat.shape[1]):
        alone = torch.full_like(flat, torch.nan)
        alone[:, place] = flat[:, place]
        total += likelihood(z).log_prob(alone.view(-1, *event))
    torch.testing.assert_close(log_p, total, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_features_show_what_is_there_and_nothing_else(name: str) -> None:
    likelihood, stored, x = built(name)
    kind = likelihood.kind
    features = kind.features(x)
    assert features.shape[1:] == kind.feature_shape
    own, there = kind.parted(features)
    assert own.shape == there.shape == (40, *kind.whole.feature_shape)
    assert not own[~there].any()
    assert (own[1] == kind.whole.features(x[1:2])[0]).all()
    assert not there[0].any() and there[1].all()
    assert kind.features(x).isfinite().all()
    assert (x.isnan() == stored.isnan()).all()
    assert kind.intensities(x).isnan().equal(x.isnan())


@pytest.mark.parametrize("name", CASES)
def test_each_example_could_show_itself(name: str) -> None:
    likelihood, stored, x = built(name)
    found = likelihood.kind.could_show(x, likelihood.kind.stored_features(stored))
    assert found.diagonal().all()
    nothing = x.isnan().flatten(1).all(1)
    assert found[0].equal(nothing)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_and_equal_for_both_engines(name: str) -> None:
    def vae() -> VAE:
        likelihood, _, x = built(name)
        torch.manual_seed(0)
        posterior = posteriors.Normal(likelihood.kind.feature_shape, 2)
        made = VAE(priors.StandardNormal(2), likelihood, posterior)
        made.initialize(likelihood.kind.features(x))
        return made

    _, _, x = built(name)
    losses = {}
    both = name in ("Bernoulli", "Columns")
    for engine in (EagerEngine, CompiledEngine) if both else (EagerEngine,):
        pyro.clear_param_store()
        made = vae()
        steps = engine(made.model, made.guide, objectives.ELBO(), 1e-2)
        torch.manual_seed(0)
        losses[engine] = [steps.step(x, lambda batch: batch) for _ in range(3)]
        assert all(map(math.isfinite, losses[engine]))
        assert all(parameter.isfinite().all() for parameter in made.parameters())
    first, *others = losses.values()
    for other in others:
        assert other == pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_bounds_of_factor_analysis_with_holes_are_exact(share: float) -> None:
    x = with_holes(correlated(), share)
    vae, exact = factor_analysis(x)
    assert exact[0] == 0
    found = bounds.evaluate(vae.model, vae.guide, x, num_samples=5000, seed=0)
    below = (found.bound.values - exact).mean().item()
    error = math.hypot(found.bound.mc_se, 1e-3)
    assert -5 * error < below < 4 * error
    settings = bounds.Settings(temperatures=60)
    annealed = bounds.anneal(vae.model, vae.guide, x[:20], settings, seed=0)
    for bound in (annealed.lower, annealed.upper):
        difference = (bound.values - exact[:20]).mean().item()
        assert abs(difference) < 4 * math.hypot(bound.mc_se, 1e-3)


def test_dequantised_levels_are_shifted_by_the_values_that_are_there() -> None:
    likelihood, _, x = built("Beta of levels")
    there = (~x.isnan()).flatten(1).sum(1)
    shift = likelihood.kind.shift(x)
    torch.testing.assert_close(shift, -there.double() * math.log(256))


def test_likelihoods_start_at_the_marginals_of_what_is_observed() -> None:
    torch.manual_seed(0)
    on = torch.tensor([0.2, 0.5, 0.9])
    stored = with_holes((torch.rand(4000, 3) < on).float())
    likelihood = ObservedEntries(likelihoods.Bernoulli(2, kinds.Binary([3], levels=2)))
    likelihood.initialize(likelihood.kind.stored_features(stored))
    assert isinstance(likelihood.whole, likelihoods.Bernoulli)
    started = likelihood.whole.decoder.bias.sigmoid()
    assert started.tolist() == pytest.approx(stored.nanmean(0).tolist(), abs=5 * 0.5 / 2000**0.5)


def test_shifts_are_those_of_the_columns_that_are_there() -> None:
    levels = kinds.UnitInterval([1], levels=256)
    kind = kinds.Incomplete(kinds.Columns([(levels, [1]), (kinds.Counts([3]), [0, 2, 3])]))
    x = torch.tensor([[1, 0.5, 2, 3], [torch.nan, 0.5, 2, 3], [1, torch.nan, 2, 3]])
    expected = torch.tensor([-math.log(256), -math.log(256), 0]).double()
    torch.testing.assert_close(kind.shift(x), expected)


def test_features_do_not_depend_on_what_stands_in_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Gaussian", "Gamma", "Columns", "Bernoulli"):
        likelihood, stored, x = built(name)
        kind = likelihood.kind
        features, shown = kind.features(x), kind.stored_features(stored)
        with monkeypatch.context() as changed:
            for cls in (kinds.Incomplete, type(kind.whole)):
                filler = torch.ones(())  # possible for each of these kinds, and another one
                changed.setattr(cls, "filler", filler)
            assert kind.features(x).equal(features)
            assert kind.stored_features(stored).equal(shown)


@pytest.mark.parametrize(
    ("make", "kind", "sentence"),
    [
        (
            partial(likelihoods.PixelCNN, layers=2, kernel_size=3, channels=6),
            kinds.Binary([4, 4], levels=2),
            "makes values depend on each other",
        ),
        (likelihoods.Multinomial, kinds.Counts([4]), "total of a row with missing counts"),
        (
            partial(likelihoods.Poisson, total="known"),
            kinds.Counts([4]),
            "total of a row with missing counts",
        ),
        (partial(likelihoods.Gaussian, noise="optimal"), kinds.Real([4]), "learned noise"),
    ],
)
def test_likelihoods_that_cannot_leave_values_out_are_refused(
    make: Any, kind: kinds.Kind, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        ObservedEntries(make(2, kind))(torch.zeros(3, 2))


OBJECTIVES = sorted(
    name
    for name, part in vars(objectives).items()
    if isinstance(part, type)
    and issubclass(part, objectives.Objective)
    and part is not objectives.Objective
)


def trains(prior: Any, posterior: Any, objective: Any) -> None:
    """Check that a few steps on pixels with holes, and bounds of them, are finite numbers."""
    likelihood, stored, x = built("Bernoulli")
    pyro.clear_param_store()
    vae = VAE(prior(2), likelihood, posterior(likelihood.kind.feature_shape, 2))
    vae.initialize(likelihood.kind.stored_features(stored))
    engine = EagerEngine(vae.model, vae.guide, objective, 1e-2)
    assert all(math.isfinite(engine.step(x, lambda batch: batch)) for _ in range(3))
    assert all(parameter.isfinite().all() for parameter in vae.parameters())
    vae.eval()
    found = bounds.evaluate(vae.model, vae.guide, x[:4], num_samples=20, seed=0)
    assert found.bound.values.isfinite().all()


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_all_priors_and_posteriors_work_on_data_with_holes(prior: Any, posterior: Any) -> None:
    trains(prior, posterior, objectives.ELBO())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_all_objectives_work_on_data_with_holes(name: str) -> None:
    cls = getattr(objectives, name)
    trains(priors.StandardNormal, posteriors.Normal, cls(5.0) if name == "TargetKL" else cls())


def test_a_vamp_prior_has_pseudo_inputs_with_holes() -> None:
    likelihood, stored, x = built("Bernoulli")
    prior = priors.Vamp(2, components=4)
    vae = VAE(prior, likelihood, posteriors.Normal(likelihood.kind.feature_shape, 2))
    vae.initialize(likelihood.kind.stored_features(stored))
    assert prior.pseudo_inputs.shape == (4, 2, 3, 2)
    assert prior().log_prob(vae.guide(x)).isfinite().all()
