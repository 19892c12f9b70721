"""Codes in three layers and more, against linear Gaussian hierarchies."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pyro
import pytest
import torch
from linear_layers import LinearLadder, LinearLayers
from torch import Tensor

from pyro_vae import VAE, InputError, bounds, likelihoods, networks, objectives, posteriors, priors
from pyro_vae.bounds import Settings
from pyro_vae.posteriors import Posterior, ladder
from pyro_vae.priors import Prior
from pyro_vae.training import EagerEngine

THREE: dict[str, Callable[..., Posterior]] = {
    "Hierarchical": partial(
        posteriors.Hierarchical, encoder=networks.Linear, top_dim=[2, 1], features=8
    ),
    "Ladder": partial(posteriors.Ladder, encoder=networks.Linear, top_dim=[2, 1], features=8),
    "BottomUp": partial(
        posteriors.BottomUp, encoder=networks.Linear, top_dim=[2, 1], network=networks.Linear
    ),
}
three_layers = pytest.mark.parametrize("name", THREE)


@cache
def trained(name: str) -> tuple[LinearLayers, Tensor]:
    """Three layers with a guide that has learned, and 100 examples."""
    torch.manual_seed(1)
    known = LinearLayers(THREE[name])
    known.vae.model.requires_grad_(False)
    engine = EagerEngine(known.vae.model, known.vae.guide, objectives.IWAE(5), 1e-2)
    for _ in range(200):
        engine.step(known.marginal.sample((100,)))
    known.vae.eval()
    return known, known.marginal.sample((100,))


@three_layers
def test_weights_are_unbiased(name: str) -> None:
    """E[w] = p(x) for each example."""
    known, x = trained(name)
    log_w = bounds.log_weights(known.vae.model, known.vae.guide, x, 5000).detach()
    ratio = (log_w - known.marginal.log_prob(x)).exp()
    error = ratio.std(0) / len(ratio) ** 0.5
    assert ((ratio.mean(0) - 1) / error).abs().max() < 4.5
    assert 0.05 < ratio.std() < 5  # the guide is neither exact nor far away


@three_layers
def test_both_bounds_enclose_log_p(name: str) -> None:
    """IWAE_1000, and annealing over all three sites from both sides."""
    known, x = trained(name)
    vae, exact = known.vae, known.marginal.log_prob(x)
    iwae = bounds.evaluate(vae.model, vae.guide, x, 1000).iwae[1000]
    annealed = bounds.anneal(vae.model, vae.guide, x, Settings(temperatures=30, leapfrog=2))
    for estimate, side in ((iwae, -1), (annealed.lower, -1), (annealed.upper, 1)):
        off = estimate.values - exact
        error = (off.std() / len(off) ** 0.5).item()
        assert side * off.mean().item() > -4.5 * error
        assert abs(off.mean().item()) < 0.05 + 4.5 * error


def test_the_ladder_of_a_linear_hierarchy_is_exact() -> None:
    """Each weight is p(x): the combination is p(z_i | x, z_{i+1}), of all layers."""
    known = LinearLadder()
    x = known.marginal.sample((20,))
    log_w = bounds.log_weights(known.vae.model, known.vae.guide, x, 50)
    torch.testing.assert_close(log_w, known.marginal.log_prob(x).expand(50, 20), rtol=0, atol=1e-8)


def test_the_elbo_of_a_ladder() -> None:
    """With wrong scales and means, log p(x) less the KL of two normals of three dimensions."""
    known = LinearLadder(misfit=1.6, shift=0.3)
    x = known.marginal.sample((20,))
    vae, exact = known.vae.eval(), known.elbo(x)
    elbo = bounds.evaluate(vae.model, vae.guide, x, 20_000).elbo
    assert (known.marginal.log_prob(x) - exact).min() > 0.05
    assert ((elbo.values - exact).abs() < 4.5 * elbo.mc_variance.sqrt()).all()


def test_the_combination_of_two_normals() -> None:
    """Precisions 1 and 4, means 1 and 3: precision 5, mean (1 + 12) / 5."""
    normal = partial(torch.distributions.Normal, validate_args=False)
    q = ladder.combined(normal(torch.tensor([1.0]), 1.0), normal(torch.tensor([3.0]), 0.5))
    torch.testing.assert_close(q.mean, torch.tensor([2.6]))
    torch.testing.assert_close(q.variance, torch.tensor([0.2]))


def sum_of_variances(estimate: Any, prior: Any) -> Any:
    right = RIGHT(estimate, prior)
    scale = (estimate.variance + prior.variance).rsqrt()
    return pyro.distributions.Normal(right.mean, scale).to_event(1)


def swapped(estimate: Any, prior: Any) -> Any:
    scales = pyro.distributions.Normal(estimate.mean, prior.stddev).to_event(1)
    return RIGHT(scales, pyro.distributions.Normal(prior.mean, estimate.stddev).to_event(1))


RIGHT = ladder.combined
MUTATIONS: list[Callable[[Any, Any], Any]] = [
    lambda estimate, prior: estimate,
    lambda estimate, prior: prior,
    lambda estimate, prior: pyro.distributions.Normal(
        (estimate.mean + prior.mean) / 2, RIGHT(estimate, prior).stddev
    ).to_event(1),
    sum_of_variances,
    swapped,
]


@pytest.mark.parametrize("mutation", range(len(MUTATIONS)))
@pytest.mark.parametrize(
    "check", [test_the_ladder_of_a_linear_hierarchy_is_exact, test_the_elbo_of_a_ladder]
)
def test_a_wrong_combination_is_caught(
    mutation: int, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "combined", MUTATIONS[mutation])
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("wrong", ["order", "network"])
def test_a_ladder_with_other_networks_is_caught(wrong: str) -> None:
    """Networks of other layers, or copies that do not follow the prior."""
    known = LinearLadder()
    q: Any = known.vae.posterior
    if wrong == "order":
        q.networks = q.networks[::-1]
    else:
        q.networks = torch.nn.ModuleList([networks.Linear([1], [2, 1]).double() for _ in range(2)])
    x = known.marginal.sample((20,))
    log_w = bounds.log_weights(known.vae.model, known.vae.guide, x, 50)
    assert (log_w - known.marginal.log_prob(x)).abs().max() > 0.01


def test_prior_and_ladder_share_their_networks() -> None:
    known = LinearLadder()
    prior, q = known.vae.prior, known.vae.posterior
    assert isinstance(prior, priors.Hierarchical) and isinstance(q, posteriors.Ladder)
    assert [*q.networks] == prior.layer_networks
    shared = {*known.vae.model.parameters()} & {*known.vae.guide.parameters()}
    assert shared == {p for network in prior.layer_networks for p in network.parameters()}


@three_layers
def test_gradients_of_the_elbo(name: str) -> None:
    """By each parameter, shared or not, against finite differences with the same noise."""
    torch.manual_seed(2)
    vae = LinearLayers(THREE[name]).vae
    x = torch.randn(7, 3).double()

    def loss() -> Tensor:
        torch.manual_seed(5)
        return pyro.infer.Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)

    parameters = [p for p in vae.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter += step * direction
                values.append(loss().item())
                parameter -= step * direction
        expected = (values[0] - values[1]) / 2e-5
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@three_layers
def test_sites_and_their_order(name: str) -> None:
    vae = LinearLayers(THREE[name]).vae
    x = torch.randn(5, 3).double()
    model, guide = (pyro.poutine.trace(program).get_trace(x) for program in (vae.model, vae.guide))
    downwards = ["z_top2", "z_top", "z"]
    assert [name for name in model.stochastic_nodes if name != "data"] == downwards
    drawn = [name for name in guide.stochastic_nodes if name != "data"]
    assert drawn == (downwards[::-1] if name == "BottomUp" else downwards)
    shapes = {"z": (5, 2), "z_top": (5, 2), "z_top2": (5, 1)}
    assert {name: tuple(guide.nodes[name]["value"].shape) for name in downwards} == shapes


def test_the_likelihoods_code_is_that_of_the_lowest_layer() -> None:
    """With all else fixed, x depends on z alone, and z on z_top alone."""
    prior = LinearLayers(THREE["Ladder"]).vae.prior
    means = []
    for z_top, z_top2 in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0)):
        values = {"z_top": torch.full((2,), z_top), "z_top2": torch.full((1,), z_top2)}
        given = {key: value.double() for key, value in values.items()}
        means.append(pyro.poutine.condition(prior, given)().mean)
    assert torch.equal(means[0], means[1]) and not torch.allclose(means[0], means[2])


def test_parameters_of_two_layers_have_the_names_that_they_had() -> None:
    """Checkpoints of two layers can be loaded."""
    prior, q = priors.Hierarchical(2), posteriors.Hierarchical([3], 2)
    VAE(prior, likelihoods.Bernoulli(2, [3]), q)
    layers = [f"body.{place}.{name}" for place in (1, 3) for name in ("weight", "bias")]
    network = [*layers, "body.5.weight", "bias"]
    of_prior = ["top.loc", "top.scale", *(f"network.{name}" for name in network)]
    assert sorted(prior.state_dict()) == sorted(of_prior)
    joint = ["bias", "body.1.weight", "body.1.bias", "body.3.weight"]
    of_q = [f"{part}.{name}" for part in ("top.encoder", "encoder") for name in network]
    assert sorted(q.state_dict()) == sorted([*of_q, *(f"joint.{name}" for name in joint)])


def made_of(prior: Callable[[int], Prior], posterior: Posterior) -> VAE:
    return VAE(prior(2), likelihoods.Bernoulli(2, [3]), posterior)


def test_refusals() -> None:
    vamp = partial(priors.Hierarchical, top=partial(priors.Vamp, components=3))
    exemplar = partial(priors.Hierarchical, top=partial(priors.Exemplar, components=3))
    nested = partial(priors.Hierarchical, top=priors.Hierarchical)
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: posteriors.Ladder([3], 2, top_dim=[]), "at least one layer above z"),
        (lambda: posteriors.BottomUp([3], 2, top_dim=[4, 0]), "top_dim have to be positive"),
        (lambda: posteriors.Ladder([3], 2, features=0), "features has to be at least 1"),
        (lambda: posteriors.Ladder([3], 2)(torch.rand(1, 3)), "give both to VAE"),
        (lambda: made_of(priors.StandardNormal, posteriors.Ladder([3], 2)), "several layers"),
        (lambda: priors.Hierarchical(2).build(posteriors.Normal([3], 2)), "Ladder or BottomUp"),
        (lambda: made_of(nested, posteriors.Ladder([3], 2)), "are in several layers"),
        (lambda: made_of(exemplar, posteriors.BottomUp([3], 2)), "Mixture for example"),
        (lambda: made_of(vamp, posteriors.BottomUp([3], 2)).model(), "Mixture for example"),
    ]
    for make, message in refused:
        with pytest.raises(InputError, match=message):
            make()


def test_a_closed_form_kl_needs_one_order() -> None:
    """Bottom-up, the KL of a site is no part of the KL; the others agree with the sampled one."""
    for name in THREE:
        known, x = trained(name)
        vae = known.vae
        if name == "BottomUp":
            with pytest.raises(InputError, match="in this order"):
                objectives.AnalyticELBO().loss(vae.model, vae.guide, x)
            continue
        with torch.no_grad():
            sampled = -objectives.ELBO(500).loss(vae.model, vae.guide, x)
            analytic = -objectives.AnalyticELBO(500).loss(vae.model, vae.guide, x)
        spread = bounds.evaluate(vae.model, vae.guide, x, 500).elbo.mc_se * len(x)
        assert abs(sampled - analytic) < 4.5 * 1.5 * spread
