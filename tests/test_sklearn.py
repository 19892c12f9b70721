"""The scikit-learn estimator keeps scikit-learn's contract, and its numbers are the VAE's."""

import pickle
import random
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from factor_analysis import correlated, exact_log_p, with_holes
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyro_vae
from pyro_vae import InputError, bounds, likelihoods, priors
from pyro_vae.sklearn import VAE

QUICK: dict[str, Any] = {"epochs": 2, "widths": (8,), "num_samples": 3}
LINEAR: dict[str, Any] = {
    "widths": (),
    "posterior": "FullNormal",
    "epochs": 600,
    "lr": 1e-2,
    "validation_fraction": 0,
    "random_state": 0,
}


def quick(**arguments: Any) -> VAE:
    return VAE(**{**QUICK, "random_state": 0, **arguments})


def rows(count: int = 60) -> np.ndarray:
    return correlated(count).double().numpy()


@pytest.fixture(scope="module")
def linear() -> VAE:
    return VAE(num_samples=200, **LINEAR).fit(rows())


@parametrize_with_checks([VAE(**QUICK, latent_dim=2)])
def test_contract_of_scikit_learn(estimator: VAE, check: Any) -> None:
    check(estimator)


def test_scores_of_a_linear_model_are_its_exact_log_p(linear: VAE) -> None:
    exact = exact_log_p(linear.vae_, torch.from_numpy(rows()).float()).numpy()
    scores = linear.score_samples(rows())
    np.testing.assert_allclose(scores, exact, atol=0.1)
    assert abs((scores - exact).mean()) < 0.01
    assert linear.score(rows()) == scores.mean()


def test_scores_of_rows_with_holes_are_those_of_the_values_that_are_there() -> None:
    x = with_holes(correlated(), 0.3)
    fitted = VAE(num_samples=1000, **LINEAR).fit(x.double().numpy())
    exact = exact_log_p(fitted.vae_, x).numpy()
    scores = fitted.score_samples(x.numpy())
    assert scores[0] == pytest.approx(0, abs=0.05)  # nothing of this row is there
    np.testing.assert_allclose(scores, exact, atol=0.3)
    assert np.isfinite(fitted.transform(x.numpy())).all()
    filled = fitted.trained_.impute(x.numpy(), 50).values
    assert np.array_equal(filled[1], x[1].double().numpy())


@pytest.mark.parametrize("kind", ["real", "levels"])  # levels, seen as densities, have noise in x
def test_scores_are_the_bounds_of_the_inner_vae(kind: str) -> None:
    X = rows(40) if kind == "real" else np.random.default_rng(0).integers(0, 9, (40, 3))
    likelihood = "auto" if kind == "real" else "ContinuousBernoulli"
    fitted = quick(kind=kind, likelihood=likelihood, epochs=20, num_samples=400).fit(X)
    stored = fitted.trained_.observe(X)
    model, guide, measured = fitted.vae_.model, fitted.vae_.guide, fitted.vae_.likelihood.kind
    found = bounds.evaluate(model, guide, stored, 400).bound.values + measured.shift(stored)
    tolerance = 0.2 if kind == "real" else 0.6
    assert fitted.score(X) == pytest.approx(found.mean().item(), abs=tolerance)


def test_numbers_of_a_row_depend_on_the_row_alone(linear: VAE) -> None:
    X = rows()
    order = np.random.default_rng(0).permutation(len(X))[:7]
    assert np.array_equal(linear.score_samples(X)[order], linear.score_samples(X[order]))
    np.testing.assert_allclose(linear.transform(X)[order], linear.transform(X[order]), rtol=1e-12)
    twice = linear.score_samples(np.r_[X[:1], X[:1]])
    assert twice[0] == twice[1]


def test_codes_and_rows_are_those_of_the_trained_model(linear: VAE) -> None:
    X = rows()
    codes = linear.transform(X)
    np.testing.assert_allclose(codes, linear.trained_.encode(X).mean, atol=1e-5)
    np.testing.assert_allclose(
        linear.inverse_transform(codes), linear.trained_.reconstruct(X), rtol=1e-4, atol=1e-4
    )
    drawn = linear.sample(4000)
    np.testing.assert_allclose(drawn.mean(0), X.mean(0), atol=0.15 * X.std(0).max())
    np.testing.assert_allclose(drawn.std(0), X.std(0), rtol=0.1)


def test_a_mean_without_a_closed_form_is_that_of_draws() -> None:
    fitted = quick(posterior="IAF").fit(rows())
    codes = fitted.transform(rows())
    assert codes.shape == (60, 2)
    np.testing.assert_allclose(codes[5:6], fitted.transform(rows()[5:6]), rtol=1e-12)
    with torch.no_grad(), pyro.poutine.block():
        x = fitted.trained_.observe(rows())
        q = fitted.vae_.posterior(fitted.trained_.kind.features(x))
        draws = q.sample((2000,))
    assert ((codes - draws.mean(0).numpy()) / (draws.std(0).numpy() / 10)).std() < 1.5


def test_a_pipeline_and_a_search() -> None:
    X = rows(90)
    y = X[:, 2] > np.median(X[:, 2])
    steps = StandardScaler(), quick(epochs=150, lr=1e-2), LogisticRegression()
    assert make_pipeline(*steps).fit(X, y).score(X, y) > 0.8
    search = GridSearchCV(quick(epochs=30, lr=1e-2), {"latent_dim": [1, 2]}, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.score(X) == search.best_estimator_.score(X)
    in_pipeline = make_pipeline(StandardScaler(), quick())
    search = GridSearchCV(in_pipeline, {"vae__latent_dim": [1, 2]}, cv=2).fit(X)
    assert search.best_params_["vae__latent_dim"] in (1, 2)


def test_a_fitted_estimator_is_pickled_and_cloned(linear: VAE) -> None:
    other = pickle.loads(pickle.dumps(linear))
    for method in ("transform", "score_samples"):
        assert np.array_equal(getattr(other, method)(rows()), getattr(linear, method)(rows()))
    assert np.array_equal(other.sample(3), linear.sample(3))
    again = clone(linear)
    assert again.get_params() == linear.get_params()
    with pytest.raises(NotFittedError):
        again.transform(rows())


def test_random_state_determines_everything_and_global_states_are_left() -> None:
    X = rows()
    pyro.param("of_the_user", torch.ones(2))
    pyro.param("model$$$prior.x", torch.zeros(1))
    before = pyro.get_param_store().get_state()
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    first, second = (quick(posterior="IAF").fit(X) for _ in range(2))
    for method in ("transform", "score_samples"):
        assert np.array_equal(getattr(first, method)(X), getattr(second, method)(X))
    assert np.array_equal(first.sample(3), second.sample(3))
    first.inverse_transform(first.transform(X))
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    after = pyro.get_param_store().get_state()
    assert before["params"].keys() == after["params"].keys()
    for name, value in before["params"].items():
        assert after["params"][name] is value
    assert not np.array_equal(first.sample(3), first.sample(3, random_state=1))
    other = quick(random_state=1).fit(X)
    assert not np.array_equal(other.transform(X), first.transform(X))


def test_the_best_epoch_is_kept() -> None:
    kept = quick(epochs=40, lr=0.1, validation_fraction=0.3).fit(rows())
    best = max(row["validation_bound"] for row in kept.history_)
    assert best > kept.history_[-1]["validation_bound"]  # or this test shows nothing
    until = 1 + [row["validation_bound"] for row in kept.history_].index(best)
    shorter = quick(epochs=until, lr=0.1, validation_fraction=0.3).fit(rows())
    assert np.array_equal(kept.transform(rows()), shorter.transform(rows()))
    last = quick(epochs=2, validation_fraction=0).fit(rows())
    assert "validation_bound" not in last.history_[-1]


@pytest.mark.parametrize(
    "kind",
    ["real", "positive", "counts", "unit_interval", "levels 5", "binary", "categories", "ordered"],
)
def test_kinds(kind: str) -> None:
    random_numbers = np.random.default_rng(0)
    X = {
        "real": random_numbers.normal(size=(50, 3)),
        "positive": random_numbers.lognormal(size=(50, 3)),
        "unit_interval": random_numbers.uniform(size=(50, 3)),
        "counts": random_numbers.poisson(4, (50, 3)),
        "binary": random_numbers.integers(0, 2, (50, 3)),
    }.get(kind, random_numbers.integers(0, 5, (50, 3)))
    fitted = quick(kind=kind).fit(X)
    assert np.isfinite(fitted.score_samples(X)).all()
    for found in (fitted.sample(30), fitted.inverse_transform(fitted.transform(X))):
        assert found.shape[1] == 3 and np.isfinite(found).all()
    if kind in ("levels 5", "binary", "categories", "ordered"):
        assert set(np.unique(fitted.sample(30))) <= set(np.unique(X))


def test_columns_of_several_kinds_are_inferred() -> None:
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "real": generator.normal(size=60),
            "count": generator.poisson(30, 60),
            "binary": generator.integers(0, 2, 60),
        }
    )
    fitted = quick(kind="auto").set_output(transform="pandas").fit(table)
    assert list(fitted.feature_names_in_) == ["real", "count", "binary"]
    codes = fitted.transform(table)
    assert list(codes.columns) == list(fitted.get_feature_names_out()) == ["vae0", "vae1"]
    drawn = fitted.sample(20)
    assert np.array_equal(drawn[:, 1:], drawn[:, 1:].round())
    assert fitted.inverse_transform(codes).shape == (60, 3)


def test_parts_are_named_or_given() -> None:
    gaussian = partial(likelihoods.Gaussian, noise="per_pixel")
    given = quick(prior=partial(priors.Mixture, components=3), likelihood=gaussian).fit(rows())
    assert given.vae_.likelihood.outputs == 2
    assert type(given.vae_.prior) is priors.Mixture
    named = quick(prior="Mixture", likelihood="StudentT").fit(rows())
    assert type(named.vae_.likelihood) is likelihoods.StudentT
    by_class = quick(prior=priors.Mixture, likelihood=likelihoods.StudentT).fit(rows())
    assert np.array_equal(named.transform(rows()), by_class.transform(rows()))
    assert given.vae_.likelihood.decoder.body[1].out_features == 8
    assert pyro_vae.sklearn.VAE is VAE


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"kind": "numbers"}, "kind"),
        ({"likelihood": "Normal"}, "likelihood"),
        ({"prior": 3}, "prior"),
        ({"latent_dim": 2.5}, "latent_dim"),
        ({"epochs": 0}, "epochs"),
        ({"validation_fraction": 1}, "validation_fraction"),
        ({"likelihood": "Bernoulli"}, "likelihood"),
        ({"prior": "Hierarchical", "posterior": "Hierarchical"}, "posterior"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict, parameter: str) -> None:
    with pytest.raises(InputError) as refused:
        quick(**arguments).fit(rows())
    assert refused.value.parameter == parameter


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="remove them"):
        quick().fit(np.c_[rows(), np.ones(60)])
    fitted = quick().fit(rows())
    with pytest.raises(InputError, match="missing values"):
        fitted.transform(np.full((2, 4), np.nan))
    with pytest.raises(InputError, match="2 dimensions"):
        fitted.inverse_transform(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="features"):
        fitted.score(rows()[:, :2])
    with pytest.raises(InputError, match="whole number from 1"):
        fitted.sample(0)
