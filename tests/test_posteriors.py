"""One contract for every posterior."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from types import ModuleType

import pyro
import pytest
import torch
from conftest import assert_gradients, assert_normalised_and_sampled
from torch import Tensor

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


def test_every_posterior_is_under_contract() -> None:
    public = {
        name
        for name, cls in vars(posteriors).items()
        if inspect.isclass(cls) and issubclass(cls, Posterior) and not name.startswith("_")
    }
    assert public - {"Posterior"} == {name.split(",")[0] for name in CASES}


@pytest.mark.parametrize("package", [networks, posteriors])
def test_every_option_is_documented(package: ModuleType) -> None:
    """The command line reads the `Args:` of a class and of its bases."""
    for name in package.__all__:
        cls = getattr(package, name)
        if inspect.isclass(cls):
            docstrings = "\n".join(inspect.cleandoc(c.__doc__ or "") for c in cls.__mro__)
            for option in inspect.signature(cls).parameters:
                assert re.search(rf"^    {option}: [a-z]", docstrings, re.MULTILINE), (name, option)


@every_posterior
def test_contract(name: str) -> None:
    posterior = CASES[name]([5, 4], 4)
    assert posterior.event_shape == (5, 4) and posterior.latent_dim == 4
    x = torch.rand(6, 5, 4)
    for training in (True, False):
        posterior.train(training)
        q = posterior(x)
        assert q.batch_shape == (6,) and q.event_shape == (4,)
        assert q.has_rsample or (posterior.support in ("binary", "categorical") and not training)
        assert posterior(x.expand(2, 6, 5, 4)).batch_shape == (2, 6)
        assert posterior(x[0]).batch_shape == ()
        z = q.sample()
        assert z.shape == (6, 4) and q.log_prob(z).isfinite().all()
        assert q.sample((3,)).shape == (3, 6, 4)
        assert q.expand((3, 6)).log_prob(z).shape == (3, 6)
    other = CASES[name]([5, 4], 4)
    other.load_state_dict(posterior.state_dict())
    results = []
    for each in (posterior, other):
        torch.manual_seed(5)
        results.append(each.eval()(x).log_prob(z))
    torch.testing.assert_close(*results)
    for training in (True, False):
        extreme = posterior.train(training)(1e3 * torch.ones(1, 5, 4))
        assert extreme.log_prob(extreme.sample()).isfinite().all()


@every_posterior
def test_gradients_of_the_density(name: str) -> None:
    posterior = CASES[name]([5, 4], 4).double()
    x = torch.rand(6, 5, 4).double()

    def draw() -> tuple[Tensor, Tensor]:
        """Return the log-density of both layers, and z, with the same noise in each call."""
        torch.manual_seed(3)
        conditioned = pyro.poutine.condition(posterior, data)
        trace = pyro.poutine.trace(conditioned).get_trace(x)
        trace.compute_log_prob()
        q = trace.nodes["_RETURN"]["value"]
        layers = [site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample"]
        return q.log_prob(z) + sum(layers), q.rsample()

    data: dict[str, Tensor] = {}
    z = posterior(x).sample()
    if posterior.support == "two layers":
        data["z_top"] = posterior.top(x).sample()
    assert_gradients(posterior, lambda: draw()[0].sum())


# For the same noise a draw is a smooth function of the parameters. The exception is the draw of a
# Beta distribution, whose gradient is implicit: test_distributions tests the power spherical.
PATHWISE = [name for name in CASES if "pherical" not in name]


@pytest.mark.parametrize("name", PATHWISE)
def test_gradients_of_draws(name: str) -> None:
    posterior = CASES[name]([5, 4], 4).double()
    x = torch.rand(6, 5, 4).double()

    def value() -> Tensor:
        torch.manual_seed(3)
        return (posterior(x).rsample() * torch.arange(1.0, 5.0)).sin().sum()

    assert_gradients(posterior, value)


@pytest.mark.parametrize("name", [name for name in CASES if "Hier" not in name])
def test_density_integrates_to_one_and_samples_follow_it(name: str) -> None:
    shape = [6, 1] if "," in name else [6]
    dim = 4 if name == "Categorical" else 2
    posterior = CASES[name](shape, dim)
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    q = posterior.double().eval()(torch.rand(*shape).double())
    tolerance = 2e-3 if name == "SplineFlow" else 3e-4  # its density has corners
    assert_normalised_and_sampled(q, posterior.support, tolerance)


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
        (lambda: posteriors.IAF([3], 2, layers=0), "layers has to be at least 1, and 0 is not"),
        (lambda: posteriors.IAF([3], 2, context=-1), "context has to be at least 1"),
        (lambda: posteriors.SplineFlow([3], 2, bins=1), "two bins"),
        (lambda: posteriors.LowRankNormal([3], 2, rank=0), "rank"),
        (lambda: posteriors.PowerSpherical([3], 1), "two latent dimensions"),
        (lambda: posteriors.Bernoulli([3], 2, temperature=-1), "temperature"),
        (lambda: posteriors.Bernoulli([3], 2, temperature=float("nan")), "temperature"),
        (lambda: posteriors.Categorical([3], 5, categories=2), "no whole number"),
        (lambda: posteriors.Hierarchical([3], 2, top_dim=0), "top_dim has to be at least 1"),
        (lambda: posteriors.Hierarchical([3], 2, features=0), "features has to be at least 1"),
        (lambda: posteriors.Hierarchical([3], 2, top=posteriors.Hierarchical), "two layers"),
    ]
    for make, message in refused:
        with pytest.raises(InputError, match=message):
            make()
