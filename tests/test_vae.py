"""Model and guide as Pyro's own tools see them."""

import inspect
from collections.abc import Callable
from functools import partial

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import Tensor

from pyro_vae import (
    VAE,
    bounds,
    data,
    likelihoods,
    networks,
    objectives,
    posteriors,
    priors,
    training,
)
from pyro_vae.kinds import Binary, Pixels
from pyro_vae.likelihoods import Likelihood
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior

PRIORS = [priors.StandardNormal, priors.LearnedNormal, priors.Mixture, priors.Vamp]
LIKELIHOODS = [likelihoods.Bernoulli, likelihoods.ContinuousBernoulli, likelihoods.Gaussian]
# Every prior with a posterior that goes with it: Normal, unless it is listed here.
PAIRS: dict[str, tuple[Callable[[int], Prior], Callable[..., Posterior]]] = {
    "LearnedNormal": (priors.LearnedNormal, posteriors.FullNormal),
    "StudentT": (priors.StudentT, posteriors.LowRankNormal),
    "Laplace": (priors.Laplace, posteriors.IAF),
    "Mixture": (priors.Mixture, posteriors.SplineFlow),
    "Vamp": (partial(priors.Vamp, components=20), posteriors.Normal),
    "Exemplar": (partial(priors.Exemplar, components=20), posteriors.Normal),
    "UniformSphere": (priors.UniformSphere, posteriors.PowerSpherical),
    "Bernoulli": (priors.Bernoulli, posteriors.Bernoulli),
    "Categorical": (priors.Categorical, posteriors.Categorical),
    "Hierarchical": (
        partial(priors.Hierarchical, top=partial(priors.Vamp, components=20)),
        posteriors.Hierarchical,
    ),
    "Ladder": (priors.Hierarchical, partial(posteriors.Ladder, top_dim=[3, 2])),
    "BottomUp": (priors.Hierarchical, partial(posteriors.BottomUp, top_dim=[3, 2])),
}
PAIRS |= {
    name: (cls, posteriors.Normal)
    for name, cls in vars(priors).items()
    if inspect.isclass(cls)
    and issubclass(cls, Prior)
    and name not in {*PAIRS, "Prior", "ConditionalNormal"}  # which needs conditions
}
EACH_KIND_OF_CODE = ["Vamp", "UniformSphere", "Bernoulli", "Categorical", "Hierarchical"]
EVERY_LIKELIHOOD = [  # of pixels
    name
    for name, cls in vars(likelihoods).items()
    if inspect.isclass(cls)
    and issubclass(cls, Likelihood)
    and any(issubclass(kind, Pixels) for kind in cls.kinds)
]


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


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return data.load("digits").train[:60]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("prior", "likelihood"),
    [(prior, "Bernoulli") for prior in PAIRS]
    + [("Exemplar", likelihood) for likelihood in EVERY_LIKELIHOOD if likelihood != "Bernoulli"],
)
def test_every_step_is_a_graph(prior: str, likelihood: str, digits: Tensor) -> None:
    """As traced, not compiled, which would take long: it takes the eager engine's step."""
    make_prior, make_posterior = PAIRS[prior]
    after = []
    for kind in (training.EagerEngine, training.CompiledEngine):
        torch.manual_seed(2)
        vae = VAE(
            make_prior(8),
            getattr(likelihoods, likelihood)(8, [8, 8]),
            make_posterior([8, 8], 8),
        )
        vae.initialize(vae.likelihood.kind.stored_features(digits))
        # By default Adam makes whole steps of gradients that are only rounding errors.
        optimizer = training.Adam(eps=1e-2)
        engine = kind(vae.model, vae.guide, objectives.ELBO(), lr=2e-3, optimizer=optimizer)
        show = vae.likelihood.kind.observe
        engine.check(show(digits[:2]))
        torch.manual_seed(1)
        loss = torch.tensor(engine.step(digits, show))
        after.append([loss, *vae.parameters(), *vae.buffers()])
    torch.testing.assert_close(after[0], after[1], rtol=1e-5, atol=3e-5)  # of a step of 2e-3


@pytest.mark.parametrize(
    ("prior", "likelihood"),
    [
        (prior, likelihood)
        for prior in PAIRS
        for likelihood in EVERY_LIKELIHOOD
        if likelihood in ("Bernoulli", "Gaussian", "PixelCNN") or prior in EACH_KIND_OF_CODE
    ],
)
def test_every_pair_trains_evaluates_and_comes_back(
    prior: str, likelihood: str, digits: Tensor
) -> None:
    """Ten steps lower the loss of a batch, under the same noise, and the state comes back.

    A likelihood sees of a prior its codes alone: it meets one prior for each kind of code.
    """
    make_prior, make_posterior = PAIRS[prior]

    def build() -> VAE:
        vae = VAE(
            make_prior(8),
            getattr(likelihoods, likelihood)(8, [8, 8]),
            make_posterior([8, 8], 8),
        )
        vae.initialize(Binary().stored_features(digits))
        return vae

    vae = build()
    x = vae.likelihood.kind.observe(digits)
    engine = training.EagerEngine(vae.model, vae.guide, objectives.ELBO(num_particles=1), lr=2e-3)
    losses = []
    for _ in range(11):
        torch.manual_seed(1)
        losses.append(engine.step(x))
    assert losses[-1] < losses[0]
    vae.eval()
    result = bounds.evaluate(vae.model, vae.guide, x[:10], 20)
    assert result.elbo.values.isfinite().all()
    other = build()
    other.load_state_dict(vae.state_dict())
    again = bounds.evaluate(other.eval().model, other.guide, x[:10], 20)
    torch.testing.assert_close(again.elbo.values, result.elbo.values)
    images = other.model(size=2)
    assert (
        images.shape == (2, 8, 8) and vae.likelihood(vae.guide(x[:2])).support.check(images).all()
    )


def test_levels_are_shown_to_the_posterior_as_intensities() -> None:
    vae = VAE(priors.StandardNormal(2), likelihoods.Binomial(2, [3]), posteriors.Normal([3], 2))
    x = torch.tensor([[0.0, 128.0, 255.0]])
    q = poutine.trace(vae.guide).get_trace(x).nodes["z"]["fn"]
    torch.testing.assert_close(q.mean, vae.posterior(x / 255).mean)


def test_hierarchical_programs_have_one_more_site(x: Tensor) -> None:
    vae = VAE(
        priors.Hierarchical(2),
        likelihoods.Bernoulli(2, [4, 3]),
        posteriors.Hierarchical([4, 3], 2, top_dim=3),
    )
    for program in (vae.model, vae.guide):
        sites = poutine.trace(program).get_trace(x).nodes
        assert sites["z_top"]["value"].shape == (20, 3) and sites["z"]["value"].shape == (20, 2)
    graph = pyro.render_model(vae.model, model_args=(x,)).source
    assert "z_top -> z" in graph and "z -> x" in graph
    with torch.no_grad():
        exact = -objectives.ELBO(1000).loss(vae.model, vae.guide, x)
        analytic = -objectives.AnalyticELBO(1000).loss(vae.model, vae.guide, x)
    spread = bounds.evaluate(vae.model, vae.guide, x, 1000).elbo.mc_se * len(x)
    assert abs(exact - analytic) < 4.5 * 1.5 * spread


@pytest.mark.parametrize("objective", [objectives.ELBO(), objectives.IWAE(3)])
def test_discrete_codes_are_trained_relaxed_and_measured_as_they_are(
    objective: objectives.Objective, x: Tensor
) -> None:
    """The bound of the discrete model, whose log p(x) is a sum over four codes."""
    vae = VAE(
        priors.Bernoulli(2), likelihoods.Bernoulli(2, [4, 3]), posteriors.Bernoulli([4, 3], 2)
    )
    engine = training.EagerEngine(vae.model, vae.guide, objective, lr=1e-2)
    for _ in range(100):
        engine.step(x)
    engine.evaluate_loss(x)
    z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 2)
    with torch.no_grad():
        log_joint = vae.likelihood(z[:, None]).log_prob(x) + vae.prior().log_prob(z)[:, None]
        exact = log_joint.logsumexp(0)
        q = vae.posterior(x).log_prob(z[:, None])
        elbo = (q.exp() * (log_joint - q)).sum(0)
    result = bounds.evaluate(vae.model, vae.guide, x, 5000)
    assert abs(result.elbo.mean - elbo.mean().item()) < 4.5 * result.elbo.mc_se
    top = result.iwae[5000]
    assert abs(top.mean - exact.mean().item()) < 4.5 * top.mc_se + 1e-3
