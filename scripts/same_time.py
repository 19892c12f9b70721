"""The same time, data and architecture for three trainers: Pythae's, a plain Pyro loop, and ours.

    python scripts/same_time.py pythae --minutes 10 --data_root DIR

Each trains 784-200-200-50 with tanh, N(0, I) and Bernoulli pixels on dynamically binarised MNIST,
by its own recipe:

- `pythae`: `BaseTrainer`, with Adam, a learning rate of 1e-3 and batches of 200 as in its README.
  The epoch with the best validation loss is kept.
- `pyro`: the loop of Pyro's VAE tutorial: SVI, Trace_ELBO, Adam with 1e-3, batches of 256. The last
  epoch is kept.
- `ours`: `pyro-vae train` with the options of scripts/recipes/records/normal.yaml.

All are measured by the same code, on the same test images: the first 1,000 of a random order.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contenders
import other_libraries
import pyro
import pyro.distributions as dist
import record
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyro_vae import data
from pyro_vae.runs import Run, commands, malloc

RECIPE = Path(__file__).parent / "recipes" / "records" / "normal.yaml"
Programs = tuple[Callable[..., Any], Callable[..., Any]]  # a model and its guide


class TimeIsOver(Exception):
    """Ends a trainer that can only count epochs."""


class Drawn(Dataset):
    """Images whose pixels are drawn again each time they are read."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        from pythae.data.datasets import DatasetOutput

        return DatasetOutput(data=contenders.drawn(self.images[index]))


def pythae(train: Tensor, validation: Tensor, seconds: float, data_root: str) -> Programs:
    """Train by Pythae's trainer until the time is over."""
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    end = time.monotonic() + seconds

    class Clock(TrainingCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            if time.monotonic() > end:
                raise TimeIsOver

    trainer = BaseTrainer(
        other_libraries.pythae_vae(),
        Drawn(train),
        Drawn(validation),
        training_config=BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            num_epochs=100_000,
            learning_rate=1e-3,
            per_device_train_batch_size=200,
            per_device_eval_batch_size=200,
            no_cuda=True,
        ),
        callbacks=[Clock()],
    )
    try:
        trainer.train()
    except TimeIsOver:
        vae = trainer._best_model.eval()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(vae.latent_dim), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=vae.decoder.body(z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc, log_variance = vae.encoder.body(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, (log_variance / 2).exp()).to_event(1))

    return model, guide


def plain_pyro(train: Tensor, validation: Tensor, seconds: float, data_root: str) -> Programs:
    """Train by a loop as in Pyro's VAE tutorial until the time is over."""
    vae = contenders.our_vae()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    loader = DataLoader(TensorDataset(train), batch_size=256, shuffle=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for (images,) in loader:
            svi.step(contenders.drawn(images))
    vae.eval()
    return vae.model, vae.guide


def ours(train: Tensor, validation: Tensor, seconds: float, data_root: str) -> Programs:
    """Train by `pyro-vae train` until the time is over."""
    folder = Path(tempfile.mkdtemp()) / "run"
    options = f"--config {RECIPE} --data_root {data_root} --out {folder} --budget {seconds}s"
    options += " --latent_dim 50 --num_samples 2 --num_examples 2"
    for network in ("posterior.encoder", "likelihood.decoder"):
        options += f" --{network}.widths [200,200] --{network}.activation Tanh"
        options += f" --{network}.gated false"
    commands.train(options.split())
    vae = Run.open(folder).vae
    return vae.model, vae.guide


def main() -> None:
    """Train, measure, and write a record for RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trainer", choices=TRAINERS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--data_root", default="data")
    parser.add_argument("--annealed", type=int, default=500, help="the number of images for AIS")
    arguments = parser.parse_args()
    malloc.keep_freed()
    torch.manual_seed(0)
    loaded = data.load("mnist", arguments.data_root)
    assert isinstance(loaded.train, Tensor)
    shape = (28, 28) if arguments.trainer == "ours" else (784,)
    parts = loaded.train, loaded.validation, loaded.test
    train, validation, test = (torch.as_tensor(part).reshape(-1, *shape) for part in parts)
    trainer, seconds = TRAINERS[arguments.trainer], 60 * arguments.minutes
    started = time.monotonic()
    model, guide = trainer(train, validation, seconds, arguments.data_root)
    seconds = time.monotonic() - started
    torch.manual_seed(0)
    examples = {
        "training": contenders.show(train[torch.randperm(len(train))[: record.SUBSET]]),
        "validation": contenders.show(validation[: record.SUBSET]),
        "test": contenders.show(test[torch.randperm(len(test))]),
    }
    found = record.bounds_of(model, guide, examples, arguments.annealed, seed=0)
    record.write(f"same_time_{arguments.trainer}", found, 0, seconds, [])


TRAINERS = {"pythae": pythae, "pyro": plain_pyro, "ours": ours}

if __name__ == "__main__":
    main()
