"""Diagnostics of programs that are not VAEs: right numbers, or a refusal."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import LinearGaussian
from pyro import poutine
from torch import Tensor

from pyro_vae import InputError, bounds, diagnostics
from pyro_vae.bounds import Arguments
from pyro_vae.diagnostics import refinement

# z ~ N(0, I) of two dimensions, x ~ N(a z_1, 0.5^2); q(z|x): z_1 follows x, z_2 is ignored.
GAIN, WITHIN = 0.8, 0.4


def model(x: Tensor, a: Tensor, name: str = "data", dim: int = -1) -> None:
    shape = (len(x), *(1,) * (-1 - dim))
    with pyro.plate(name, len(x), dim=dim):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(a.reshape(shape) * z[..., 0], 0.5), obs=x.reshape(shape))


def guide(x: Tensor, a: Tensor, name: str = "data", dim: int = -1) -> None:
    shape = (len(x), *(1,) * (-1 - dim))
    with pyro.plate(name, len(x), dim=dim):
        loc = torch.stack([GAIN * x, torch.zeros_like(x)], -1).reshape(*shape, 2)
        pyro.sample("z", dist.Normal(loc, torch.tensor([WITHIN, 1.0])).to_event(1))


def model_by_position(x: Tensor, a: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(a * z[:, 0], 0.5), obs=x)


def guide_by_position(x: Tensor, a: Tensor) -> None:
    with pyro.plate("data", len(x)):
        loc = torch.stack([GAIN * x, torch.zeros_like(x)], -1)
        pyro.sample("z", dist.Normal(loc, torch.tensor([WITHIN, 1.0])).to_event(1))


def nested_model(x: Tensor, a: Tensor) -> None:
    """The two dimensions are in a plate of their own."""
    with pyro.plate("rows", len(x), dim=-1):
        with pyro.plate("parts", 2, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(a * z[..., :1, :], 0.5), obs=x)


def nested_guide(x: Tensor, a: Tensor) -> None:
    scale = torch.tensor([[WITHIN], [1.0]])
    with pyro.plate("rows", len(x), dim=-1), pyro.plate("parts", 2, dim=-2):
        pyro.sample("z", dist.Normal(torch.stack([GAIN * x, torch.zeros_like(x)]), scale))


def normal(count: int) -> Tensor:
    """Examples whose distribution is the normal one, without the noise of draws."""
    levels = (torch.arange(count) + 0.5) / count
    return torch.distributions.Normal(0.0, 1.0).icdf(levels)[torch.randperm(count)]


def data(count: int = 700) -> Arguments:
    return Arguments(normal(count), torch.rand(count) + 0.5)


def near(values: Tensor, expected: float, slack: float = 0.0) -> bool:
    error = values.double().std().item() / len(values) ** 0.5
    return abs(values.double().mean().item() - expected) < 4.5 * error + slack


def assert_right(found: diagnostics.Diagnosis, x: Tensor) -> None:
    """Rate, information, shares and KL of the programs above have closed forms for x ~ N(0, 1)."""
    information = 0.5 * math.log(1 + (GAIN / WITHIN) ** 2)
    assert near(found.information.mutual_information, information, slack=0.03)
    assert near(found.information.mutual_information_above, information, slack=0.03)
    kl = 0.5 * (WITHIN**2 + (GAIN * x) ** 2 - 1) - math.log(WITHIN)
    # Both are means over the same x; z is drawn once, and its noise is that of log q - log p.
    assert near(found.information.rate - kl, 0.0)
    share = GAIN**2 * x.var(correction=0) / (GAIN**2 * x.var(correction=0) + WITHIN**2)
    torch.testing.assert_close(found.shares["z"][0], share, atol=0.02, rtol=0)
    assert found.shares["z"].shape == (2,) and abs(found.shares["z"][1]) < 0.01
    expected = torch.stack([kl.mean(), torch.tensor(0.0)])
    assert found.kl["z"] is not None
    torch.testing.assert_close(found.kl["z"], expected, atol=1e-5, rtol=1e-5)
    assert (found.active, found.units) == (1, 2)


@pytest.mark.parametrize("name", ["data", "rows"])
@pytest.mark.parametrize("dim", [-1, -2])
def test_several_arguments_and_any_plate(name: str, dim: int) -> None:
    arguments = Arguments(*data().args, name=name, dim=dim)
    assert_right(diagnostics.diagnose(model, guide, arguments), arguments.args[0])
    distortion = diagnostics.measure(model, guide, arguments, plate=name).distortion
    x, a = arguments.args
    squares = (x - a * GAIN * x) ** 2 + (a * WITHIN) ** 2
    expected = squares / (2 * 0.25) + math.log(0.5 * (2 * math.pi) ** 0.5)
    assert near(distortion - expected, 0.0)


def test_units_in_an_inner_plate() -> None:
    arguments = data()
    assert_right(diagnostics.diagnose(nested_model, nested_guide, arguments), arguments.args[0])


def test_programs_that_cannot_be_vectorised() -> None:
    arguments = data(300)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = diagnostics.diagnose(model_by_position, guide_by_position, arguments)
    assert any("run once for each draw" in str(warning.message) for warning in caught)
    alone = diagnostics.measure(model, guide, arguments)
    for name, values in vars(found.information).items():  # the same draws, scored one by one
        torch.testing.assert_close(values, getattr(alone, name), atol=1e-4, rtol=1e-4)


def test_units_of_a_guide_that_cannot_be_vectorised() -> None:
    """The second site depends on the first by position: among particles on another draw."""

    def two(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            first = pyro.sample("first", dist.Normal(3 * x, 0.1))
            pyro.sample("second", dist.Normal(first.cumsum(0) - first.cumsum(0) + first[:1], 0.1))

    x = torch.randn(200)
    means = diagnostics.unit_means(two, x)
    torch.testing.assert_close(means["first"][0][:, 0], 3 * x, atol=0.1, rtol=0)
    assert means["second"][0].std() < 0.05  # the same for all examples: that of the first one
    torch.testing.assert_close(means["second"][0][0, 0], 3 * x[0], atol=0.1, rtol=0)


def test_what_is_found_by_index() -> None:
    """Local parameters: all examples are taken at once, however many there are."""
    x = normal(1200)
    local = GAIN * x

    def by_index(x: Tensor) -> None:
        with pyro.plate("data", len(x)) as rows:
            pyro.sample("z", dist.Normal(local[rows], WITHIN))

    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    mean, within = diagnostics.unit_means(by_index, x)["z"]
    torch.testing.assert_close(mean[:, 0], local, atol=5 * WITHIN / 32**0.5, rtol=0)
    assert within.item() == pytest.approx(WITHIN**2, rel=0.05)
    with pytest.warns(UserWarning, match="all examples are taken at once"):
        information = diagnostics.measure(prior, by_index, x)
    exact = 0.5 * math.log(1 + (GAIN / WITHIN) ** 2)
    assert near(information.mutual_information, exact, slack=0.03)


def with_global(x: Tensor, observe: bool = True) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(w, 1.0))
        if observe:
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def masked(x: Tensor, observe: bool = True) -> None:
    with pyro.plate("data", len(x)), poutine.mask(mask=x > 0):
        z = pyro.sample("z", dist.Normal(0.0 * x, 1.0))
        if observe:
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def category(x: Tensor, observe: bool = True) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.ones(3)))
        if observe:
            pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (with_global, "outside the plate of the examples"),
        (masked, "'z' is masked"),
        (category, "are integers"),
    ],
)
def test_codes_that_are_none_are_refused(program: Callable[..., Any], said: str) -> None:
    x = torch.randn(20)
    prior = partial(program, observe=False)
    with pytest.raises(InputError, match=said):
        diagnostics.diagnose(program, prior, x)
    with pytest.raises(InputError, match=said):
        diagnostics.active_units(prior, x)


def test_autoguides_and_summed_out_sites_are_refused() -> None:
    def mixture(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(k.to(x.dtype), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def of_z(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    x = torch.randn(20)
    with pytest.raises(InputError, match="has no site 'k'"):
        diagnostics.measure(mixture, of_z, x)
    plain = partial(model, a=torch.ones(20))
    auto = pyro.infer.autoguide.AutoNormal(plain)
    auto(x)
    with pytest.raises(InputError, match="auxiliary site 'z_unconstrained'"):
        diagnostics.measure(plain, auto, x)
    with torch.no_grad():
        auto.locs.z.copy_(torch.stack([x, 0 * x], -1))
    mean, within = diagnostics.unit_means(auto, x)["z"]
    torch.testing.assert_close(mean[:, 0], x, atol=0.1, rtol=0)
    torch.testing.assert_close(within, torch.full((2,), 0.01), atol=0.002, rtol=0)


def test_refinement_in_evaluate_is_for_guides_of_vaes(linear_gaussian: LinearGaussian) -> None:
    """`adapt` is called with the arguments of a batch: here the guide's one tensor, by name too."""
    vae = linear_gaussian.vae
    x = linear_gaussian.marginal.sample((60,))
    adapt = partial(refinement.refine, vae.model, vae.guide, steps=0)
    for given in (x, Arguments(x), Arguments(x=x)):
        found = bounds.evaluate(vae.model, vae.guide, given, 200, adapt=adapt)
        exact = linear_gaussian.elbo(x).mean().item()
        assert abs(found.elbo.mean - exact) < 4.5 * found.elbo.mc_se
    with pytest.raises(InputError, match="needs the guide of a VAE"):
        refinement.refine(vae.model, guide, x)


def test_refinement_with_a_model_that_cannot_be_vectorised(linear_gaussian: LinearGaussian) -> None:
    """Its result is that of the same model, vectorised, up to the noise of the draws."""
    vae = linear_gaussian.vae
    x = linear_gaussian.marginal.sample((10,))
    likelihood, prior = vae.likelihood, vae.prior

    def by_rows(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            mean = likelihood(z.reshape(len(x), 2)).mean  # fails for more draws than one
            scale = linear_gaussian.scale
            pyro.sample("x", dist.Normal(mean, scale).to_event(1), obs=x)

    settings = {"steps": 200, "lr": 0.03}
    with pytest.warns(UserWarning, match="run once for each draw"):
        local = refinement.refine(by_rows, vae.guide, x, num_particles=4, **settings)
    same = refinement.refine(vae.model, vae.guide, x, num_particles=4, **settings)
    torch.testing.assert_close(local.posterior(x).mean, same.posterior(x).mean, atol=0.1, rtol=0)
