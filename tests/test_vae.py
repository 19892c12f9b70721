"""Model and guide as Pyro's own tools see them."""

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import Tensor

from pyro_vae import VAE, likelihoods, networks, posteriors, priors
from pyro_vae.likelihoods import Likelihood
from pyro_vae.priors import Prior

PRIORS = [priors.StandardNormal, priors.LearnedNormal, priors.Mixture, priors.Vamp]
LIKELIHOODS = [likelihoods.Bernoulli, likelihoods.ContinuousBernoulli, likelihoods.Gaussian]


def make(
    prior: type[Prior] = priors.StandardNormal, likelihood: type[Likelihood] = likelihoods.Bernoulli
) -> VAE:
    return VAE(prior(2), likelihood(2, [4, 3]), posteriors.Normal([4, 3], 2))


@pytest.fixture
def x() -> Tensor:
    return (torch.rand(20, 4, 3) < torch.rand(4, 3)).float()


def losses(vae: VAE, x: Tensor, steps: int = 60) -> list[float]:
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    return [svi.step(x) for _ in range(steps)]


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_pyro_svi_trains_every_parameter(
    prior: type[Prior], likelihood: type[Likelihood], x: Tensor
) -> None:
    vae = make(prior, likelihood)
    vae.initialize(x)
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    history = losses(vae, x)
    assert sum(history[-10:]) < sum(history[:10])
    for name, parameter in vae.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_a_second_vae_trains_too(x: Tensor) -> None:
    """`pyro.module` would train the first one's tensors in its stead, in silence."""
    for _ in range(2):
        vae = make()
        before = vae.posterior.encoder.bias.clone()
        history = losses(vae, x)
        assert not torch.equal(before, vae.posterior.encoder.bias)
        assert sum(history[-10:]) < sum(history[:10])


def test_sites_and_shapes(x: Tensor) -> None:
    vae = make()
    trace = poutine.trace(vae.model).get_trace(x)
    trace.compute_log_prob()
    assert trace.nodes["z"]["log_prob"].shape == (20,)
    assert trace.nodes["x"]["log_prob"].shape == (20,)
    assert trace.nodes["x"]["is_observed"] and not trace.nodes["z"]["is_observed"]
    assert [f.name for f in trace.nodes["z"]["cond_indep_stack"]] == ["data"]
    assert vae.guide(x).shape == (20, 2)
    assert vae.model(size=7).shape == (7, 4, 3)
    assert vae.model().shape == (1, 4, 3)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("prior", PRIORS)
def test_predictive(prior: type[Prior], parallel: bool, x: Tensor) -> None:
    vae = make(prior)
    from_prior = Predictive(vae.model, num_samples=5, parallel=parallel)(size=6)
    assert from_prior["x"].shape == (5, 6, 4, 3)
    assert from_prior["z"].reshape(5, 6, 2).isfinite().all()
    from_posterior = Predictive(
        poutine.uncondition(vae.model), guide=vae.guide, num_samples=5, parallel=parallel
    )(x)
    assert from_posterior["x"].shape == (5, 20, 4, 3)
    assert not (from_posterior["x"] == x).all()


def test_render_model(x: Tensor) -> None:
    vae = make()
    graph = pyro.render_model(vae.model, model_args=(x,)).source
    assert "z -> x" in graph and "data" in graph
    assert "z" in pyro.render_model(vae.guide, model_args=(x,)).source
    conv = VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(2, [4, 3], networks.ConvDecoder),
        posteriors.Normal([4, 3], 2, networks.ConvEncoder),
    )
    assert "z -> x" in pyro.render_model(conv.model, model_args=(x,)).source


def test_support_is_checked_by_pyro(x: Tensor) -> None:
    with pytest.raises(ValueError, match="support"):
        poutine.trace(make().model).get_trace(x / 2).compute_log_prob()


def test_state_round_trip(x: Tensor) -> None:
    for prior in PRIORS:
        first, second = make(prior), make(prior)
        second.load_state_dict(first.state_dict())
        torch.manual_seed(1)
        one = first.model(size=50)
        torch.manual_seed(1)
        assert torch.equal(one, second.model(size=50))
        assert torch.equal(first.posterior(x).mean, second.posterior(x).mean)
