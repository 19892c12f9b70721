"""Draws, bounds and k-hat in ArviZ, whichever version is installed."""

import math
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from test_bounds import robust_guide, robust_regression
from torch import Tensor

from pyro_vae import VAE, InputError, bounds
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


# Other programs.


def factored(x: Tensor) -> None:
    """The likelihood is a factor."""
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("f", dist.Normal(z, 1.0).log_prob(x))


def half(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.8))


def normal(value: Any, loc: Any, scale: float) -> np.ndarray:
    value, loc = np.asarray(value), np.asarray(loc)
    return -0.5 * ((value - loc) / scale) ** 2 - math.log(scale * math.sqrt(2 * math.pi))


def test_factors() -> None:
    """A factor is a part of log p(x|z), and has no values."""
    x = torch.randn(6)
    data = for_arviz.inference_data(factored, half, x, 5)
    z = data["posterior"]["z"].values
    assert z.shape == (4, 5, 6)
    np.testing.assert_allclose(
        data["log_likelihood"]["log_p_x"], normal(x, z, 1.0), rtol=1e-4, atol=1e-4
    )
    log_w = normal(x, z, 1.0) + normal(z, 0.0, 1.0) - normal(z, x / 2, 0.8)
    np.testing.assert_allclose(data["sample_stats"]["log_weight"], log_w, rtol=1e-4, atol=1e-4)
    for group in ("observed_data", "posterior_predictive", "prior_predictive"):
        assert not OLD or group not in data.groups() or "f" not in data[group]


@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize("vectorize", [None, False])
def test_several_observed_sites_and_arguments(
    dim: int, vectorize: bool | None, tmp_path: Path
) -> None:
    """Two tensors, one in a dictionary; a plate inside; another name and dimension; a '/'."""
    shape = (1,) * (-1 - dim)

    def model(x: Tensor, others: dict[str, Tensor], scale: float) -> None:
        with pyro.plate("rows", len(x), dim=dim):
            z = pyro.sample("a/z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, scale), obs=x.reshape(-1, *shape))
            with pyro.plate("parts", 3, dim=-3):
                y = others["y"].T.reshape(3, *(1,) * (dim + 2), -1, *shape)
                pyro.sample("y", dist.Normal(2 * z, 0.5), obs=y)

    def guide(x: Tensor, others: dict[str, Tensor], scale: float) -> None:
        with pyro.plate("rows", len(x), dim=dim):
            pyro.sample("a/z", dist.Normal(x.reshape(-1, *shape) / 2, 0.8))

    x, y = torch.randn(6), torch.randn(6, 3)
    arguments = bounds.Arguments(x, {"y": y}, scale=0.7)
    data = for_arviz.inference_data(model, guide, arguments, 5, vectorize=vectorize)
    for_arviz.save(data, tmp_path / "bounds.nc")
    data = arviz.from_netcdf(str(tmp_path / "bounds.nc"))
    z = data["posterior"]["a.z"]
    assert z.dims == ("chain", "draw", "example") and z.shape == (4, 5, 6)
    np.testing.assert_array_equal(data["observed_data"]["x"], x)
    np.testing.assert_array_equal(data["observed_data"]["y"], y)
    assert data["posterior_predictive"]["y"].shape == (4, 5, 6, 3)
    assert data["prior_predictive"]["x"].shape == (4, 5, 6)
    z = z.values
    log_p_x = normal(x, z, 0.7) + normal(y, 2 * z[..., None], 0.5).sum(-1)
    log_w = log_p_x + normal(z, 0.0, 1.0) - normal(z, x / 2, 0.8)
    np.testing.assert_allclose(data["log_likelihood"]["log_p_x"], log_p_x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(data["sample_stats"]["log_weight"], log_w, rtol=1e-4, atol=1e-4)
    # What is drawn for an example goes with its z: their correlation is that of the model.
    drawn = data["prior_predictive"]["y"].values.mean(-1) - 2 * data["prior"]["a.z"].values
    assert abs(drawn.std() - 0.5 / 3**0.5) < 0.06


def test_all_data_as_one() -> None:
    """A weight that all examples share: one log-weight for each draw."""

    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(w[..., :1], 1.0))
            pyro.sample("x", dist.Normal(z + w[..., 1:], 0.5), obs=x)

    def guide(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 0.9).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(x - w[..., 1:], 0.7))

    x = torch.randn(6)
    data = for_arviz.inference_data(model, guide, x, 5, khat=torch.tensor([0.3]))
    w, z = data["posterior"]["w"].values, data["posterior"]["z"].values
    assert w.shape == (4, 5, 2) and z.shape == (4, 5, 6)
    assert data["sample_stats"]["log_weight"].shape == (4, 5, 1)
    assert data["sample_stats"]["khat"].shape == (1,)
    assert data["posterior_predictive"]["x"].shape == (4, 5, 6)
    log_p_x = normal(x, z + w[..., 1:], 0.5).sum(-1, keepdims=True)
    np.testing.assert_allclose(data["log_likelihood"]["log_p_x"], log_p_x, rtol=1e-4, atol=1e-4)
    log_w = log_p_x + (normal(w, 0, 1) - normal(w, 0, 0.9)).sum(-1, keepdims=True)
    log_w += (normal(z, w[..., :1], 1) - normal(z, x - w[..., 1:], 0.7)).sum(-1, keepdims=True)
    np.testing.assert_allclose(data["sample_stats"]["log_weight"], log_w, rtol=1e-3, atol=1e-3)


def test_programs_that_cannot_be_vectorised() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(6), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.view(-1, 6) * 2, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5).to_event(1))

    x = torch.randn(8, 6)
    with pytest.warns(UserWarning, match="run once for each draw"):
        data = for_arviz.inference_data(model, guide, x, 5)
    z = data["posterior"]["z"].values
    assert z.shape == (4, 5, 8, 6) and data["prior_predictive"]["x"].shape == (4, 5, 8, 6)
    log_p_x = normal(x, 2 * z, 1.0).sum(-1)
    np.testing.assert_allclose(data["log_likelihood"]["log_p_x"], log_p_x, rtol=1e-4, atol=1e-4)


def test_drawn_data_that_cannot_be_vectorised() -> None:
    """The second pixel depends on the first by position, which given data do not show."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            first = pyro.sample("first", dist.Normal(z, 0.1), obs=x[:, 0])
            rank = torch.zeros_like(first)
            rank[0] = 100.0  # of the first example; of the first draw, if draws are vectorised
            pyro.sample("second", dist.Normal(first + rank, 0.1), obs=x[:, 1])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0], 0.5))

    x = torch.randn(6, 2)
    with pytest.warns(UserWarning, match="cannot draw several data sets"):
        data = for_arviz.inference_data(model, guide, x, 5)
    for group in ("prior_predictive", "posterior_predictive"):
        drawn = data[group]["second"].values - data[group]["first"].values
        assert (abs(drawn[..., 0] - 100) < 1).all() and (abs(drawn[..., 1:]) < 1).all()


def test_autoguides() -> None:
    """Auxiliary sites are no part of the posterior."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = pyro.infer.autoguide.AutoNormal(model)
    x = torch.rand(6)
    guide(x)
    data = for_arviz.inference_data(model, guide, x, 5)
    assert list(data["posterior"].data_vars) == ["z"]
    z = data["posterior"]["z"].values
    loc, scale = (v.detach().numpy() for v in (guide.locs.z, guide.scales.z))
    log_q = -0.5 * ((np.log(z) - loc) / scale) ** 2 - np.log(scale * (2 * math.pi) ** 0.5 * z)
    log_p = normal(np.log(z), 0.0, 1.0) - np.log(z)
    expected = normal(x, z, 1.0) + log_p - log_q
    np.testing.assert_allclose(data["sample_stats"]["log_weight"], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("vectorize", [None, False])
def test_sites_that_are_summed_out_are_drawn_given_x(vectorize: bool | None) -> None:
    """Labels of a mixture: their shares are p(k | x, z), and predictions follow them."""
    means = torch.tensor([-3.0, 0.0, 3.0])

    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 0.5))
            k = pyro.sample(
                "k",
                dist.Categorical(torch.tensor([0.5, 0.3, 0.2])),
                infer={"enumerate": "parallel"},
            )
            pyro.sample("x", dist.Normal(means[k] + z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 0.5))

    x = torch.tensor([-1.4, 0.2, 1.6])
    data = for_arviz.inference_data(model, guide, x, 500, vectorize=vectorize)
    z, k = data["posterior"]["z"].values[..., None], data["posterior"]["k"].values
    assert k.shape == (4, 500, 3)
    log_p = np.log([0.5, 0.3, 0.2]) + normal(x[:, None], means + z, 1.0)
    log_w = np.log(np.exp(log_p).sum(-1))
    np.testing.assert_allclose(data["sample_stats"]["log_weight"], log_w, rtol=1e-3, atol=1e-3)
    share = np.exp(log_p - log_w[..., None])
    hits = k[..., None] == np.arange(3)
    error = np.sqrt((share * (1 - share)).sum((0, 1))) / 2000
    assert (abs((hits - share).mean((0, 1))) < 4.5 * error).all()
    log_p_x = normal(x, means.numpy()[k] + z[..., 0], 1.0)
    np.testing.assert_allclose(data["log_likelihood"]["log_p_x"], log_p_x, rtol=1e-3, atol=1e-3)
    noise = data["posterior_predictive"]["x"].values - means.numpy()[k] - z[..., 0]
    assert abs(noise.std() - 1) < 0.05


def test_masked_values_are_missing() -> None:
    """Sequences of different lengths."""

    def model(x: Tensor, length: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            for t in range(3):
                with poutine.mask(mask=length > t):
                    z = pyro.sample(f"z_{t}", dist.Normal(0.0, 1.0))
                    pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[:, t])

    def guide(x: Tensor, length: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            for t in range(3):
                with poutine.mask(mask=length > t):
                    pyro.sample(f"z_{t}", dist.Normal(x[:, t] / 2, 0.8))

    x, length = torch.randn(4, 3), torch.tensor([1, 3, 2, 3])
    data = for_arviz.inference_data(model, guide, (x, length), 5)
    for t in range(3):
        for group, name in (("posterior", "z"), ("prior", "z"), ("posterior_predictive", "x")):
            missing = np.isnan(data[group][f"{name}_{t}"].values).all((0, 1))
            np.testing.assert_array_equal(missing, (length <= t).numpy())
    assert np.isfinite(data["sample_stats"]["log_weight"]).all()


def test_sites_that_come_and_go_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            if z.flatten()[0] > 0:
                pyro.sample("y", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(InputError, match="'y' is missing in some runs"):
        for seed in range(10):  # until the first run has y
            for_arviz.inference_data(model, half, torch.zeros(3), 5, vectorize=False, seed=seed)
