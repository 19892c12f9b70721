"""One contract for every likelihood, and what is particular to each."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_vae import InputError, observations
from pyro_vae.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Likelihood

CASES: dict[str, Callable[..., Likelihood]] = {
    "Bernoulli": Bernoulli,
    "ContinuousBernoulli": ContinuousBernoulli,
    "Gaussian": Gaussian,
}
every_likelihood = pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())


def test_every_likelihood_is_under_contract() -> None:
    subclasses = {cls.__name__ for cls in Likelihood.__subclasses__() if "likeli" in cls.__module__}
    assert subclasses == set(CASES)


@every_likelihood
def test_contract(make: Callable[..., Likelihood]) -> None:
    likelihood = make(2, [4, 3])
    images = torch.randint(256, (50, 4, 3), dtype=torch.uint8)
    likelihood.initialize(observations.intensities(images))
    x = observations.observe(images, likelihood.support)
    p = likelihood(torch.randn(7, 50, 2))
    assert p.batch_shape == (7, 50) and p.event_shape == (4, 3)
    assert p.log_prob(x).shape == (7, 50) and p.log_prob(x).isfinite().all()
    assert p.mean.shape == (7, 50, 4, 3)
    p.log_prob(x).sum().backward()
    for name, parameter in likelihood.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    other = make(2, [4, 3])
    other.load_state_dict(likelihood.state_dict())
    z = torch.randn(50, 2)
    torch.testing.assert_close(other(z).log_prob(x), likelihood(z).log_prob(x))


@every_likelihood
def test_one_pixel_sums_or_integrates_to_one_and_samples_follow(
    make: Callable[..., Likelihood],
) -> None:
    likelihood = make(1, [1])
    with torch.no_grad():
        for z in torch.linspace(-3, 3, 7)[:, None]:
            p = likelihood(8 * z)
            if likelihood.support == "binary":
                x, weight = torch.tensor([[0.0], [1.0]]), torch.ones(2)
            elif isinstance(likelihood, Gaussian):  # a density on the line, not cut at 0 and 1
                x = torch.linspace(-6, 6, 20_001)[:, None]
                weight = torch.full((len(x),), 12 / 20_000)
            else:
                x = (torch.arange(20_000)[:, None] + 0.5) / 20_000
                weight = torch.full((len(x),), 1 / 20_000)
            mass = p.log_prob(x).exp() * weight
            assert abs(mass.sum() - 1) < 1e-4
            mean = (mass * x[:, 0]).sum()
            variance = (mass * (x[:, 0] - mean) ** 2).sum()
            drawn = p.sample((20_000,)).mean()
            assert abs(drawn - mean) < 4.5 * (variance / 20_000).sqrt() + 1e-6
            torch.testing.assert_close(p.mean[0], mean, atol=1e-4, rtol=0)


@every_likelihood
def test_starts_at_the_mean_of_the_data(make: Callable[..., Likelihood]) -> None:
    images = torch.rand(200, 4, 3) * torch.linspace(0.2, 1, 12).reshape(4, 3)
    likelihood = make(2, [4, 3])
    likelihood.initialize(images)
    for parameter in likelihood.decoder.body.parameters():
        parameter.data.zero_()
    mean = likelihood(torch.zeros(2)).mean
    torch.testing.assert_close(mean, images.mean(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", [0.0, 1e-5, 0.5, 1 - 1e-5, 1.0])
@every_likelihood
def test_constant_pixels_start_finite(make: Callable[..., Likelihood], level: float) -> None:
    likelihood = make(2, [3])
    likelihood.initialize(torch.full((10, 3), level))
    x = (
        torch.full((1, 3), float(round(level)))
        if likelihood.support == "binary"
        else torch.rand(1, 3)
    )
    log_p = likelihood(torch.randn(1, 2)).log_prob(x)
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert all(p.grad.isfinite().all() for p in likelihood.parameters() if p.grad is not None)


def test_bernoulli_is_the_cross_entropy() -> None:
    likelihood = Bernoulli(2, [4, 3])
    z, x = torch.randn(5, 2), (torch.rand(5, 4, 3) < 0.3).float()
    entropy = binary_cross_entropy_with_logits(likelihood.decoder(z), x, reduction="none")
    torch.testing.assert_close(-likelihood(z).log_prob(x), entropy.sum((1, 2)))


def test_gaussian_of_fixed_scale_is_the_squared_error_up_to_a_constant() -> None:
    """-log p(x|z) = |x - m(z)|^2 / (2 s^2) + D log(s sqrt(2 pi))."""
    scale = 0.3
    likelihood = Gaussian(2, [4, 3], scale=scale, learn_scale=False)
    likelihood.initialize(torch.rand(10, 4, 3))
    assert likelihood.log_scale.exp().item() == pytest.approx(scale)
    z, x = torch.randn(5, 2), torch.rand(5, 4, 3)
    squared_error = (x - likelihood.decoder(z)).square().sum((1, 2))
    constant = 12 * math.log(scale * math.sqrt(2 * math.pi))
    loss = squared_error / (2 * scale**2) + constant
    torch.testing.assert_close(-likelihood(z).log_prob(x), loss)


def test_continuous_bernoulli_has_its_constant() -> None:
    """C(l) = 2 artanh(1 - 2 l) / (1 - 2 l), which the cross-entropy alone leaves out."""
    likelihood = ContinuousBernoulli(1, [1])
    z, x = torch.tensor([[3.0]]), torch.tensor([[0.2]])
    logit = likelihood.decoder(z)
    mean = torch.sigmoid(logit)
    constant = 2 * torch.atanh(1 - 2 * mean) / (1 - 2 * mean)
    expected = constant.log() - binary_cross_entropy_with_logits(logit, x)
    torch.testing.assert_close(likelihood(z).log_prob(x), expected[0])


def test_learned_scale_starts_at_the_deviation() -> None:
    images = 0.5 + 0.2 * torch.randn(20_000, 6)
    likelihood = Gaussian(2, [6])
    likelihood.initialize(images)
    assert likelihood.log_scale.exp().item() == pytest.approx(0.2, abs=0.002)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_scales_that_are_none(scale: float) -> None:
    with pytest.raises(InputError, match="has to be in"):
        Gaussian(2, [6], scale=scale)
