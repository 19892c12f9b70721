"""Programs that are run on one chunk after another: what is checked once, and what each time."""

from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_vae import InputError, bounds
from pyro_vae.bounds import Arguments
from pyro_vae.programs import looking
from pyro_vae.programs.looking_once import looked_at_once
from pyro_vae.testing import LinearGaussian


class Rate(nn.Module):
    """A model of counts, whose rate may be changed."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Poisson(self.rate * z), obs=x)


class Guide(nn.Module):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(3.0, 1.0))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count how often programs are looked at."""
    found: list[int] = []
    structure = looking._structure

    def count(*arguments: object, **options: object) -> object:
        found.append(1)
        return structure(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(looking, "_structure", count)
    yield found


def test_later_chunks_have_the_numbers_of_a_look_of_their_own(
    linear_gaussian: LinearGaussian, looks: list[int]
) -> None:
    model, guide = linear_gaussian.vae.model, linear_gaussian.vae.guide
    x = linear_gaussian.marginal.sample((220,))
    chunks = [x[:100], x[100:200], x[200:]]
    alone = [bounds.evaluate(model, guide, chunk, 150).bound.values for chunk in chunks]
    assert len(looks) == 3
    with looked_at_once():
        together = [bounds.evaluate(model, guide, chunk, 150).bound.values for chunk in chunks]
    assert len(looks) == 4
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def test_values_are_checked_each_time() -> None:
    model, guide = Rate(), Guide()
    good, bad = torch.ones(60), torch.ones(60)
    bad[55] = -1
    with looked_at_once():
        bounds.evaluate(model, guide, good, 5)
        for validated in (True, False):
            with pyro.validation_enabled(validated), pytest.raises((InputError, ValueError)):
                bounds.evaluate(model, guide, bad, 5)


def test_what_has_changed_is_looked_at_again(looks: list[int]) -> None:
    model, guide = Rate(), Guide()
    x = Arguments(torch.ones(60))
    with looked_at_once():
        for _ in range(2):
            looking.look_at(model, guide, x, most_at_once=50)
        assert len(looks) == 1
        model.rate += 1
        looking.look_at(model, guide, x, most_at_once=50)
        assert len(looks) == 2
        model.train(not model.training)
        looking.look_at(model, guide, x, most_at_once=50)
        assert len(looks) == 3
        looking.look_at(model, guide, Arguments(torch.ones(61)), most_at_once=50)  # more of them
        assert len(looks) == 4
        looking.look_at(model, guide, Arguments(torch.ones(60).double()), most_at_once=50)
        assert len(looks) == 5
        assert looking.look_at(model, guide, x, most_at_once=20).batch_size == 20
        assert len(looks) == 6
        assert looking.look_at(model, guide, x.take(slice(7)), most_at_once=20).batch_size == 7
        assert len(looks) == 6
        looking.look_at(Rate(), guide, x, most_at_once=20)
        assert len(looks) == 7
    looking.look_at(model, guide, x, most_at_once=20)
    assert len(looks) == 8


def test_functions_are_looked_at_each_time(looks: list[int]) -> None:
    model, guide = Rate(), Guide()
    with looked_at_once():
        for _ in range(2):
            looking.look_at(lambda x: model(x), guide, Arguments(torch.ones(60)))
    assert len(looks) == 2
