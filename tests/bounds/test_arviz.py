"""Draws, bounds and k-hat in ArviZ, whichever version is installed."""

import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from test_bounds import robust_guide, robust_regression

from pyro_vae import VAE, bounds
from pyro_vae.bounds import for_arviz, khat
from pyro_vae.bounds.arviz_versions import load_arviz

matplotlib.use("Agg")
# ArviZ warns of its next version, of few draws, and of plots that do not suit binary data.
pytestmark = pytest.mark.filterwarnings("default")
arviz, OLD = load_arviz()
BACKEND = {} if OLD else {"backend": "matplotlib"}


@pytest.mark.parametrize("count", [26, 100, 226, 3000])
def test_khat_is_that_of_all_weights(count: int) -> None:
    """The largest weights give what all weights give by ArviZ's own function."""
    log_w = torch.randn(5, count).double() * torch.tensor([0.1, 0.5, 1, 2, 6]).double()[:, None]
    tail = khat.tail_length(count)
    if OLD:
        expected = arviz.psislw(log_w.numpy())[1]
    else:
        from arviz_stats.base import array_stats

        r_eff = 9 * count / (tail + 0.5) ** 2  # ArviZ rounds the tail's length down, and we up
        if count * r_eff <= 225:
            pytest.skip("ArviZ 1.x does not fit such a tail to so few weights")
        expected = array_stats.psislw(-log_w.numpy(), r_eff=r_eff)[1]
    np.testing.assert_allclose(khat.pareto_k(log_w), expected, rtol=1e-6)
    largest = log_w.topk(tail + 1).values
    np.testing.assert_allclose(khat.pareto_k(largest, count), expected, rtol=1e-6)


def test_khat_of_known_tails() -> None:
    """Weights u^-k have a Pareto tail of shape k; the fit's error is about (1 + k) / sqrt(tail).

    It is drawn to 0.5, as ten more draws that say so would (Vehtari et al. 2024, appendix G).
    """
    u = torch.rand(200, 2000).double()
    tail = khat.tail_length(2000)
    for k in (0.3, 0.7, 1.5):
        fitted = khat.pareto_k(-k * u.log())
        error = (1 + k) / tail**0.5
        expected = (tail * k + 5) / (tail + 10)
        assert abs(fitted.mean().item() - expected) < 4.5 * error / 200**0.5
        assert fitted.std() == pytest.approx(error, rel=0.25)


def test_khat_without_a_tail() -> None:
    rounding = -100 + 1e-6 * torch.randn(2, 1000).double()
    assert (khat.pareto_k(torch.stack([torch.zeros(1000), *rounding])) == 0).all()
    assert khat.pareto_k(torch.randn(2, 20)).isinf().all()
    k = khat.pareto_k(torch.stack([torch.zeros(1000), torch.randn(1000)]))
    assert k[0] == 0 and k[1] != 0
    assert khat.good_k(5000) == 0.7 and khat.good_k(100) == 0.5


def test_inference_data(nonlinear: VAE, tmp_path: Path) -> None:
    x = nonlinear.model(size=6)
    khat = torch.rand(6)
    model, guide = nonlinear.model, nonlinear.guide
    for_arviz.save(for_arviz.inference_data(model, guide, x, 30, khat=khat), tmp_path / "bounds.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["bounds.nc"]
    data = arviz.from_netcdf(str(tmp_path / "bounds.nc"))
    z = data["posterior"]["z"]
    assert z.dims == ("chain", "draw", "example", "z_dim_0") and z.shape == (4, 30, 6, 2)
    np.testing.assert_array_equal(data["observed_data"]["x"], x)
    np.testing.assert_allclose(data["sample_stats"]["khat"], khat)
    # The groups agree with each other: log w = log p(x|z) + log p(z) - log q(z|x), at these z.
    with torch.no_grad():
        values = torch.as_tensor(z.values)
        log_p_x = nonlinear.likelihood(values).log_prob(x)
        log_w = (
            log_p_x + nonlinear.prior().log_prob(values) - nonlinear.posterior(x).log_prob(values)
        )
    for group, name, expected in (
        ("log_likelihood", "log_p_x", log_p_x),
        ("sample_stats", "log_weight", log_w),
    ):
        np.testing.assert_allclose(data[group][name], expected, rtol=1e-4, atol=1e-4)
    for group, name in (("prior", "z"), ("prior_predictive", "x"), ("posterior_predictive", "x")):
        assert data[group][name].shape[:3] == (4, 30, 6)
    # The means of the prior and of the posterior predictive are known.
    prior = data["prior"]["z"].values
    assert abs(prior.mean()) < 4.5 / prior.size**0.5
    predicted = data["posterior_predictive"]["x"].values.mean((0, 1))
    with torch.no_grad():
        expected = nonlinear.likelihood(values).mean.mean((0, 1)).numpy()
    assert (abs(predicted - expected) < 5 * (0.25 / 120) ** 0.5).all()

    # ArviZ's own functions accept the data.
    table = arviz.summary(data)
    assert len(table) == 12 and np.isfinite(table["r_hat"].astype(float)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loo = arviz.loo(data, pointwise=True)
        arviz.plot_khat(loo, **BACKEND)
        arviz.plot_ppc(data) if OLD else arviz.plot_ppc_dist(data, **BACKEND)


def test_programs_that_are_not_vaes() -> None:
    """Two sites, one of them discrete; pixels in a plate of their own."""
    x = 2 * torch.randn(6, 1) + torch.randn(6, 3)
    data = for_arviz.inference_data(robust_regression, robust_guide, x, 5)
    assert data["posterior"]["level"].shape == (4, 5, 6)
    assert data["posterior_predictive"]["x"].shape == (4, 5, 6, 3)
    np.testing.assert_array_equal(data["observed_data"]["x"], x)
    assert data["sample_stats"]["log_weight"].shape == (4, 5, 6)


def test_arviz_compares_as_we_do() -> None:
    first = 20 * torch.randn(100, dtype=torch.float64) - 90
    values = {"first": first, "second": first + 0.3 + torch.randn(100, dtype=torch.float64)}
    khat = torch.rand(100)
    elpd = {name: for_arviz.elpd_data(value, khat, 5000) for name, value in values.items()}
    table = arviz.compare(elpd) if OLD else arviz.compare(elpd, round_to="none")
    difference = bounds.compare(values).differences["second"]
    row = table.loc["first"]  # the worse of the two, compared with the better
    assert abs(float(row["elpd_diff"])) / 100 == pytest.approx(difference.mean)
    assert float(row["dse"]) / 100 == pytest.approx(
        difference.se, rel=0.01
    )  # ArviZ divides by N, not N - 1
    arviz.plot_khat(elpd["first"], **BACKEND)
