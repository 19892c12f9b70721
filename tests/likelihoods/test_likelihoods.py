"""One contract for every likelihood, and what is particular to each."""

import math
from collections.abc import Callable
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_vae import InputError, likelihoods
from pyro_vae.kinds import Binary, Levels, UnitInterval
from pyro_vae.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Likelihood
from pyro_vae.networks import ConvDecoder, Linear

CASES: dict[str, Callable[..., Likelihood]] = {
    "Bernoulli": Bernoulli,
    "Binomial": likelihoods.Binomial,
    "ContinuousBernoulli": ContinuousBernoulli,
    "Gaussian": Gaussian,
    "Gaussian, fixed": partial(Gaussian, noise="fixed"),
    "Gaussian, per pixel": partial(Gaussian, noise="per_pixel"),
    "Gaussian, optimal": partial(Gaussian, noise="optimal"),
    "Laplace": likelihoods.Laplace,
    "StudentT": likelihoods.StudentT,
    "Beta": likelihoods.Beta,
    "LogitNormal": likelihoods.LogitNormal,
    "DiscretizedLogistic": likelihoods.DiscretizedLogistic,
    "DiscretizedLogistic, mixed": partial(likelihoods.DiscretizedLogistic, components=3),
    "Categorical": likelihoods.Categorical,
    "PixelCNN": partial(likelihoods.PixelCNN, layers=2, kernel_size=3),
    "LocalPixels": partial(likelihoods.LocalPixels, features=2, reach=1),
    "PixelCNNLevels": partial(likelihoods.PixelCNNLevels, layers=2, kernel_size=3),
}
ON_THE_LINE = ("Gaussian", "Laplace", "StudentT")  # densities that are not cut at 0 and 1
every_likelihood = pytest.mark.parametrize("name", CASES)


@pytest.mark.parametrize("shape", [(9, 6), (3, 9, 6)], ids=["grey", "colour"])
@every_likelihood
def test_convolutional_decoders(name: str, shape: tuple[int, ...]) -> None:
    likelihood = CASES[name](2, shape, ConvDecoder)
    images = torch.randint(256, (5, *shape), dtype=torch.uint8)
    likelihood.initialize(Binary().stored_features(images))
    x = likelihood.kind.observe(images)
    assert likelihood(torch.randn(5, 2)).log_prob(x).isfinite().all()


PICTURES_ARE_DRAWS = ("PixelCNN", "LocalPixels")
NO_STARTS = (*PICTURES_ARE_DRAWS, "DiscretizedLogistic, m")
STARTS = [name for name in CASES if not name.startswith(NO_STARTS)]


@pytest.mark.parametrize("name", STARTS)
def test_starts_at_the_mean_of_the_data(name: str) -> None:
    images = torch.rand(400, 4, 3) * torch.linspace(0.2, 1, 12).reshape(4, 3)
    likelihood = CASES[name](2, [4, 3])
    likelihood.initialize(images)
    for parameter in likelihood.decoder.body.parameters():
        parameter.data.zero_()
    picture = likelihood.picture(torch.zeros(2))
    # To rounding where the mean is a parameter; else as near as the family comes.
    exact = not isinstance(likelihood.kind, Levels) and name not in ("Beta", "LogitNormal")
    near = {"Beta": 1e-2, "DiscretizedLogistic": 0.03, "Categorical": 0.02, "LogitNormal": 0.1}
    slack = 1e-5 if exact or name == "Binomial" else near[name]
    torch.testing.assert_close(picture, images.mean(0), atol=slack, rtol=0)


@pytest.mark.parametrize("name", ["Beta", "LogitNormal", "ContinuousBernoulli"])
def test_floats_may_be_black_and_white(name: str) -> None:
    """They are scored where the darkest and the lightest of dequantised pixels are."""
    likelihood = CASES[name](2, [2])
    p = likelihood(torch.randn(1, 2))
    log_p = p.log_prob(torch.tensor([[0.0, 1.0]]))
    assert log_p.isfinite().all()
    torch.testing.assert_close(log_p, p.log_prob(torch.tensor([[2**-33, 1 - 2**-24]])))


def test_bernoulli_is_the_cross_entropy() -> None:
    likelihood = Bernoulli(2, [4, 3])
    z, x = torch.randn(5, 2), (torch.rand(5, 4, 3) < 0.3).float()
    entropy = binary_cross_entropy_with_logits(likelihood.decoder(z), x, reduction="none")
    torch.testing.assert_close(-likelihood(z).log_prob(x), entropy.sum((1, 2)))


def test_gaussian_of_fixed_scale_is_the_squared_error_up_to_a_constant() -> None:
    """-log p(x|z) = |x - m(z)|^2 / (2 s^2) + D log(s sqrt(2 pi))."""
    scale = 0.3
    likelihood = Gaussian(2, [4, 3], scale=scale, noise="fixed")
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


def test_per_pixel_scale_is_the_decoders() -> None:
    likelihood = Gaussian(2, [2, 2], Linear, noise="per_pixel")
    z, x = torch.randn(3, 2), torch.rand(3, 2, 2)
    loc, log_scale = likelihood.decoder(z).unbind(1)
    expected = torch.distributions.Normal(loc, log_scale.exp() + 1e-3).log_prob(x)
    torch.testing.assert_close(likelihood(z).log_prob(x), expected.sum((1, 2)))


def test_optimal_scale_is_the_root_mean_squared_error() -> None:
    """sigma-VAE: in training no other scale does better; in evaluation it is fixed."""
    likelihood = Gaussian(2, [2, 2], Linear, noise="optimal")
    z, x = torch.randn(300, 2), torch.rand(300, 2, 2)
    squares = (x - likelihood.decoder(z)).square()
    best = torch.distributions.Normal(likelihood.decoder(z), squares.mean().sqrt())
    before = likelihood.running.clone()
    p = likelihood.for_training(z, x)
    expected = 0.99 * before + 0.01 * squares.mean().sqrt()
    torch.testing.assert_close(likelihood.running, expected)
    log_p = p.log_prob(x)
    torch.testing.assert_close(likelihood.running, expected)  # a density changes nothing
    torch.testing.assert_close(log_p, best.log_prob(x).sum((1, 2)))
    for factor in (0.98, 1.02):
        other = torch.distributions.Normal(best.loc, factor * best.scale)
        assert other.log_prob(x).sum() < log_p.sum()
    for _ in range(1000):
        likelihood.for_training(z, x)
    torch.testing.assert_close(likelihood.running, squares.mean().sqrt(), rtol=1e-3, atol=0)
    likelihood.eval()
    fixed = torch.distributions.Normal(best.loc, likelihood.running)
    torch.testing.assert_close(likelihood(z).log_prob(x), fixed.log_prob(x).sum((1, 2)))
    assert torch.equal(likelihood(z[:1]).log_prob(x[:1]), likelihood(z).log_prob(x)[:1])


def test_binomial_is_255_bernoullis() -> None:
    likelihood = likelihoods.Binomial(1, [1])
    z = torch.tensor([[0.3]])
    probability = likelihood.decoder(z).sigmoid().item()
    for level in (0, 1, 100, 255):
        expected = math.log(math.comb(255, level))
        expected += level * math.log(probability) + (255 - level) * math.log1p(-probability)
        found = likelihood(z).log_prob(torch.tensor([[float(level)]])).item()
        assert found == pytest.approx(expected, rel=1e-4)


def test_beta_in_single_precision() -> None:
    """Large concentrations: against double precision throughout."""
    likelihood = likelihoods.Beta(1, [1000])
    likelihood.decoder_bias[1] = 9.0
    x = torch.rand(1, 1000).clamp(0.3, 0.7)
    z = torch.zeros(1, 1)
    single = likelihood(z).log_prob(x)
    double = likelihood.double()(z.double()).log_prob(x.double())
    assert abs(single.item() - double.item()) < 1e-5 * abs(double.item())


def test_pixels_of_a_pixelcnn_depend_on_each_other_and_on_z() -> None:
    likelihood = likelihoods.PixelCNN(2, [4, 4])
    x = torch.zeros(4, 4)
    other = x.clone()
    other[0, 0] = 1
    context = likelihood.decoder(torch.zeros(1, 2))
    parameters = [likelihood.network(image[None], context) for image in (x, other)]
    assert not torch.allclose(*parameters)
    assert likelihood(torch.ones(2)).log_prob(x) != likelihood(-torch.ones(2)).log_prob(x)


class _TwoOutputs(Likelihood):
    """A user's subclass: `outputs` is a class attribute."""

    kinds = (UnitInterval,)
    outputs = 2

    def forward(self, z: Tensor) -> dist.Distribution:
        loc, log_scale = self.decode(z)
        return self.independent(dist.Normal(loc, log_scale.exp()))


class _NoKind(_TwoOutputs):
    kinds = ()


def test_likelihoods_of_ones_own() -> None:
    likelihood = _TwoOutputs(2, [4, 3])
    assert likelihood.decoder_bias.shape == (2, 4, 3)
    assert likelihood(torch.randn(5, 2)).log_prob(torch.rand(5, 4, 3)).shape == (5,)
    with pytest.raises(InputError, match="_NoKind has no kinds"):
        _NoKind(2, [4, 3])


def test_what_is_refused() -> None:
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: likelihoods.DiscretizedLogistic(2, [3], components=0), "at least one component"),
        (lambda: likelihoods.Categorical(2, [3], features=0), "one feature or more"),
        (lambda: likelihoods.StudentT(2, [3], df=1.0), r"in \(1, 1e6"),
        (lambda: likelihoods.PixelCNN(2, [3]), "images"),
        (lambda: likelihoods.PixelCNN(2, [3, 3], context=0), "context"),
    ]
    for make, message in refused:
        with pytest.raises(InputError, match=message):
            make()


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)], ids=["grey", "colour"])
def test_local_pixels_are_what_is_documented(shape: tuple[int, ...]) -> None:
    """The logit of a pixel is b(z) + sum_c a_c(z) h_c, here summed one by one."""
    torch.manual_seed(0)
    likelihood = likelihoods.LocalPixels(2, shape, features=3, reach=1)
    z, x = torch.randn(4, 5, 2), torch.randint(2, (5, *shape)).float()
    b, *a = likelihood.decoder(z).reshape(4, 5, 4, *shape).unbind(2)
    h = likelihood.network(x).unbind(1)
    logits = b
    for weight, feature in zip(a, h, strict=True):
        logits = logits + weight * feature
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(x).flatten(2).sum(2)
    torch.testing.assert_close(likelihood(z).log_prob(x), expected)
