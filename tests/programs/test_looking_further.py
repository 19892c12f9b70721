"""Faults that random programs found in the look at programs, and their cost in runs."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae import InputError, bounds
from pyro_vae.bounds import Arguments
from pyro_vae.programs.looking import look_at


def guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("examples", [2, 3, 4])
def test_as_many_examples_as_particles_are_no_excuse(examples: int) -> None:
    """`len(z)` is the number of examples, or of particles: right by chance if they are equal."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z / len(z), 1.0), obs=x)

    with pytest.warns(UserWarning, match="run once for each draw"):
        assert not look_at(model, guide, Arguments(torch.ones(examples))).vectorize


@pytest.mark.parametrize("odd_one", [0, 17, 49, 50, 75, 99])
def test_a_covariate_that_matters_for_one_example(odd_one: int) -> None:
    mean = torch.zeros(100)
    mean[odd_one] = 5.0

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)) as i:
            z = pyro.sample("z", dist.Normal(mean[i], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.warns(UserWarning, match="all examples are taken at once"):
        assert look_at(model, guide, Arguments(torch.ones(100)), most_at_once=20).batch_size == 100


def test_half_precision_with_enumeration_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.4), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(c.bfloat16(), x.new_ones(())), obs=x)

    with pytest.raises(InputError, match="too coarse"):
        bounds.evaluate(model, lambda x: None, torch.ones(3).bfloat16(), 5)


def test_a_masked_site_is_no_angle() -> None:
    """The density of a masked site is zero everywhere, and so has every period."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            masked = dist.Normal(5 * z, 1.0).mask(torch.zeros(len(x), dtype=torch.bool))
            pyro.sample("nothing", masked)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([0.3, -1.0])
    annealed = bounds.anneal(model, poutine.block(model, hide=["x"]), x, bounds.Settings(30, 100))
    exact = dist.Normal(0.0, 2**0.5).log_prob(x)
    assert ((annealed.lower.values - exact).abs() < 4.5 * annealed.lower.variance.sqrt()).all()


# Programs that a reader of the code found.


def test_neighbours_that_depend_on_one_example_are_refused() -> None:
    """All examples share the latent value of the first."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., :1], 1.0), obs=x)

    with pytest.raises(InputError, match="change the log-probability of others"):
        bounds.evaluate(model, guide, torch.ones(6), 5)


def test_densities_of_different_measures_are_refused() -> None:
    """The probability of a coin is not the density of a real number."""

    def coin(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(0.5))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(InputError, match="continuous in the model, and discrete in the guide"):
        bounds.evaluate(model, coin, torch.ones(3), 5)

    def positive(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(0.0, 1.0))

    assert bounds.evaluate(model, positive, torch.ones(3), 50).bound.mean < 0  # a lower bound
    with pytest.raises(InputError, match="different support"):
        bounds.anneal(model, positive, torch.ones(3), bounds.Settings(2, 2))


def test_chains_need_all_values_of_a_discrete_site() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def point(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Delta(torch.zeros(len(x))))
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(InputError, match="a single value"):
        bounds.anneal(model, point, torch.ones(3), bounds.Settings(2, 2))


def test_simulated_data_are_read_where_they_are_observed_alone() -> None:
    def scaled(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x / 255)

    def shifted(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + x.roll(1), 1.0), obs=x)

    for model in (scaled, shifted):
        with pytest.raises(InputError, match="data can be simulated"):
            bounds.bidirectional(model, guide, torch.zeros(5), bounds.Settings(2, 2))


def test_masks_that_depend_on_latent_values_are_not_annealed() -> None:
    def latent() -> Tensor:
        b = pyro.sample("b", dist.Bernoulli(0.5))
        with poutine.mask(mask=b.bool()):
            return b * pyro.sample("z", dist.Normal(0.0, 1.0))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(latent(), 1.0), obs=x)

    def masked_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            latent()

    x = torch.randn(20)
    bounds.evaluate(model, masked_guide, x, 5)
    with pytest.raises(InputError, match="depends on latent values"):
        bounds.anneal(model, masked_guide, x, bounds.Settings(2, 2))


def test_adapted_guides_are_looked_at() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def adapt(x: Tensor) -> Callable[[Tensor], None]:
        def point(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Delta(x / 2))

        return point

    with pytest.raises(InputError, match="point estimate"):
        bounds.evaluate(model, guide, torch.ones(3), 5, adapt=adapt)


def test_noise_in_programs_of_one_evidence_is_refused() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean + torch.randn(()), 1.0), obs=x)

    with pytest.raises(InputError, match="random numbers outside"):
        bounds.evaluate(
            model, lambda x: pyro.sample("mean", dist.Normal(0.0, 1.0)), torch.ones(3), 5
        )
