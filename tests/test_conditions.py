"""VAEs with conditions: p(x | z, y) and p(z | y), against closed forms."""

import copy
import math
from functools import lru_cache, partial
from typing import Any

import pyro
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_vae import (
    VAE,
    bounds,
    diagnostics,
    figures,
    kinds,
    likelihoods,
    networks,
    objectives,
    posteriors,
    prediction,
    priors,
)
from pyro_vae.errors import InputError
from pyro_vae.training import CompiledEngine, EagerEngine

LABEL = kinds.Categories([1], ["label"], [["cat", "dog", "fox"]])
NAMES = [*"abcd"]
SHORT = bounds.Settings(temperatures=60)


def labelled(count: int = 60, share: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return correlated rows whose mean depends on their label; the first has no value."""
    torch.manual_seed(0)
    y = torch.arange(count)[:, None] % 3
    loadings = torch.randn(2, 4) * torch.tensor([1, 1, 5.0, 0.1])
    noise = torch.randn(count, 4) * torch.tensor([0.5, 0.3, 2, 0.05])
    means = torch.tensor([0, -2, 30.0, 0]) + y * torch.tensor([0.5, -0.5, 3.0, 0.1])
    x = torch.randn(count, 2) @ loadings + noise + means
    if share:
        holes = torch.rand(x.shape) < share
        holes[0], holes[1] = True, False
        x[holes] = torch.nan
    return x, y


def linear(prior: str, share: float = 0.0, steps: int = 600) -> tuple[VAE, Tensor]:
    """Return a linear Gaussian VAE with a label as its condition, and the examples it has seen."""
    vae, packed = copy.deepcopy(linear_once(prior, share, steps))
    torch.manual_seed(2)  # the same noise, whether it was trained before or not
    return vae, packed


@lru_cache
def linear_once(prior: str, share: float, steps: int) -> tuple[VAE, Tensor]:
    x, y = labelled(share=share)
    torch.manual_seed(1)
    pyro.clear_param_store()
    whole: Any = likelihoods.Gaussian(2 + 3, kinds.Real([4], NAMES), networks.Linear)
    likelihood = likelihoods.Given(likelihoods.ObservedEntries(whole) if share else whole, LABEL)
    packed = likelihood.kind.packed(x, y)
    likelihood.kind.check(packed)
    likelihood.fit_kind(packed)
    vae = VAE(
        getattr(priors, prior)(2, **({"network": networks.Linear} if "Cond" in prior else {})),
        likelihood,
        posteriors.FullNormal(likelihood.kind.feature_shape, 2, networks.Linear),
    )
    vae.initialize(likelihood.kind.stored_features(packed))
    svi = pyro.infer.SVI(
        vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), pyro.infer.Trace_ELBO()
    )
    for _ in range(steps):
        svi.step(packed)
    return vae.eval(), packed


def log_p(vae: VAE, x: Tensor, y: int) -> Tensor:
    """Return log p(x_observed | y) of rows, in closed form, `float64`, shape [N]."""
    likelihood: Any = vae.likelihood
    gaussian = getattr(likelihood.whole, "whole", likelihood.whole)
    (weight,) = [p for p in gaussian.decoder.parameters() if p.dim() == 2]
    one_hot = torch.eye(3)[y]
    example = likelihood.kind.packed(torch.zeros(4), torch.tensor([float(y)]))
    p_z = vae.prior.under(example, likelihood.kind)()
    with torch.no_grad():
        loc = weight @ torch.cat([p_z.mean, one_hot]) + gaussian.decoder.bias
        loadings = gaussian.kind.scale.unsqueeze(1) * weight[:, :2] * p_z.stddev
        mean, scale = gaussian.kind.in_units(loc, gaussian.log_scale.exp())
        mean, loadings, scale = mean.double(), loadings.double(), scale.double()
    covariance = loadings @ loadings.T + scale.square().diag()
    found = []
    for row in x.double():
        there = ~row.isnan()
        exact = torch.zeros((), dtype=torch.float64)
        if there.any():
            own = MultivariateNormal(mean[there], covariance[there][:, there])
            exact = own.log_prob(row[there])
        found.append(exact)
    return torch.stack(found)


def exact_of(vae: VAE, packed: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p(x | y) for all y, shape [N, 3], and the own labels."""
    kind: Any = vae.likelihood.kind
    x, y = kind.parted(packed)
    return torch.stack([log_p(vae, x, label) for label in range(3)], 1), y.long()


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("prior", ["StandardNormal", "ConditionalNormal"])
def test_bounds_of_a_linear_model_are_exact(prior: str, share: float) -> None:
    vae, packed = linear(prior, share)
    all_classes, own = exact_of(vae, packed)
    exact = all_classes.gather(1, own)[:, 0]
    assert (all_classes.std(1) > 0.05).any()  # the condition matters
    if share:
        assert exact[0] == 0
    found = bounds.evaluate(vae.model, vae.guide, packed, num_samples=5000, seed=0)
    below = (found.bound.values - exact).mean().item()
    error = math.hypot(found.bound.mc_se, 1e-3)
    assert -5 * error < below < 4 * error
    annealed = bounds.anneal(vae.model, vae.guide, packed[:20], SHORT, seed=0)
    for bound in (annealed.lower, annealed.upper):
        difference = (bound.values - exact[:20]).mean().item()
        assert abs(difference) < 4 * math.hypot(bound.mc_se, 1e-3)
    found_exact = bounds.gaussian(vae.double().model, packed.double())
    torch.testing.assert_close(found_exact, exact, rtol=1e-5, atol=1e-5)


def test_annealing_from_the_prior_and_on_simulated_data() -> None:
    vae, packed = linear("ConditionalNormal")
    all_classes, own = exact_of(vae, packed[:20])
    settings = bounds.Settings(start="prior")
    annealed = bounds.anneal(vae.model, vae.guide, packed[:20], settings, seed=0)
    difference = (annealed.lower.values - all_classes.gather(1, own)[:, 0]).mean().item()
    assert abs(difference) < 4 * math.hypot(annealed.lower.mc_se, 2e-3)
    both_ways = bounds.bidirectional(vae.model, vae.guide, packed[:20], SHORT, seed=0)
    assert abs(both_ways.gap.mean) < 4 * math.hypot(both_ways.gap.se, 1e-3)


@pytest.mark.parametrize("prior", ["StandardNormal", "ConditionalNormal"])
def test_classes_by_bayes_rule_are_exact(prior: str) -> None:
    vae, packed = linear(prior)
    frequencies = torch.tensor([0.5, 0.3, 0.2])
    found = prediction.classify(vae, packed, frequencies, 5000)
    likely, own = exact_of(vae, packed)
    exact = (likely + frequencies.double().log()).softmax(1)
    error = (found.probabilities - exact) / (found.mc_se + 1e-3)
    assert error.abs().max() < 5
    assert not found.is_unknown.any()
    assert found.mc_se.max() > 1e-4
    sure = ~found.is_unsure
    assert (found.predicted == exact.argmax(1))[sure].all() and sure.float().mean() > 0.8
    right = (found.predicted == own[:, 0]).double()
    assert found.accuracy == pytest.approx((right.mean().item(), right.std().item() / 60**0.5))
    assert found.accuracy[0] > 0.45  # a third by chance
    assert found.names == ("cat", "dog", "fox")
    assert f"{100 * found.accuracy[0]:.2f} % of 60 examples" in str(found)
    assert set(found.to_dict()) == {"num_examples", "accuracy", "log_loss", "unsure", "unknown"}


def test_rows_with_holes_are_classified_by_what_is_there() -> None:
    vae, packed = linear("StandardNormal", 0.4)
    frequencies = torch.tensor([0.5, 0.3, 0.2])
    found = prediction.classify(vae, packed, frequencies, 3000)
    exact = (exact_of(vae, packed)[0] + frequencies.double().log()).softmax(1)
    known = ~found.is_unknown
    error = (found.probabilities - exact) / (found.mc_se + 1e-3)
    assert known.float().mean() > 0.8 and error[known].abs().max() < 5
    assert (exact[0] - frequencies).abs().max() < 1e-6  # nothing is observed
    assert (found.probabilities[0] - frequencies).abs().max() < 0.05


def test_classes_that_do_not_occur_have_no_probability() -> None:
    vae, packed = linear("StandardNormal", steps=0)
    found = prediction.classify(vae, packed[:9], torch.tensor([0.5, 0.5, 0]), 200)
    assert (found.probabilities[:, 2] == 0).all()
    assert found.probabilities.isfinite().all() and not found.mc_se[~found.is_unknown].isnan().any()


def test_errors_of_classes_are_those_of_reruns() -> None:
    vae, packed = linear("StandardNormal")
    uniform = torch.full((3,), 1 / 3)
    runs = [prediction.classify(vae, packed[:10], uniform, 200, seed=seed) for seed in range(60)]
    spread = torch.stack([run.probabilities for run in runs]).std(0)
    stated = torch.stack([run.mc_se for run in runs]).square().nanmean(0).sqrt()
    ratio = (stated / spread)[spread > 1e-3]
    assert len(ratio) > 5 and 0.8 < ratio.median() < 1.25


def test_decisions_within_the_error_are_counted() -> None:
    log_joint = torch.tensor([[0.0, -0.1, -9], [0, -3, -9], [0, -0.1, -9], [0, -0.1, -9]])
    variance = torch.full((4, 3), 0.01)
    variance[2, 1] = torch.nan
    variance[3] = 1e-6
    found = prediction.Classification(
        ("a", "b", "c"), log_joint, variance, torch.tensor([0, 1, 0, 0])
    )
    assert found.is_unsure.tolist() == [True, False, False, False]
    assert found.is_unknown.tolist() == [False, False, True, False]
    assert found.mc_se[2].isnan().all()
    assert found.accuracy[0] == 0.75
    assert found.to_dict()["unsure"] == found.to_dict()["unknown"] == 1


def test_class_frequencies() -> None:
    shares = prediction.class_frequencies(torch.tensor([[0.0], [2], [2], [0], [2]]), 4)
    assert shares.tolist() == pytest.approx([0.4, 0, 0.6, 0])


def test_what_is_no_class_is_refused() -> None:
    vae, packed = linear("StandardNormal", steps=0)
    for wrong in (torch.ones(3), torch.ones(2) / 2, torch.tensor([1.5, -0.5, 0])):
        with pytest.raises(InputError, match="3 probabilities"):
            prediction.classify(vae, packed, wrong)
    other = VAE(priors.StandardNormal(2), likelihoods.Gaussian(2, [4]), posteriors.Normal([4], 2))
    with pytest.raises(InputError, match="one column of categories"):
        prediction.classify(other, torch.rand(3, 4), torch.ones(3) / 3)


def test_discrete_codes_can_be_enumerated() -> None:
    """Log p(x | y) is a sum over all codes."""
    torch.manual_seed(2)
    likelihood = likelihoods.Given(likelihoods.Bernoulli(2 + 3, [3, 2], networks.Linear), LABEL)
    vae = VAE(
        priors.Bernoulli(2),
        likelihood,
        posteriors.Bernoulli(likelihood.kind.feature_shape, 2, networks.Linear),
    ).eval()
    x = (torch.rand(9, 3, 2) < 0.5).float()
    y = torch.arange(9)[:, None] % 3
    packed = likelihood.kind.packed(x, y)
    codes = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    with torch.no_grad():
        vae.prior.logits.copy_(torch.tensor([0.3, -1.0]))
        joint = []
        for code in codes:
            inputs = torch.cat([code.expand(9, 2), torch.eye(3)[y[:, 0]]], 1)
            given_z = likelihood.whole(inputs).log_prob(x)
            joint.append(given_z + vae.prior().log_prob(code))
        exact = torch.stack(joint).logsumexp(0)
    found = bounds.enumeration(vae.model, packed)
    torch.testing.assert_close(found.float(), exact, rtol=1e-5, atol=1e-5)
    estimated = bounds.evaluate(vae.model, vae.guide, packed, num_samples=5000, seed=0).bound
    assert ((estimated.values - exact).abs() < 0.05).all()


def picture_vae(
    prior: Any = priors.StandardNormal, *shape: int, given: kinds.Kind = LABEL, **options: Any
) -> tuple[VAE, Tensor]:
    torch.manual_seed(0)
    shape = shape or (8, 6)
    stored = torch.randint(0, 256, (12, *shape), dtype=torch.uint8)
    size = 2 + given.feature_shape[0]
    likelihood = likelihoods.Given(likelihoods.Bernoulli(size, kinds.Binary(shape)), given)
    posterior = posteriors.Normal(likelihood.kind.feature_shape, 2, **options)
    vae = VAE(prior(2), likelihood, posterior)
    packed = likelihood.kind.packed(stored, torch.arange(12)[:, None] % 3)
    vae.initialize(likelihood.kind.stored_features(packed))
    return vae, likelihood.kind.observe_once(packed, 0)


@pytest.mark.parametrize("shape", [(8, 6), (3, 8, 6), (7,)])
@pytest.mark.parametrize("prior", [priors.StandardNormal, priors.ConditionalNormal])
def test_figures_of_pictures(prior: Any, shape: tuple[int, ...]) -> None:
    vae, x = picture_vae(prior, *shape)
    vae.eval()
    for draw in (
        lambda ax: figures.samples(ax, vae, count=20, like=x),
        lambda ax: figures.reconstructions(ax, vae, x),
        lambda ax: figures.interpolation(ax, vae, x[:3], x[3:6], steps=4),
        lambda ax: figures.manifold(ax, vae, side=4, like=x[0]),
        lambda ax: figures.traversals(ax, vae, x, steps=5),
    ):
        figure = Figure(layout="constrained")
        draw(figure.subplots())
        figure.canvas.draw()


def test_pictures_have_the_conditions_that_they_should() -> None:
    """A decoder that shows y and nothing else."""
    vae, x = picture_vae(priors.StandardNormal, 1, 1)
    likelihood: Any = vae.eval().likelihood
    decoded = torch.tensor([0.1, 0.5, 0.9])
    likelihood.whole.picture = lambda code: (code[..., 2:] @ decoded)[..., None, None]

    def shown(draw: Any) -> list[float]:
        ax = Figure().subplots()
        draw(ax)
        picture = ax.images[0].get_array().filled(math.nan)[::2, ::2]
        return [round(value, 6) for value in picture.flatten().tolist()]

    labels = [0.1, 0.5, 0.9] * 4
    drawn = shown(lambda ax: figures.reconstructions(ax, vae, x))
    assert drawn[12:] == pytest.approx(labels)
    drawn = shown(lambda ax: figures.samples(ax, vae, count=16, like=x[1:3]))
    assert drawn == pytest.approx([0.5, 0.9] * 8)
    drawn = shown(lambda ax: figures.interpolation(ax, vae, x[:3], x[5:8], steps=2))
    assert drawn == pytest.approx([0.1, 0.1, 0.5, 0.5, 0.9, 0.9])
    drawn = shown(lambda ax: figures.manifold(ax, vae, side=2, like=x[2]))
    assert drawn == pytest.approx([0.9] * 4)
    drawn = shown(lambda ax: figures.traversals(ax, vae, x[1:], steps=3))
    assert set(drawn) == {0.5}


def test_figures_and_smoothness_of_tables() -> None:
    vae, packed = linear("StandardNormal", steps=0)
    ax = Figure().subplots()
    figures.reconstructed_rows(ax, vae, packed[:5])
    (table,) = ax.tables
    text = [[table[row, column].get_text().get_text() for column in range(5)] for row in range(11)]
    assert text[0] == [*NAMES, "label"]
    assert [row[4] for row in text[1::2]] == ["cat", "dog", "fox", "cat", "dog"]
    assert [row[4] for row in text[2::2]] == ["cat", "dog", "fox", "cat", "dog"]
    found = diagnostics.smoothness(vae, packed)
    assert found.detour is not None and found.detour.isfinite().all()


def steps_of(engine: Any, prior: Any, objective: Any, encoder: Any) -> list[float]:
    pyro.clear_param_store()
    vae, x = picture_vae(prior, 8, 6, encoder=encoder)
    steps = engine(vae.model, vae.guide, objective(), 1e-2)
    torch.manual_seed(0)
    losses = [steps.step(x, lambda batch: batch) for _ in range(3)]
    assert all(map(math.isfinite, losses))
    assert all(parameter.isfinite().all() for parameter in vae.parameters())
    return losses


@pytest.mark.parametrize(
    ("prior", "objective"),
    [
        (priors.StandardNormal, objectives.ELBO),
        (priors.ConditionalNormal, objectives.AnalyticELBO),
        (priors.ConditionalNormal, objectives.RWS),
        (partial(priors.Exemplar, components=5), objectives.ELBO),
        (partial(priors.Vamp, components=5), objectives.IWAE),
    ],
)
def test_parts_train_with_conditions_as_channels(prior: Any, objective: Any) -> None:
    steps_of(EagerEngine, prior, objective, networks.ConvEncoder)


@pytest.mark.parametrize("make", [posteriors.Hierarchical, posteriors.Ladder, posteriors.BottomUp])
@pytest.mark.parametrize("top_dim", [2, [3, 2]])
def test_the_upper_layer_of_a_prior_may_have_conditions(make: Any, top_dim: Any) -> None:
    torch.manual_seed(0)
    likelihood = likelihoods.Given(likelihoods.Bernoulli(2 + 3, [3, 2], networks.Linear), LABEL)
    prior = priors.Hierarchical(2, partial(priors.ConditionalNormal, network=networks.Linear))
    posterior = make(likelihood.kind.feature_shape, 2, top_dim=top_dim)
    vae = VAE(prior, likelihood, posterior)
    y = torch.arange(9)[:, None] % 3
    x = likelihood.kind.packed((torch.rand(9, 3, 2) < 0.5).float(), y)
    engine = EagerEngine(vae.model, vae.guide, objectives.ELBO(), 1e-2)
    before = {name: each.clone() for name, each in prior.named_parameters()}
    assert all(math.isfinite(engine.step(x, lambda batch: batch)) for _ in range(2))
    assert all((each != before[name]).any() for name, each in prior.named_parameters())
    vae.eval()
    trace = pyro.poutine.trace(vae.model).get_trace(size=9, y=y.float())
    upper = trace.nodes["z_top" if top_dim == 2 else "z_top2"]["fn"].mean
    assert upper[0].equal(upper[3]) and not upper[0].equal(upper[1])
    assert bounds.evaluate(vae.model, vae.guide, x, 50).bound.values.isfinite().all()
    with pytest.raises(InputError, match="needs conditions"):
        vae.draw_codes(3)


@pytest.mark.usefixtures("traced")
def test_engines_agree() -> None:
    parts = priors.ConditionalNormal, objectives.ELBO, networks.Linear
    losses = [steps_of(engine, *parts) for engine in (EagerEngine, CompiledEngine)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_an_exemplar_is_left_out_under_its_own_conditions_alone() -> None:
    vae, x = picture_vae(partial(priors.Exemplar, components=12), 8, 6)
    kind: Any = vae.likelihood.kind
    prior: Any = vae.prior
    own = kind.could_show(x, prior.exemplars)
    assert own.any(1).all()  # each of the 12 is an exemplar
    pictures, y = kind.parted(x)
    labels = kind.parted_features(prior.exemplars)[1].argmax(1)
    assert (own <= (y == labels)).all()
    assert not (kind.could_show(kind.packed(pictures, (y + 1) % 3), prior.exemplars) & own).any()


def test_examples_are_drawn_under_given_conditions() -> None:
    vae, packed = linear("ConditionalNormal")
    kind: Any = vae.likelihood.kind
    y = torch.full((4000, 1), 2.0)
    with torch.no_grad():
        drawn, conditions = kind.parted(vae.model(size=4000, y=y))
    assert conditions.equal(y)
    expected = kind.parted(packed)[0][packed[:, 4] == 2].mean(0)
    assert ((drawn.mean(0) - expected).abs() < 0.6 * drawn.std(0)).all()
    exact = log_p(vae, drawn[:300], 2)
    shuffled = torch.stack([log_p(vae, drawn[:300], other) for other in (0, 1)])
    assert (exact > shuffled).float().mean() > 0.5
    for wrong in (None, y[:5], y.flatten()):
        with pytest.raises(InputError, match=r"needs their conditions y, of shape \[4000, 1\]"):
            vae.model(size=4000, y=wrong)
    for impossible in (3.0, 0.5, -1.0, math.nan):
        with pytest.raises(InputError, match="not codes of categories"):
            vae.model(size=1, y=torch.full((1, 1), impossible))
    with pytest.raises(InputError, match="needs conditions"):
        vae.draw_codes(5)
    with pytest.raises(InputError, match="needs conditions"):
        vae.likelihood.picture(torch.zeros(3, 2))
    assert vae.draw_codes(5, packed[:5]).shape == (5, 2)
    plain = VAE(priors.StandardNormal(2), likelihoods.Gaussian(2, [4]), posteriors.Normal([4], 2))
    with pytest.raises(InputError, match="has no conditions"):
        plain.model(size=5, y=torch.zeros(5, 1))
    with pytest.raises(InputError, match="these data have no conditions"):
        VAE(priors.ConditionalNormal(2), plain.likelihood, plain.posterior)


def test_missing_values_are_imputed_under_the_conditions() -> None:
    vae, packed = linear("StandardNormal", 0.4)
    found = prediction.impute(vae, packed, 500, draws=2)
    assert found.values.shape == packed.shape and found.values.isfinite().all()
    there = ~packed.isnan()
    assert found.values[there].float().equal(packed[there])
    # The first row has no value: its mean is that of x given its label.
    with torch.no_grad():
        drawn = vae.model(size=4000, y=packed[:1, 4:].expand(4000, 1))[:, :4]
    error = drawn.std(0) / 30
    assert ((found.means[0, :4] - drawn.mean(0)).abs() < 5 * error).all()


def test_the_code_is_diagnosed() -> None:
    vae, packed = linear("StandardNormal")
    diagnosis = diagnostics.diagnose(vae.model, vae.guide, packed)
    assert diagnosis.information.marginal_kl.isfinite().all()
    assert "KL(q(z) || p(z))" in str(diagnosis)


def test_no_marginal_kl_is_stated_under_a_conditional_prior() -> None:
    vae, packed = linear("ConditionalNormal")
    in_order = packed[packed[:, 4].argsort()]  # parts with one label alone
    diagnosis = diagnostics.diagnose(vae.model, vae.guide, in_order)
    information = diagnosis.information
    assert information.marginal_kl.isnan().all() and information.rate.isfinite().all()
    assert "the KL from q(z|x) to p(z|y) is" in str(diagnosis)
    assert diagnosis.to_dict()["marginal_kl"] == {"mean": None, "se": None}
    one_label = packed[packed[:, 4] == 1]  # p(z | y) is then one distribution
    assert diagnostics.measure(vae.model, vae.guide, one_label).marginal_kl.isfinite().all()
