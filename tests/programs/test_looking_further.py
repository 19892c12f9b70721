"""Faults that random programs found in the look at programs, and their cost in runs."""

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
