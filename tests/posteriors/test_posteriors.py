"""One contract for every posterior."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from types import ModuleType

import pyro
import pytest
import torch

from pyro_vae import InputError, networks, posteriors
from pyro_vae.networks import MLP, ConvEncoder, Linear, ResidualEncoder
from pyro_vae.posteriors import Posterior

CASES: dict[str, Callable[..., Posterior]] = {
    "Normal": posteriors.Normal,
    "Normal, convolutional": partial(posteriors.Normal, encoder=ConvEncoder),
    "Normal, residual": partial(posteriors.Normal, encoder=ResidualEncoder),
    "FullNormal": posteriors.FullNormal,
    "LowRankNormal": posteriors.LowRankNormal,
    "IAF": partial(posteriors.IAF, hidden=8, context=4),
    "SplineFlow": partial(posteriors.SplineFlow, hidden=8, context=4),
    "PowerSpherical": posteriors.PowerSpherical,
    "Bernoulli": posteriors.Bernoulli,
    "Categorical": partial(posteriors.Categorical, categories=2),
    "Hierarchical": partial(posteriors.Hierarchical, top_dim=3),
    "Hierarchical, spherical": partial(
        posteriors.Hierarchical, top=posteriors.PowerSpherical, top_dim=3
    ),
}
every_posterior = pytest.mark.parametrize("name", CASES)


@pytest.mark.parametrize("package", [networks, posteriors])
def test_every_option_is_documented(package: ModuleType) -> None:
    """The command line reads the `Args:` of a class and of its bases."""
    for name in package.__all__:
        cls = getattr(package, name)
        if inspect.isclass(cls):
            docstrings = "\n".join(inspect.cleandoc(c.__doc__ or "") for c in cls.__mro__)
            for option in inspect.signature(cls).parameters:
                assert re.search(rf"^    {option}: [a-z]", docstrings, re.MULTILINE), (name, option)


# For the same noise a draw is a smooth function of the parameters. The exception is the draw of a
# Beta distribution, whose gradient is implicit: test_distributions tests the power spherical.
PATHWISE = [name for name in CASES if "pherical" not in name]


@pytest.mark.parametrize("name", ["IAF", "SplineFlow"])
def test_flows_know_the_density_of_any_code(name: str) -> None:
    """The density cached with a draw equals the density by inversion."""
    posterior = CASES[name]([6], 4, encoder=partial(MLP, widths=[8]))
    q = posterior(torch.rand(3, 6))
    z = q.sample()
    cached = q.log_prob(z)
    torch.testing.assert_close(q.log_prob(z.clone()), cached, atol=2e-4, rtol=1e-4)


def test_families_contain_each_other() -> None:
    """Without correlations or factors, FullNormal and LowRankNormal equal Normal."""
    x, z = torch.rand(5, 3), torch.randn(5, 2)
    normal = posteriors.Normal([3], 2, Linear)
    weight, bias = normal.encoder.body[1].weight.data, normal.encoder.bias.data.flatten()
    for make, outputs in ((posteriors.FullNormal, 5), (posteriors.LowRankNormal, 8)):
        wider = make([3], 2, Linear)
        encoder = wider.encoder
        with torch.no_grad():
            encoder.body[1].weight.zero_()[:4] = weight
            encoder.bias.zero_().view(-1)[:4] = bias
        assert encoder.bias.numel() == outputs
        torch.testing.assert_close(wider(x).log_prob(z), normal(x).log_prob(z))
        with torch.no_grad():
            encoder.bias.view(-1)[4:] = 0.5
        scale = normal(x).stddev
        covariance = wider(x).covariance_matrix
        correlation = covariance / (scale[:, :, None] * scale[:, None])
        if make is posteriors.FullNormal:  # L = [[1, 0], [1/2, 1]], rows in units of s
            expected = torch.tensor([[1.0, 0.5], [0.5, 1.25]]).expand(5, 2, 2)
        else:  # I + F F', where F has two columns of 1/2
            expected = (torch.eye(2) + 0.5).expand(5, 2, 2)
        torch.testing.assert_close(correlation, expected)


def test_lower_layer_depends_on_the_upper_one() -> None:
    posterior = posteriors.Hierarchical([3], 2, top_dim=2)
    x = torch.rand(1, 3)
    means = []
    for value in (0.0, 1.0):
        conditioned = pyro.poutine.condition(posterior, {"z_top": torch.full((1, 2), value)})
        means.append(conditioned(x).mean)
    assert not torch.allclose(*means)


def test_refusals() -> None:
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: posteriors.IAF([3], 1), "two latent dimensions"),
        (lambda: posteriors.IAF([3], 2, layers=0), "layers has to be at least 1, but is 0"),
        (lambda: posteriors.IAF([3], 2, context=-1), "context has to be at least 1"),
        (lambda: posteriors.SplineFlow([3], 2, bins=1), "two bins"),
        (lambda: posteriors.LowRankNormal([3], 2, rank=0), "rank"),
        (lambda: posteriors.PowerSpherical([3], 1), "two latent dimensions"),
        (lambda: posteriors.Bernoulli([3], 2, temperature=-1), "temperature"),
        (lambda: posteriors.Bernoulli([3], 2, temperature=float("nan")), "temperature"),
        (
            lambda: posteriors.Categorical([3], 5, categories=2),
            "cannot be divided into one-hot variables",
        ),
        (lambda: posteriors.Hierarchical([3], 2, top_dim=0), "top_dim have to be positive"),
        (lambda: posteriors.Hierarchical([3], 2, features=0), "features has to be at least 1"),
        (lambda: posteriors.Hierarchical([3], 2, top=posteriors.Hierarchical), "uppermost layer"),
    ]
    for make, message in refused:
        with pytest.raises(InputError, match=message):
            make()
