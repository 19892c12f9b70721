"""A training that takes a second, for tests of the loop and of its callbacks."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pyro_vae import VAE, likelihoods, posteriors, priors
from pyro_vae.kinds import Binary
from pyro_vae.networks import MLP, Linear
from pyro_vae.objectives import ELBO
from pyro_vae.training import (
    Callback,
    Checkpoint,
    EagerEngine,
    Engine,
    History,
    Observe,
    Validate,
    fit,
)

IMAGES = torch.randint(
    256, (95, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
VALIDATION = Binary().observe_once(IMAGES[:20], 0)


def make_engine(kind: type[EagerEngine] = EagerEngine) -> EagerEngine:
    torch.manual_seed(2)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(2, [4, 3], Linear),
        posteriors.Normal([4, 3], 2, partial(MLP, widths=[8])),
    )
    return kind(vae.model, vae.guide, ELBO(warmup=2.5), lr=1e-2)


def show(images: Tensor) -> Tensor:
    return Binary().observe(images)


def train(
    engine: Engine,
    epochs: int,
    folder: Path | None = None,
    *others: Callback,
    seed: int = 0,
    batch_size: int = 30,
) -> History:
    """Validate, do what the other callbacks do, and save a checkpoint if there is a folder."""
    checkpoints = [] if folder is None else [Checkpoint(folder)]
    return fit(
        engine,
        IMAGES,
        show,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        callbacks=[Validate(VALIDATION), *others, *checkpoints],
        progress=False,
    )


def parameters(engine: EagerEngine) -> list[Tensor]:
    return [p.detach().clone() for p in [*engine.model.parameters(), *engine.guide.parameters()]]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


class Recorder(EagerEngine):
    """An engine that records its batches, and returns known numbers."""

    def __init__(self) -> None:
        engine = make_engine()
        super().__init__(engine.model, engine.guide, ELBO(warmup=3.0))
        self.batches: list[Tensor] = []
        self.weights: list[float] = []
        self.noise: list[float] = []

    def step(self, x: Tensor, observe: Observe) -> float:
        self.batches.append(x)
        self.weights.append(self.objective.kl_weight.item())
        return x.sum().item()

    def evaluate_loss(self, x: Tensor) -> float:
        self.noise.append(torch.rand(()).item())
        return -3.0 * len(x)


class Rates(Recorder):
    """A `Recorder` that records the learning rate of each step, too."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def step(self, x: Tensor, observe: Observe) -> float:
        self.rates.append(self.lr)
        return super().step(x, observe)
