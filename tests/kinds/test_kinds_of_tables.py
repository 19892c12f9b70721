"""Kinds of tables: their statistics, features, units, and what they refuse."""

import math
from functools import partial

import pytest
import torch
from scipy import stats
from torch import Tensor

import pyro_vae.kinds as k
from pyro_vae import InputError, bounds, likelihoods, posteriors, priors
from pyro_vae.networks import Linear
from pyro_vae.vae import VAE

ROWS = torch.tensor([[1.0, 200], [2, 400], [6, 300]], dtype=torch.float64)
NAMES = ["a", "b"]


def table() -> tuple[k.Columns, Tensor]:
    """A table of five kinds, and 200 rows of it, `float64`."""
    torch.manual_seed(0)
    reals = 50 + 10 * torch.randn(200, 2)
    others = [
        torch.randint(3, (200,)),  # categories
        (9 + torch.randn(200)).exp(),  # positive
        torch.poisson(torch.full((200,), 3.0)),  # counts
        torch.randint(2, (200,)),  # binary
        torch.randint(4, (200,)),  # ordered
    ]
    stored = torch.stack([reals[:, 0], *others, reals[:, 1]], 1).double()
    kind = k.Columns(
        [
            (k.Real([2], ["height", "width"]), [0, 6]),
            (k.Categories([1], ["city"], [["A", "B", "C"]]), [1]),
            (k.Positive([1], ["income"]), [2]),
            (k.Counts([1], ["visits"]), [3]),
            (k.Binary([1], ["smoker"], levels=2), [4]),
            (k.Ordered([1], ["grade"], [["low", "mid", "high", "top"]]), [5]),
        ],
        ["height", "city", "income", "visits", "smoker", "grade", "width"],
    )
    return kind, stored


def test_columns_are_standardised_each() -> None:
    kind = k.Real([2], NAMES).fitted(ROWS)
    torch.testing.assert_close(kind.loc, ROWS.mean(0).float())
    torch.testing.assert_close(kind.scale, ROWS.std(0).float())
    x = kind.observe(ROWS)
    assert torch.equal(x, ROWS.float())  # in the data's own units
    torch.testing.assert_close(kind.features(x).mean(0), torch.zeros(2))
    second = kind.of_columns([1])
    assert second.names == ("b",) and torch.equal(second.loc, kind.loc[1:])
    assert torch.equal(second.scale, kind.scale[1:]) and kind.shape == (2,)
    loc, scale = kind.in_units(torch.zeros(2), torch.ones(2))
    assert torch.equal(loc, kind.loc) and torch.equal(scale, kind.scale)


def test_moments_of_many_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.kinds.kind.ROWS", 7)
    values = 1e3 + torch.randn(100, 3, dtype=torch.float64)
    kind = k.Real([3]).fitted(values)
    torch.testing.assert_close(kind.loc.double(), values.mean(0), rtol=1e-7, atol=0)
    torch.testing.assert_close(kind.scale.double(), values.std(0), rtol=1e-6, atol=0)
    picture = k.Real([2, 3]).fitted(torch.arange(12.0).reshape(2, 2, 3))
    assert picture.loc.shape == () and picture.loc == 5.5


def test_logarithms_of_positive_values_and_counts_are_standardised() -> None:
    for kind, of in ((k.Positive([2], NAMES), torch.log), (k.Counts([2], NAMES), torch.log1p)):
        fitted = kind.fitted(ROWS)
        expected = of(ROWS)
        expected = (expected - expected.mean(0)) / expected.std(0)
        found = fitted.features(fitted.observe(ROWS))
        torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)


def test_categories_are_one_hot_and_ordered_ones_are_on_a_line() -> None:
    names = [["A", "B", "C"], ["no", "yes"]]
    codes = torch.tensor([[2.0, 0], [1, 1]])
    kind = k.Categories([2], NAMES, names)
    assert kind.feature_shape == (5,)
    expected = torch.tensor([[0.0, 0, 1, 1, 0], [0, 1, 0, 0, 1]])
    assert torch.equal(kind.features(kind.observe(codes)), expected)
    assert torch.equal(kind.could_show(codes, expected), torch.eye(2, dtype=torch.bool))
    ordered = k.Ordered([2], NAMES, names)
    assert torch.equal(ordered.features(codes), torch.tensor([[1.0, 0], [0.5, 1]]))
    unordered = k.Categories.seeing(ordered)
    assert type(unordered) is k.Categories and unordered.categories == kind.categories
    assert k.Ordered.seeing(kind) is None
    assert [kind.text(0, value) for value in (0, 1.2, 5)] == ["A", "B", "C"]


def test_a_table_has_the_features_of_all_its_columns() -> None:
    kind, stored = table()
    kind.check(stored)
    kind = kind.fitted(stored)
    x = kind.observe(stored)
    assert x.shape == (200, 7) and torch.equal(x, stored.float())
    features = kind.features(x)
    assert features.shape == (200, *kind.feature_shape) == (200, 9)
    torch.testing.assert_close(features[:, 1], (x[:, 6] - x[:, 6].mean()) / x[:, 6].std())
    assert kind.names is not None and not kind.is_picture
    assert [kind.text(place, 2.0) for place in (0, 1, 5)] == ["2", "C", "high"]
    assert kind.base_measure().shift == 0 and not kind.base_measure().counts
    assert kind.base_measure().name == (
        "binary pixels: smoker; categories: city, grade; counts: visits; "
        "values in their own units: height, income, width"
    )
    intensities = kind.intensities(x)
    assert intensities.shape == x.shape and torch.equal(intensities[:, 4], x[:, 4])
    assert str(kind) == (
        "real (2 columns), categories (1 column), positive (1 column), counts (1 column), "
        "binary (1 column), ordered categories (1 column)"
    )


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (k.Real([2], NAMES), math.inf, "column 'b' has the value inf, and real data are"),
        (k.Real([2]), math.nan, "column 1 has the value nan"),
        (k.Positive([2], NAMES), 0.0, "'b' has the value 0, and positive data are numbers"),
        (k.Counts([2], NAMES), 1.5, "'b' has the value 1.5, and counts data are whole numbers"),
        (k.Counts([2], NAMES), -1.0, "'b' has the value -1"),
        (k.Counts([2], NAMES), 2.0**25, "from 0 to 1.67772e\\+07"),
        (k.Categories([2], NAMES, [["a"] * 500, ["c"] * 2]), 2.0, "'b' has a code above 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(kind: k.Kind, value: float, said: str) -> None:
    rows = torch.tensor([[1.0, 1], [2, value], [6, 0 if kind.name == "counts" else 1]])
    with pytest.raises(InputError, match=said):
        kind.check(rows.double())


def test_columns_that_say_nothing_or_too_little_are_refused() -> None:
    with pytest.raises(InputError, match="column 'b' has the same value in all training examples"):
        k.Real([2], NAMES).fitted(torch.tensor([[1.0, 3], [2, 3]]))
    seconds = torch.tensor([[1.0, 1.7e9], [2, 1.7e9 + 60]], dtype=torch.float64)
    with pytest.raises(InputError, match=r"'b' has a mean of 1.7e\+09 .* subtract a constant"):
        k.Real([2], NAMES).fitted(seconds)
    with pytest.raises(InputError, match=r"'b' has a deviation of .* change its units"):
        k.Real([2], NAMES).fitted(torch.tensor([[1.0, 3e20], [2, 1e19]]))
    rare = k.Counts([2], NAMES).fitted(torch.tensor([[1.0, 0], [2, 0]]))
    assert rare.scale[1] == 1  # the counts of a rare gene may all be zero
    for parts in ([(k.Real([2]), [0, 0])], [(k.Real([1]), [1])]):
        with pytest.raises(InputError, match="has to be in one group"):
            k.Columns(parts)
    with pytest.raises(InputError, match="2 lists do not fit the shape \\[1\\]"):
        k.Categories([1], None, [["a", "b"], ["c", "d"]])


@pytest.mark.parametrize("units", [1.0, 1e-6, 1e9])
def test_factor_analysis_is_exact_in_the_data_s_own_units(units: float) -> None:
    """Log p(x) of a linear decoder with a scale for each column is that of a multivariate normal.

    It is computed with SciPy from the parameters in the data's units. In other units it differs by
    the logarithm of the Jacobian, and by nothing else.
    """
    torch.manual_seed(0)
    rows = (
        torch.randn(300, 2, dtype=torch.float64) @ torch.tensor([[3.0, 1, 0], [0, 2, 9]]).double()
    )
    rows = units * (rows + torch.randn(300, 3, dtype=torch.float64) + torch.tensor([5, -50, 500]))
    vae = make(k.Real([3]), rows)
    likelihood = vae.likelihood
    found = bounds.gaussian(vae.double().model, likelihood.kind.observe(rows).double())
    assert isinstance(likelihood.kind, k.Real)
    weight = likelihood.decoder.body[1].weight.detach()
    scale = likelihood.kind.scale.double()
    noise = scale * likelihood.log_scale.detach().exp()
    covariance = (scale[:, None] * weight) @ (scale[:, None] * weight).T + noise.square().diag()
    mean = likelihood.kind.loc.double() + scale * likelihood.decoder.bias.detach()
    exact = stats.multivariate_normal(mean.numpy(), covariance.numpy())
    expected = torch.from_numpy(exact.logpdf(rows.float().double().numpy()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    if units == 1:
        return
    other = make(k.Real([3]), rows / units)
    x = other.likelihood.kind.observe(rows / units).double()
    shifted = bounds.gaussian(other.double().model, x) - 3 * math.log(units)
    torch.testing.assert_close(found, shifted, rtol=1e-3, atol=1e-3)


def make(kind: k.Kind, rows: Tensor) -> VAE:
    torch.manual_seed(1)
    likelihood = likelihoods.Gaussian(2, kind, Linear)
    likelihood.fit_kind(rows)
    encoder = partial(posteriors.Normal, encoder=Linear)
    vae = VAE(priors.StandardNormal(2), likelihood, encoder(likelihood.kind.feature_shape, 2))
    vae.initialize(likelihood.kind.stored_features(rows))
    return vae


def test_likelihoods_of_columns_by_name() -> None:
    kind, stored = table()
    named = {"income": "Gamma", "width": "StudentT", "visits": "Poisson"}
    likelihood = likelihoods.Columns(2, kind, columns=named)
    likelihood.fit_kind(stored)
    assert [type(part).__name__ for part in likelihood.parts] == [
        *("Gaussian", "StudentT", "Categories", "Gamma", "Poisson", "Bernoulli", "CumulativeLogit")
    ]
    x = likelihood.kind.observe(stored)
    z = torch.zeros(200, 2)
    parts = [
        part(z).log_prob(x[:, list(places)])
        for part, places in zip(likelihood.parts, likelihood.places, strict=True)
    ]
    torch.testing.assert_close(likelihood(z).log_prob(x), sum(parts))
    with pytest.raises(InputError, match="no column 'wages': choose height, city"):
        likelihoods.Columns(2, kind, columns={"wages": "Gamma"})
    with pytest.raises(InputError, match="no likelihood of columns is named 'Beta'"):
        likelihoods.Columns(2, kind, columns={"income": "Beta"})
    with pytest.raises(InputError, match="Gamma models positive data, and these data are real"):
        likelihoods.Columns(2, kind, columns={"width": "Gamma"})


def test_the_likelihood_that_suits_the_data() -> None:
    kind, _ = table()
    for data, expected in (
        (kind, "Columns"),
        (k.Real([3]), "Gaussian"),
        (k.Counts([3]), "NegativeBinomial"),
        (k.Levels([4, 4], levels=17), "DiscretizedLogistic"),
        (k.Binary([4, 4], levels=2), "Bernoulli"),
    ):
        assert type(likelihoods.ByKind(2, data)).__name__ == expected
    usual = k.Levels([4, 4])
    usual.usual = k.Binary
    assert type(likelihoods.ByKind(2, usual)).__name__ == "Bernoulli"
    with pytest.raises(InputError, match="Bernoulli models binary data, and these data are real"):
        likelihoods.Bernoulli(2, k.Real([3]))
