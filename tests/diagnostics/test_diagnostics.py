"""Diagnoses of codes whose information is known, and of runs that are healthy or collapsed."""

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from conftest import LinearGaussian
from pairs import PAIRS
from torch import Tensor

from pyro_vae import VAE, InputError, diagnostics, likelihoods, networks, posteriors, priors
from pyro_vae.diagnostics.means import mean_as_text
from pyro_vae.networks import Linear
from pyro_vae.objectives import ELBO
from pyro_vae.training import EagerEngine


def test_active_units() -> None:
    posterior = posteriors.Normal([3], 3, Linear)
    with torch.no_grad():
        posterior.encoder.body[1].weight.zero_()
        for unit, gain in enumerate([1.0, 0.15, 0.05]):  # variances 1, 0.0225 and 0.0025
            posterior.encoder.body[1].weight[unit, unit] = gain
    guide = VAE(priors.StandardNormal(3), likelihoods.Gaussian(3, [3]), posterior).guide
    x = torch.randn(20_000, 3)
    assert diagnostics.active_units(guide, x) == {"z": 2}
    assert diagnostics.active_units(guide, x, threshold=0.5) == {"z": 1}
    assert diagnostics.active_units(guide, x[:1].expand(1000, 3)) == {"z": 0}
    shares = diagnostics.unit_shares(guide, x)["z"]
    within = posterior(x[:1]).variance[0].detach()
    between = torch.tensor([1, 0.0225, 0.0025])
    torch.testing.assert_close(shares, between / (between + within), atol=2e-3, rtol=0.04)


@pytest.mark.parametrize("scale", [0.05, 1.0, 5.0])
def test_units_are_counted_on_any_scale(scale: float) -> None:
    """A learned prior may rescale z: active units stay active, and inactive ones inactive."""
    posterior = posteriors.Normal([3], 20, Linear)
    with torch.no_grad():
        weight = posterior.encoder.body[1].weight.zero_()
        weight[0, 0] = weight[1, 1] = scale
        posterior.encoder.bias[1] = math.log(math.expm1(scale))
    guide = VAE(priors.StandardNormal(20), likelihoods.Gaussian(20, [3]), posterior).guide
    assert diagnostics.active_units(guide, torch.randn(1000, 3)) == {"z": 2}


def test_units_on_a_sphere_of_many_dimensions() -> None:
    """All coordinates can be active, although none has a variance above 1 / D."""
    torch.manual_seed(0)
    posterior = posteriors.PowerSpherical([150], 150, Linear)
    with torch.no_grad():
        posterior.encoder.body[1].weight.zero_()[:150] = torch.eye(150)
        posterior.encoder.bias[1] = 8.0
    vae = VAE(priors.UniformSphere(150), likelihoods.Gaussian(150, [150]), posterior)
    assert diagnostics.active_units(vae.guide, torch.randn(500, 150))["z"] > 140


def test_units_of_scalar_sites_and_of_autoguides() -> None:
    import pyro

    def program(observes: bool) -> Callable[[Tensor], None]:
        def run(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", pyro.distributions.Normal(0.0 if observes else x, 1.0))
                if observes:
                    pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=x)

        return run

    x = torch.randn(200)
    diagnosis = diagnostics.diagnose(program(True), program(False), x)
    assert (diagnosis.units, diagnosis.active) == (1, 1)
    guide = pyro.infer.autoguide.AutoNormal(program(True))
    guide(x)
    assert diagnostics.kl_per_unit(program(True), guide, x) == {"z": None}


def test_two_examples_by_hand(linear_gaussian: LinearGaussian) -> None:
    """For two examples, the mean over the others is the other one's density."""
    vae, x = linear_gaussian.vae, linear_gaussian.marginal.sample((2,))
    information = diagnostics.measure(vae.model, vae.guide, x, seed=3)
    torch.manual_seed(3)
    q = vae.posterior(x)
    z = q.sample()
    pairs = vae.posterior(x).log_prob(z[:, None])  # [code, example]
    own, other = pairs.diagonal(), pairs.flip(1).diagonal()
    torch.testing.assert_close(information.mutual_information_above, own - other)
    below = own - torch.logaddexp(own, other) + math.log(2)
    torch.testing.assert_close(information.mutual_information, below)


def test_both_layers_are_counted() -> None:
    posterior = posteriors.Hierarchical([3], 2, top_dim=4)
    guide = VAE(priors.Hierarchical(2), likelihoods.Gaussian(2, [3]), posterior).guide
    with torch.no_grad():
        posterior.top.encoder.bias[0] = 5 * torch.ones(4)  # far from zero, and the same for all
        posterior.top.encoder.body[-1].weight.zero_()
        posterior.joint.body[-1].weight.zero_()
    assert diagnostics.active_units(guide, torch.randn(500, 3)) == {"z_top": 0, "z": 0}


def near(values: Tensor, expected: float, slack: float = 0.0) -> bool:
    error = values.double().std().item() / len(values) ** 0.5
    return abs(values.mean().item() - expected) < 4.5 * error + slack


def test_information_of_a_linear_gaussian(linear_gaussian: LinearGaussian) -> None:
    """All quantities have closed forms: x and z are jointly normal, under p and under q."""
    vae = linear_gaussian.vae
    x = linear_gaussian.marginal.sample((1500,))
    measured = diagnostics.measure(vae.model, vae.guide, x)
    gain = vae.posterior.encoder.body[1].weight[:2].detach()
    q = vae.posterior(x[:1]).variance[0].detach().diag()
    q_z = q + gain @ linear_gaussian.marginal.covariance_matrix @ gain.T
    information = 0.5 * (torch.logdet(q_z) - torch.logdet(q)).item()
    p_z = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    aggregated = torch.distributions.MultivariateNormal(torch.zeros(2).double(), q_z)
    marginal_kl = torch.distributions.kl_divergence(aggregated, p_z).item()
    assert 1 < information < math.log(1500) / 2
    assert near(measured.rate, information + marginal_kl)
    assert near(-measured.rate - measured.distortion, linear_gaussian.elbo(x).mean().item())
    # If I is small, an example's own share of q(z) is about 1/N, so the two are close.
    below, above = measured.mutual_information, measured.mutual_information_above
    assert below.mean() < above.mean()
    assert near(below, information, slack=0.05) and near(above, information, slack=0.05)
    assert near(measured.marginal_kl, marginal_kl, slack=0.05)
    w, s = vae.likelihood.decoder.body[1].weight.detach(), linear_gaussian.scale
    exact = linear_gaussian.marginal.covariance_matrix.trace() + (w @ w.T).trace()
    prior_distortion = 0.5 * exact / s**2 + 4 * math.log(s * (2 * math.pi) ** 0.5)
    assert near(measured.prior_distortion, prior_distortion.item())
    assert torch.equal(measured.gain, measured.prior_distortion - measured.distortion)


def test_information_is_bounded_by_the_number_of_examples() -> None:
    """For very narrow posteriors the lower estimate is log N, and the upper one far above."""
    vae = LinearGaussian(latent_dim=2).vae
    with torch.no_grad():
        vae.posterior.encoder.bias[1] = -8.0
    x = torch.randn(40, 4).double()
    information = diagnostics.measure(vae.model, vae.guide, x)
    assert information.mutual_information.max().item() <= math.log(40) + 1e-9
    assert information.mutual_information.mean().item() == pytest.approx(math.log(40), abs=1e-3)
    assert information.mutual_information_above.mean() > 100
    said = str(diagnostics.diagnose(vae.model, vae.guide, x))
    kl = diagnostics.measure(vae.model, vae.guide, x).rate
    assert f"is between {math.log(40):.2f} and {mean_as_text(kl)} nats" in said
    assert f"the first cannot be above log 40 = {math.log(40):.2f}" in said


def test_little_data_brackets_the_information(linear_gaussian: LinearGaussian) -> None:
    """With twenty examples the biases are visible, and have the documented directions."""
    vae = linear_gaussian.vae
    means = []
    for seed in range(60):
        x = linear_gaussian.marginal.sample((20,))
        information = diagnostics.measure(vae.model, vae.guide, x, seed)
        below, above = information.mutual_information, information.mutual_information_above
        means.append([below.mean(), above.mean()])
    below, above = torch.tensor(means).T
    large = diagnostics.measure(vae.model, vae.guide, linear_gaussian.marginal.sample((1500,)))
    truth = large.mutual_information.mean().item()
    assert below.mean() + 3 * below.std() / 60**0.5 < truth
    assert above.mean() - 3 * above.std() / 60**0.5 > truth


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_every_prior_and_posterior_is_diagnosed(
    prior: type[priors.Prior], posterior: type[posteriors.Posterior]
) -> None:
    torch.manual_seed(0)
    small = partial(networks.MLP, widths=[4])
    vae = VAE(prior(2), likelihoods.Bernoulli(2, [5], small), posterior([5], 2, small)).eval()
    x = (torch.rand(60, 5) < 0.4).float()
    diagnosis = diagnostics.diagnose(vae.model, vae.guide, x)
    content = diagnosis.to_dict()
    json.dumps(content, allow_nan=False)
    assert "--" not in str(diagnosis) + content["advice"]  # no command-line options
    assert all(math.isfinite(content[name]["mean"]) for name in ("rate", "gain", "marginal_kl"))
    assert diagnosis.verdict in str(diagnosis) and diagnosis.units == content["units"]
    assert str(diagnostics.diagnose(vae.model, vae.guide, x)) == str(diagnosis)  # the same draws


def test_kl_of_each_unit(linear_gaussian: LinearGaussian) -> None:
    vae = linear_gaussian.vae
    x = linear_gaussian.marginal.sample((300,))
    kl = diagnostics.kl_per_unit(vae.model, vae.guide, x)["z"]
    q = vae.posterior(x).base_dist
    exact = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(kl, exact)
    mixture = VAE(priors.Mixture(2), vae.likelihood, vae.posterior).double()
    assert diagnostics.kl_per_unit(mixture.model, mixture.guide, x) == {"z": None}


def test_probe() -> None:
    """A code with the label in it, one without, and data with a single label."""
    vae = VAE(priors.StandardNormal(2), likelihoods.Gaussian(2, [3]), posteriors.Normal([3], 2))
    vae.posterior.encoder = Linear([3], (2, 2))
    with torch.no_grad():
        vae.posterior.encoder.body[1].weight.zero_()
        vae.posterior.encoder.body[1].weight[0, 0] = 3.0
    labels = torch.arange(400) % 4 // 3  # three of four are 0
    x = torch.randn(400, 3)
    x[:, 0] = 2.0 * labels
    sets = [(x[:200], labels[:200]), (x[200:], labels[200:])]
    result = diagnostics.probe(vae.guide, *sets)
    assert result is not None and result.accuracy == 1.0 and result.chance == 0.75
    x[:, 0] = torch.randn(400)
    result = diagnostics.probe(vae.guide, *sets)
    assert result is not None and abs(result.accuracy - 0.75) < 0.08 and result.se > 0
    assert diagnostics.probe(vae.guide, (x[:50], torch.ones(50)), sets[1]) is None


def test_the_probe_is_scored_on_what_it_was_not_fitted_to() -> None:
    """Thirty examples in forty dimensions are always separable, which says nothing."""
    guide = VAE(
        priors.StandardNormal(40), likelihoods.Gaussian(40, [40]), posteriors.Normal([40], 40)
    ).guide
    x, labels = torch.randn(2030, 40), torch.arange(2030) % 2
    result = diagnostics.probe(guide, (x[:30], labels[:30]), (x[30:], labels[30:]))
    assert result is not None and abs(result.accuracy - 0.5) < 4.5 * result.se


@pytest.mark.parametrize(
    ("active", "information", "gain", "verdict"),
    [
        (4, 3.0, 9.0, "healthy"),
        (3, 3.0, 9.0, "partly collapsed"),
        (0, 0.0, 0.0, "collapsed"),
        (0, 3.0, 9.0, "collapsed"),
        (4, 0.2, 9.0, "collapsed"),
        (4, math.nan, math.nan, "collapsed"),
        (4, 3.0, 0.1, "collapsed"),  # a code that the decoder does not use
    ],
)
def test_judge(active: int, information: float, gain: float, verdict: str) -> None:
    assert diagnostics.judge(active, 4, information, gain) == verdict


def trained(seed: int, latent_dim: int, beta: float) -> diagnostics.Diagnosis:
    """The diagnosis of a VAE trained on binary data with two factors."""
    torch.manual_seed(seed)
    x = (torch.randn(2000, 2) @ (3 * torch.randn(2, 16))).sigmoid().bernoulli()
    small = partial(networks.MLP, widths=[32])
    vae = VAE(
        priors.StandardNormal(latent_dim),
        likelihoods.Bernoulli(latent_dim, [16], small),
        posteriors.Normal([16], latent_dim, small),
    )
    engine = EagerEngine(vae.model, vae.guide, ELBO(beta=beta), lr=1e-2)
    for batch in torch.randint(2000, (400, 200)):
        engine.step(x[batch])
    vae.eval()
    return diagnostics.diagnose(vae.model, vae.guide, x[:500])


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_verdicts_of_trained_models(seed: int) -> None:
    """Healthy: one dimension for each factor. Partly: three more. Fully: a KL weight of 200."""
    healthy = trained(seed, 2, 1.0)
    assert (healthy.verdict, healthy.active) == ("healthy", 2)
    partly = trained(seed, 5, 1.0)
    assert (partly.verdict, partly.active) == ("partly collapsed", 2)
    assert "partly collapsed (3 of 5 units)" in str(partly)
    assert partly.kl["z"] is not None and (partly.kl["z"] > 0.1).sum() == 2
    fully = trained(seed, 2, 200.0)
    assert fully.verdict == "collapsed" and fully.information.mutual_information.mean() < 0.1
    assert "warm-up" in str(fully)


def test_no_quantity_is_said_to_be_negative() -> None:
    """The estimates of a code without information are below zero, and in no order, by noise."""
    noise = torch.tensor([-0.02, 0.01, -0.02, 0.02])
    information = diagnostics.Information(
        rate=noise - 0.001,
        distortion=torch.zeros(4),
        prior_distortion=noise - 0.001,
        mutual_information=noise + 0.02,
        mutual_information_above=noise,
    )
    text = str(diagnostics.Diagnosis(information, {"z": torch.tensor([0.5, 0.0])}, {"z": None}))
    assert "-0.0" not in text and "is about 0.000 ± 0.010 nats" in text
    assert text.startswith(
        "The latent code is collapsed: the posterior means of 1 of 2 units depend on x, but tell "
        "the decoder almost nothing;"
    )
    assert "by 0.000 ± 0.010 nats" in text


def test_what_is_refused(linear_gaussian: LinearGaussian) -> None:
    vae = linear_gaussian.vae
    with pytest.raises(InputError, match="two examples"):
        diagnostics.measure(vae.model, vae.guide, torch.zeros(1, 4).double())
    with pytest.raises(InputError, match="more than 10 examples"):
        diagnostics.smoothness(vae, torch.zeros(10, 4).double())
    binary = VAE(priors.Bernoulli(2), likelihoods.Gaussian(2, [4]), posteriors.Bernoulli([4], 2))
    with pytest.raises(InputError, match="three points or more"):
        diagnostics.smoothness(vae, torch.zeros(20, 4).double(), steps=2)
    with pytest.raises(InputError, match="codes that are real, not binary"):
        diagnostics.smoothness(binary, torch.zeros(20, 4))


def test_a_linear_decoder_is_smooth(linear_gaussian: LinearGaussian) -> None:
    """Paths are straight and even, and the cost of noise has a closed form."""
    vae = linear_gaussian.vae
    with torch.no_grad():
        vae.posterior.encoder.body[1].weight[0] *= 3
    with torch.no_grad():  # values outside [0, 1] do not matter here
        result = diagnostics.smoothness(vae, linear_gaussian.marginal.sample((2000,)))
    assert result.detour is not None and result.jump is not None and result.turning is not None
    for values, expected in ((result.detour, 1.0), (result.jump, 1.0), (result.turning, 0.0)):
        torch.testing.assert_close(values, torch.full_like(values, expected), atol=1e-5, rtol=1e-5)
    weight, s = vae.likelihood.decoder.body[1].weight, linear_gaussian.scale
    gain = vae.posterior.encoder.body[1].weight[:2]
    variance = (gain @ linear_gaussian.marginal.covariance_matrix @ gain.T).diagonal()
    for scale, cost in result.noise.items():
        expected = scale**2 * (weight.square().sum(0) * variance).sum() / (2 * s**2)
        assert scale == 0 or near(cost, expected.item(), slack=0.06 * expected.item())
    assert result.noise[0.0].abs().max() == 0
    assert "times as long" in str(result) and result.to_dict()["detour"]["mean"] > 0.99


def test_paths_on_the_sphere_are_even() -> None:
    """The decoder returns the code: paths are arcs with even steps."""
    vae = VAE(
        priors.UniformSphere(3),
        likelihoods.Gaussian(3, [3], Linear),
        posteriors.PowerSpherical([3], 3, Linear),
    )
    with torch.no_grad():
        vae.likelihood.decoder.body[1].weight.copy_(torch.eye(3))
        vae.likelihood.decoder.bias.zero_()
    result = diagnostics.smoothness(vae, torch.randn(200, 3))
    assert result.jump is not None and result.detour is not None and result.detour.max() > 1.01
    torch.testing.assert_close(result.jump, torch.ones(100), atol=1e-3, rtol=0)


def test_a_constant_decoder_has_no_paths(linear_gaussian: LinearGaussian) -> None:
    vae = linear_gaussian.vae
    with torch.no_grad():
        vae.likelihood.decoder.body[1].weight.zero_()
        result = diagnostics.smoothness(vae, linear_gaussian.marginal.sample((30,)))
    assert "the same example for different codes" in str(result)
    assert result.to_dict()["detour"]["mean"] is None


class Ends(torch.nn.Module):
    """A decoder onto two points, as a function of the sign of the first unit of the code."""

    bias = torch.zeros(3)

    def forward(self, z: Tensor) -> Tensor:
        return (10 * z[..., :1]).sign().expand(*z.shape[:-1], 3)


class Cauchy(likelihoods.Gaussian):
    def forward(self, z: Tensor) -> Any:
        return self.independent(dist.Cauchy(self.decoder(z), 1.0))


def test_paths_are_those_of_pairs_that_differ() -> None:
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Gaussian(2, [3], scale=1.0, noise="fixed"),
        posteriors.Normal([3], 2, Linear),
    )
    vae.likelihood.decoder = Ends()
    with torch.no_grad():
        result = diagnostics.smoothness(vae, torch.randn(60, 3))
    assert result.detour is not None
    same = int(result.detour.isnan().sum())
    assert 1 < same < 29
    said = str(result)
    assert f"the same example for both codes of {same} of 30 pairs" in said and "nan" not in said
    assert "sd" not in said and "noise on z, in standard deviations of z, costs" in said
    assert "decoded paths are 1.00 times" in said and "no paths" not in said
    assert result.to_dict()["detour"] == {"mean": pytest.approx(1.0), "se": pytest.approx(0.0)}


def test_a_likelihood_without_a_mean_has_no_paths() -> None:
    """Nothing is said of its pictures, which depend on the code."""
    vae = VAE(priors.StandardNormal(2), Cauchy(2, [3], Linear), posteriors.Normal([3], 2, Linear))
    with torch.no_grad():
        result = diagnostics.smoothness(vae, torch.randn(60, 3))
    assert result.detour is None and result.jump is None and result.turning is None
    assert "same example" not in str(result) and "paths" not in str(result)
    assert result.to_dict()["detour"] is None and result.to_dict()["neighbours"]["mean"] > 0


def test_neighbours_and_bent_paths() -> None:
    """An isometric encoder preserves neighbours; a decoder onto a circle makes detours."""
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Gaussian(2, [2], Linear, scale=1.0, noise="fixed"),
        posteriors.Normal([2], 2, Linear),
    )
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    with torch.no_grad():
        vae.posterior.encoder.body[1].weight.copy_(torch.cat([turn, 0 * turn]))
        vae.posterior.encoder.bias[1] = -12.0
    x = torch.randn(200, 2)
    assert diagnostics.smoothness(vae, x).neighbours.mean() > 0.98

    class Circles(torch.nn.Module):
        bias = torch.zeros(2)

        def forward(self, z: Tensor) -> Tensor:
            return torch.stack([(3 * z[..., 0]).cos(), (3 * z[..., 0]).sin()], -1)

    vae.likelihood.decoder = Circles()
    result = diagnostics.smoothness(vae, x)
    assert result.detour is not None and result.turning is not None
    angle = 3 * (x @ turn.T)[:, 0]
    way = (angle[:100] - angle[-100:]).abs()
    # The path has 16 chords of angle a / 16 each, and the straight way is a chord of angle a.
    exact = 16 * (way / 32).sin().abs() / (way / 2).sin().abs()
    plain = (way / 2).sin().abs() > 0.2
    torch.testing.assert_close(result.detour[plain], exact[plain], rtol=0.05, atol=0.01)
    torch.testing.assert_close(result.turning[plain], (way / 16)[plain], rtol=0.05, atol=0.01)
