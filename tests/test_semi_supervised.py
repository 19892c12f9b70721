"""Model M2: its loss by hand, exact evidence with known and unknown classes, and few labels."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, TraceEnum_ELBO
from test_vae import PAIRS
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn.functional import cross_entropy

from pyro_vae import (
    InputError,
    bounds,
    data,
    likelihoods,
    networks,
    objectives,
    posteriors,
    priors,
    training,
)
from pyro_vae.semi_supervised import SemiSupervised, SemiSupervisedELBO, class_evidence

P_Y = [0.5, 0.2, 0.3]
ALL = torch.tensor([0, 1, 2, 2, 0, 1])
NONE = torch.full((6,), -1)
MIXED = torch.tensor([0, -1, 2, -1, -1, 1])
LABELS = pytest.mark.parametrize("y", [ALL, NONE, MIXED], ids=["all", "none", "mixed"])
small = partial(networks.MLP, widths=[5], activation="Tanh")


class Exact:
    """x = z w + v_y + b + noise, with one z: log p(x, y), p(y|x) and p(z|x, y) in closed form.

    The guide is exact, or else it is wrong in the logits of its classes and in its scale.
    """

    def __init__(self, sum_out: bool = True, misfit: bool = False) -> None:
        self.m2 = SemiSupervised(
            priors.StandardNormal(1),
            likelihoods.Gaussian(4, [4], networks.Linear, scale=0.7, noise="fixed"),
            posteriors.Normal([7], 1, networks.Linear),
            networks.Linear([4], [3]),
            P_Y,
            sum_out=sum_out,
        ).double()
        self.m2.eval()
        decoder: Any = self.m2.model.likelihood.decoder
        encoder: Any = self.m2.guide.posterior.encoder
        classifier: Any = self.m2.guide.classifier
        double = partial(torch.randn, dtype=torch.float64)
        w, v, b = double(4, 1), double(4, 3), double(4)
        precision = 1 + w.square().sum() / 0.49
        gain = w.T / 0.49 / precision
        covariance = w @ w.T + 0.49 * torch.eye(4)
        self.x = b + double(6, 4)
        normals = [MultivariateNormal(b + v[:, c], covariance) for c in range(3)]
        self.log_joint = torch.stack([n.log_prob(self.x) for n in normals], -1)
        self.log_joint += torch.tensor(P_Y).double().log()
        inverse = covariance.inverse()
        q_scale = precision.rsqrt() * (1.3 if misfit else 1)
        with torch.no_grad():
            decoder.body[1].weight.copy_(torch.cat([w, v], 1))
            decoder.bias.copy_(b)
            encoder.body[1].weight.zero_()[0] = torch.cat([gain, -gain @ v], 1)
            encoder.bias[0] = -gain @ b
            encoder.bias[1] = torch.log(torch.expm1(q_scale - 1e-5))
            means = (b[:, None] + v).T
            classifier.body[1].weight.copy_(means @ inverse)
            classifier.bias.copy_(torch.tensor(P_Y).log() - ((means @ inverse) * means).sum(1) / 2)
            if misfit:
                classifier.bias += torch.tensor([0.4, -0.3, 0.1])

    def evidence(self, y: Tensor) -> Tensor:
        """Log p(x, y) where y is known, and log p(x) elsewhere."""
        known = self.log_joint.gather(-1, y.clamp(min=0)[:, None])[:, 0]
        return torch.where(y >= 0, known, self.log_joint.logsumexp(-1))


def nonlinear(**options: Any) -> SemiSupervised:
    return SemiSupervised(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(5, [2, 3], small),
        posteriors.Normal([9], 2, small),
        small([2, 3], [3]),
        P_Y,
        **options,
    ).double()


@pytest.fixture
def x() -> Tensor:
    return (torch.rand(6, 2, 3) < 0.5).double()


def by_hand(m2: SemiSupervised, x: Tensor, y: Tensor, alpha: float, noise: Tensor) -> Tensor:
    """Equations 6 to 9, example by example; noise has the shape [classes, batch, 2]."""
    loss = torch.zeros(())
    for i, label in enumerate(y.tolist()):
        flat = x[i].flatten()
        log_q_y = m2.guide.classifier(x[i]).log_softmax(-1)
        joint = []  # -L(x, y), equation 6
        for c in range(3):
            one_hot = torch.eye(3, dtype=x.dtype)[c]
            q = m2.guide.posterior(torch.cat([flat, one_hot]))
            z = q.base_dist.loc + q.base_dist.scale * noise[c, i]
            logits = m2.model.likelihood.decoder(torch.cat([z, one_hot]))
            log_p_x = dist.Bernoulli(logits=logits).log_prob(x[i]).sum()
            log_p_z = dist.Normal(0, 1).log_prob(z).sum()
            log_p_y = torch.tensor(P_Y[c]).log()
            joint.append(log_p_x + log_p_y + log_p_z - q.log_prob(z))
        if label >= 0:
            loss = loss - joint[label] - alpha * log_q_y[label]  # equations 8 and 9
        else:
            loss = loss - (log_q_y.exp() * (torch.stack(joint) - log_q_y)).sum()  # equation 7
    return loss


def gradients(loss: Tensor, m2: SemiSupervised) -> dict[str, Tensor]:
    m2.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in m2.named_parameters() if p.grad is not None}


@LABELS
def test_the_loss_is_that_of_the_paper(x: Tensor, y: Tensor) -> None:
    m2, objective = nonlinear(), SemiSupervisedELBO(0.7)
    objective.loss(m2.model, m2.guide, x, y)
    torch.manual_seed(3)
    found = objective.differentiable_loss(m2.model, m2.guide, x, y)
    torch.manual_seed(3)
    noise = torch.normal(torch.zeros(3, 6, 2).double(), torch.ones(3, 6, 2).double())
    expected = by_hand(m2, x, y, 0.7, noise)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    ours, theirs = gradients(found, m2), gradients(expected, m2)
    assert ours.keys() == theirs.keys() == dict(m2.named_parameters()).keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-6, atol=1e-8)
    torch.manual_seed(3)  # the bound is without the classification loss
    bound = objective.loss(m2.model, m2.guide, x, y)
    assert bound == pytest.approx(by_hand(m2, x, y, 0.0, noise).item(), rel=1e-6)


def test_the_loss_without_the_sum_over_known_classes(x: Tensor) -> None:
    m2, objective = nonlinear(sum_out=False), SemiSupervisedELBO(0.7)
    objective.loss(m2.model, m2.guide, x, ALL)
    torch.manual_seed(3)
    _ = dist.Categorical(torch.eye(3)[ALL].double()).sample()  # what the site "y" draws
    noise = torch.normal(torch.zeros(6, 2).double(), torch.ones(6, 2).double()).expand(3, 6, 2)
    torch.manual_seed(3)
    found = objective.differentiable_loss(m2.model, m2.guide, x, ALL)
    expected = by_hand(m2, x, ALL, 0.7, noise)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    ours, theirs = gradients(found, m2), gradients(expected, m2)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-6, atol=1e-8)


@LABELS
def test_the_loss_is_pyros(x: Tensor, y: Tensor) -> None:
    m2 = nonlinear()
    for options in ({}, {"num_particles": 3, "vectorize_particles": True}):
        ours, theirs = (
            SemiSupervisedELBO(0.0, **options),
            TraceEnum_ELBO(max_plate_nesting=1, **options),
        )
        losses = []
        for objective in (ours, theirs):
            objective.loss(m2.model, m2.guide, x, y)
            torch.manual_seed(1)
            losses.append(objective.loss(m2.model, m2.guide, x, y))
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@LABELS
@pytest.mark.parametrize("sum_out", [True, False])
def test_an_exact_guide_has_no_noise(y: Tensor, sum_out: bool) -> None:
    """Every log-weight is log p(x, y) where y is known, and log p(x) where it is not."""
    exact = Exact(sum_out)
    log_w = bounds.log_weights(exact.m2.model, exact.m2.guide, (exact.x, y), 20)
    torch.testing.assert_close(log_w, exact.evidence(y).expand(20, 6), rtol=1e-5, atol=1e-4)
    loss = SemiSupervisedELBO(0.0).loss(exact.m2.model, exact.m2.guide, exact.x, y)
    assert loss == pytest.approx(-exact.evidence(y).sum().item(), abs=1e-4)


@LABELS
def test_bounds_of_a_wrong_guide(y: Tensor) -> None:
    exact = Exact(misfit=True)
    found = bounds.evaluate(exact.m2.model, exact.m2.guide, (exact.x, y), 3000)
    error = found.bound.values - exact.evidence(y)
    deviation = found.bound.limit.sqrt()
    assert (error.abs() < 4.5 * deviation + 1e-3).all() and (error.abs() < 0.06).all()
    # y is also integrated by the exact sum of the ELBO, which is below.
    elbo = -SemiSupervisedELBO(0.0, 500).loss(exact.m2.model, exact.m2.guide, exact.x, y)
    assert elbo < exact.evidence(y).sum() - 0.01
    assert elbo == pytest.approx(found.elbo.values.sum().item(), abs=0.3)


def test_classes_need_not_be_given() -> None:
    exact = Exact()
    log_w = bounds.log_weights(exact.m2.model, exact.m2.guide, exact.x, 5)
    torch.testing.assert_close(log_w, exact.evidence(NONE).expand(5, 6), rtol=1e-5, atol=1e-4)


@LABELS
def test_annealing_has_the_exact_evidence(y: Tensor) -> None:
    exact = Exact(misfit=True)
    settings = bounds.Settings(temperatures=50, chains=16)
    found = bounds.anneal(exact.m2.model, exact.m2.guide, (exact.x, y), settings)
    error = found.bound.values - exact.evidence(y)
    assert (error.abs() < 0.25).all()


@LABELS
def test_enumeration_of_discrete_codes(y: Tensor, x: Tensor) -> None:
    m2 = SemiSupervised(
        priors.Bernoulli(2),
        likelihoods.Bernoulli(5, [2, 3], small),
        posteriors.Bernoulli([9], 2, small),
        small([2, 3], [3]),
        P_Y,
    )
    m2.double().eval()
    with torch.no_grad():
        codes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 2)
        log_joint = torch.zeros(6, 3, 4).double()
        for c in range(3):
            for k, z in enumerate(codes):
                code = torch.cat([z, torch.eye(3).double()[c]])
                log_p = m2.model.likelihood(code).log_prob(x) + m2.model.prior().log_prob(z)
                log_joint[:, c, k] = log_p + math.log(P_Y[c])
    log_joint = log_joint.logsumexp(-1)
    known = log_joint.gather(-1, y.clamp(min=0)[:, None])[:, 0]
    exact = torch.where(y >= 0, known, log_joint.logsumexp(-1))
    torch.testing.assert_close(bounds.enumeration(m2.model, (x, y)), exact, rtol=1e-6, atol=1e-6)
    found = bounds.evaluate(m2.model, m2.guide, (x, y), 2000).bound.values
    torch.testing.assert_close(found, exact, rtol=0, atol=0.1)


def test_classes_by_bayes_rule() -> None:
    exact = Exact()
    found = class_evidence(exact.m2, exact.x, 50)
    torch.testing.assert_close(found.log_p_x_and_y, exact.log_joint, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.log_p_x, exact.evidence(NONE), rtol=1e-5, atol=1e-4)
    probabilities = exact.log_joint.softmax(-1)
    torch.testing.assert_close(found.probabilities, probabilities, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(exact.m2.classify(exact.x), probabilities, rtol=1e-4, atol=1e-4)
    assert found.khat.shape == found.mc_variance.shape == (6, 3)
    wrong = Exact(misfit=True)
    found = class_evidence(wrong.m2, wrong.x, 2000)
    error = found.log_p_x_and_y - wrong.log_joint
    known = found.mc_variance.isfinite()
    assert known.any() and (error.abs() < 5 * found.mc_variance.sqrt() + 1e-3)[known].all()


def test_classes_are_channels_of_pictures() -> None:
    """A convolutional posterior sees them as constant channels, all values at once or one."""
    m2 = SemiSupervised(
        priors.Mixture(2, 3),
        likelihoods.Bernoulli(5, [2, 8, 8], networks.ConvDecoder),
        posteriors.Normal([5, 8, 8], 2, networks.ConvEncoder),
        networks.ConvEncoder([2, 8, 8], [3]),
    )
    m2.eval()
    pictures = m2.model(y=torch.arange(3))
    assert pictures.shape == (3, 2, 8, 8) and m2.model(size=4).shape == (4, 2, 8, 8)
    inputs = m2.guide._with_class(pictures, torch.arange(3)[:, None], 3)
    assert inputs.shape == (3, 3, 5, 8, 8)
    for c in range(3):
        assert torch.equal(inputs[c, :, :2], pictures)
        assert torch.equal(inputs[c, :, 2:, 4, 5], torch.eye(3)[c].expand(3, 3))
    y = torch.tensor([0, -1, 2])
    found = bounds.evaluate(m2.model, m2.guide, (pictures, y), 500)
    loss = SemiSupervisedELBO(0.0, 200).loss(m2.model, m2.guide, pictures, y)
    assert loss == pytest.approx(-found.elbo.values.sum().item(), abs=0.5)


def test_drawn_examples_have_their_classes() -> None:
    exact = Exact()
    y = torch.tensor([0, 1, 2]).repeat(4000)
    drawn = exact.m2.model(y=y)
    decoder: Any = exact.m2.model.likelihood.decoder
    for c in range(3):
        mean = decoder.body[1].weight[:, 1 + c] + decoder.bias
        torch.testing.assert_close(drawn[y == c].mean(0), mean, rtol=0, atol=0.2)


@pytest.mark.parametrize("maker", [objectives.ELBO, objectives.TVO, objectives.RWS])
def test_other_objectives_draw_the_classes(
    maker: Callable[..., objectives.Objective], x: Tensor
) -> None:
    """Those that exist for sites that are not reparameterised."""
    m2 = nonlinear(sum_out=False)
    engine = training.EagerEngine(m2.model, m2.guide, maker(5), lr=1e-2)
    losses = [engine.step((x, MIXED)) for _ in range(100)]
    assert sum(losses[-10:]) < sum(losses[:10])


def test_pyros_own_loop(x: Tensor) -> None:
    m2 = nonlinear()
    svi = SVI(m2.model, m2.guide, pyro.optim.Adam({"lr": 1e-2}), SemiSupervisedELBO(2.0))
    losses = [svi.step(x, MIXED) for _ in range(100)]
    assert sum(losses[-10:]) < sum(losses[:10]) - 5
    known = m2.classify(x)[MIXED >= 0].gather(1, MIXED[MIXED >= 0][:, None])
    assert (known > 0.5).all()


# In training mode LARS has noise of its own: the check of enumerated sites may refuse it.
@pytest.mark.parametrize("name", sorted(PAIRS.keys() - {"Vamp", "Exemplar", "LARS"}))
def test_every_prior_of_codes_alone(name: str, x: Tensor) -> None:
    """All parameters learn, and both ways to integrate over the classes have the same ELBO."""
    make_prior, make_posterior = PAIRS[name]
    m2 = SemiSupervised(
        make_prior(4),
        likelihoods.Bernoulli(7, [2, 3], small),
        make_posterior([9], 4),
        small([2, 3], [3]),
    )
    x = x.float()
    SemiSupervisedELBO(1.0).loss_and_grads(m2.model, m2.guide, x, MIXED)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in m2.parameters())
    m2.eval()
    drawn = bounds.evaluate(m2.model, m2.guide, (x, MIXED), 400).elbo.mean
    summed = -SemiSupervisedELBO(0.0, 400).loss(m2.model, m2.guide, x, MIXED) / 6
    assert drawn == pytest.approx(summed, rel=0.05)


@pytest.mark.usefixtures("traced")
def test_the_compiled_engine_takes_steps_without_the_sum(x: Tensor) -> None:
    losses = []
    for make in (training.EagerEngine, training.CompiledEngine):
        torch.manual_seed(0)
        m2 = nonlinear(sum_out=False)
        engine = make(m2.model, m2.guide, SemiSupervisedELBO(1.0))
        losses.append([engine.step((x, ALL)) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    m2 = nonlinear()
    with pytest.raises(InputError, match="use the eager engine"):
        training.CompiledEngine(m2.model, m2.guide, SemiSupervisedELBO(1.0)).step((x, ALL))


def test_what_would_be_wrong_is_refused() -> None:
    exact = Exact()
    with pytest.raises(InputError, match="site 'label' observes something else"):
        bounds.bidirectional(exact.m2.model, exact.m2.guide, (exact.x, MIXED))
    m2 = SemiSupervised(
        priors.StandardNormal(2),
        likelihoods.Gaussian(5, [4], small, noise="optimal"),  # its scale is that of all classes
        posteriors.Normal([7], 2, small),
        small([4], [3]),
    )
    with pytest.raises(InputError, match="all values of the sites"):
        SemiSupervisedELBO(1.0).loss_and_grads(m2.model, m2.guide, exact.x.float(), MIXED)


def test_what_does_not_go_together_is_refused(x: Tensor) -> None:
    def make(
        code: int = 5, shape: int = 9, classes: Any = (3,), prior: Any = None, p: Any = None
    ) -> SemiSupervised:
        return SemiSupervised(
            prior or priors.StandardNormal(2),
            likelihoods.Bernoulli(code, [2, 3], small),
            posteriors.Normal([shape], 2, small),
            small([2, 3], classes),
            p,
        )

    with pytest.raises(InputError, match="make it for latent_dim"):
        make(code=2)
    with pytest.raises(InputError, match=r"features and classes together, \[9\] or \[4, 2, 3\]"):
        make(shape=6)
    with pytest.raises(InputError, match="from the shape of the features"):
        make(classes=(3, 1))
    with pytest.raises(InputError, match="posteriors of x alone"):
        make(prior=priors.Vamp(2))
    for p in ([0.5, 0.5], [0.5, 0.5, 0.0], [1.0, 1.0, 1.0]):
        with pytest.raises(InputError, match="3 positive numbers"):
            make(p=p)
    m2 = make().double()
    for y in (MIXED.double(), MIXED[:3], MIXED[:, None]):
        with pytest.raises(InputError, match="whole numbers, one for each of 6"):
            m2.guide(x, y)
    with pytest.raises(InputError, match="the class 3, and there are 3"):
        m2.model(x, MIXED + 1)
    with pytest.raises(InputError, match="alpha has to be between"):
        SemiSupervisedELBO(-1.0)
    with pytest.raises(InputError, match="use ELBO for other guides"):
        SemiSupervisedELBO(1.0).differentiable_loss(m2.model, lambda x: None, x)


def digits_classifier(x: Tensor, y: Tensor, network: nn.Module) -> nn.Module:
    adam = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(500):
        adam.zero_grad()
        cross_entropy(network(x), y).backward()
        adam.step()
    return network


def test_unlabelled_digits_help_a_classifier() -> None:
    """50 labels: the errors of M2 are fewer than those of its own network on the labels alone."""
    digits = data.load("digits")
    train, labels = torch.as_tensor(digits.train), digits.train_labels
    assert labels is not None
    assert digits.validation_labels is not None and digits.test_labels is not None
    net = partial(networks.MLP, widths=[100], activation="ReLU")
    m2 = SemiSupervised(
        priors.StandardNormal(10),
        likelihoods.Bernoulli(20, digits.kind, net),
        posteriors.Normal([74], 10, net),
        net([8, 8], [10]),
    )
    kind = m2.guide.kind
    m2.initialize(kind.stored_features(train))
    labelled = torch.cat([(labels == c).nonzero()[:5, 0] for c in range(10)])

    def observe(index: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.cat([torch.full((len(index),), -1), labels[labelled]])
        return kind.observe(train[torch.cat([index, labelled])]), y

    engine = training.EagerEngine(m2.model, m2.guide, SemiSupervisedELBO(1.0), lr=3e-3)
    index = torch.arange(len(train))
    training.fit(engine, index, observe, epochs=20, batch_size=100, progress=False)
    m2.eval()
    alone = digits_classifier(
        kind.stored_features(train[labelled]), labels[labelled], net([8, 8], [10])
    )
    held_out = kind.stored_features(torch.cat([digits.validation, digits.test]))
    truth = torch.cat([digits.validation_labels, digits.test_labels])
    accuracy, of_alone = (
        (scores.argmax(-1) == truth).double().mean().item()
        for scores in (m2.classify(held_out), alone(held_out))
    )
    assert accuracy > of_alone + 0.01, (accuracy, of_alone)
