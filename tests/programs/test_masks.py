"""Masks within distributions count as those of poutine.mask do: `fn.mask(m)` leaves no trace."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:all examples are taken at once")  # masks by index

X = 0.7 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
ROWS = torch.tensor([True, False, True, True, False, True])
ALL = torch.ones(6, 2, dtype=torch.bool)
ENTRIES = torch.tensor([[True, False]] * 6)  # masked within an example
EXACT = dist.Normal(0.0, 2**0.5).log_prob(X)
Program = Callable[[Tensor], None]


def program(mask: Tensor | None, observed: Tensor | None = None) -> Program:
    """A model with a mask within both distributions; a guide if nothing is observed."""

    def run(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(x.shape), 1.0)
            z = pyro.sample("z", (prior.mask(mask) if mask is not None else prior).to_event(1))
            if observed is not None:
                pyro.sample("x", dist.Normal(z, 1.0).mask(observed).to_event(1), obs=x)

    return run


@pytest.mark.parametrize("guide_mask", [None, ROWS[:, None], ALL])
def test_examples_that_the_model_masks(guide_mask: Tensor | None) -> None:
    model = program(ROWS[:, None], ROWS[:, None])
    bound = bounds.evaluate(model, program(guide_mask), X, 2000).bound
    assert (bound.values - EXACT.sum(1) * ROWS).abs().max() < 0.2
    assert bound.values[~ROWS].abs().max() < 1e-9


def test_entries_that_both_mask() -> None:
    bound = bounds.evaluate(program(ENTRIES, ENTRIES), program(ENTRIES), X, 2000).bound
    assert (bound.values - EXACT[:, 0]).abs().max() < 0.2


def test_autoguide_of_a_masked_model() -> None:
    model = program(ROWS[:, None], ROWS[:, None])
    guide = AutoNormal(model, init_scale=0.7)
    guide(X)
    bound = bounds.evaluate(model, guide, X, 2000).bound
    assert (bound.values - EXACT.sum(1) * ROWS).abs().max() < 0.2


@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (program(None, ALL), program(ROWS[:, None]), "masked where the model's is not"),
        (program(ENTRIES, ENTRIES), program(None), "part of its values is masked in one"),
        (program(ROWS[:, None], ALL), program(ROWS[:, None]), "depend on its masked values"),
        (
            poutine.mask(program(None, ALL), mask=ROWS),
            program(~ROWS[:, None]),
            "masked where the model's is not",
        ),
    ],
)
def test_refused(model: Program, guide: Program, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bounds.evaluate(model, guide, X, 10)
