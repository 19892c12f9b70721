"""What is said of a loss that is not finite: which site, which examples, which step."""

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from small_training import make_engine, train
from torch import Tensor, nn

from pyro_vae import DivergenceError, checkpoint
from pyro_vae.objectives import ELBO
from pyro_vae.training import Callback, Checkpoint, CompiledEngine, EagerEngine, Training, fit
from pyro_vae.training.divergence import explain

X = torch.randn(95, 3, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight, 1.0).to_event(1), obs=x)


class Guide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x.clamp(-9, 9)), 1.0).to_event(1))


@pytest.mark.parametrize("kind", [EagerEngine, CompiledEngine])
def test_the_site_and_the_examples_are_named(kind: type[EagerEngine]) -> None:
    """They are infinitely unlikely. A step with such a loss changes no parameter."""
    x = X.clone()
    x[7, 1] = x[90, 2] = 1e30
    torch.manual_seed(0)
    engine = kind(Model(), Guide(), ELBO())
    engine.step(X)
    before = [p.detach().clone() for p in (*engine.model.parameters(), *engine.guide.parameters())]
    with pytest.raises(DivergenceError) as error:
        fit(engine, x, epochs=1, batch_size=95, progress=False)
    assert str(error.value) == (
        "the loss became inf in step 1 of epoch 1: log p of the site x is not finite for 2 of 95 "
        "examples (training examples 7, 90, counted from 0); there is no checkpoint from before "
        "it: use a smaller learning rate"
    )
    after = [*engine.model.parameters(), *engine.guide.parameters()]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_what_is_found_where() -> None:
    model, guide = Model(), Guide()
    numbers = torch.arange(95)
    assert explain(model, guide, X, numbers, "training") == ""
    wrong = X.clone()
    wrong[3:20] = torch.nan
    said = explain(model, guide, wrong, numbers, "validation")
    assert said.startswith("the draw of the site z is not finite for 17 of 95 examples")
    assert said.endswith("(validation examples 3, 4, 5, 6, 7, .., counted from 0)")
    of_all = explain(model, guide, wrong[3:20], numbers[3:20], "training")
    assert of_all == "the draw of the site z is not finite for all 17 examples of the batch"
    with torch.no_grad():
        guide.encoder.bias[1] = torch.inf
    assert explain(model, guide, X, numbers, "training") == (
        "the parameter encoder.bias of the guide is not finite since an earlier step"
    )


class Factorised(Guide):
    """A guide with a covariance matrix, which has no Cholesky factor from some step on."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.good = good  # calls

    def forward(self, x: Tensor) -> None:
        self.good -= 1
        covariance = torch.eye(2) if self.good >= 0 else -torch.eye(2)
        with pyro.plate("data", len(x)):
            fn = dist.MultivariateNormal(
                self.encoder(x), scale_tril=torch.linalg.cholesky(covariance)
            )
            pyro.sample("z", fn)


class TakesSteps(Callback):
    """Evaluates the guide after an epoch, as validation does."""

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        training.engine.evaluate_loss(X)


@pytest.mark.parametrize("good", range(1, 8))
def test_a_matrix_that_cannot_be_factorised_is_a_divergence(good: int, tmp_path: Path) -> None:
    """In a step, and in what a callback evaluates after an epoch."""
    engine = EagerEngine(Model(), Factorised(100), ELBO())
    engine.check(X)
    engine.guide.good = good
    with pytest.raises(DivergenceError) as error:
        fit(
            engine,
            X,
            epochs=9,
            batch_size=50,
            callbacks=[TakesSteps(), Checkpoint(tmp_path)],
            progress=False,
        )
    said = str(error.value)
    assert said.startswith("the loss became nan in epoch ") and "\n" not in said
    assert ": a matrix of the programs has no Cholesky factor or no inverse; " in said
    assert said.endswith("use a smaller learning rate")
    assert ("there is no checkpoint" in said) == (good < 4)  # one call is before the first epoch


def test_parameters_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    class Poison(Callback):
        def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
            if training.epoch == 2:
                with torch.no_grad():
                    next(training.engine.model.parameters()).fill_(torch.nan)

    with pytest.raises(DivergenceError) as error:
        train(make_engine(), 3, tmp_path, Poison())
    assert "in step 1 of epoch 3: the parameter " in str(error.value)
    assert f"of epoch 1, is {tmp_path / 'checkpoint.pt'}" in str(error.value)
    assert len(checkpoint.load(tmp_path / "checkpoint.pt")["history"]) == 1
