"""With every ingredient of training on at once, a training that is killed ends as it would have.

A process of its own trains and kills itself in the middle of an epoch.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import IMAGES, VALIDATION, show
from torch.utils._pytree import tree_flatten

from pyro_vae import VAE, checkpoint, likelihoods, posteriors, priors
from pyro_vae.networks import MLP, Linear
from pyro_vae.objectives import ELBO
from pyro_vae.training import (
    EMA,
    AdamW,
    BatchDoubling,
    Budget,
    Callback,
    Checkpoint,
    CompiledEngine,
    Cosine,
    Diagnose,
    EagerEngine,
    EarlyStopping,
    GuideFirst,
    History,
    Training,
    Validate,
    fit,
)

EPOCHS = 6  # the batch size is doubled before the fourth


class Kill(Callback):
    """Kills the process in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.steps = 0

    @contextlib.contextmanager
    def around_step(self, training: Training) -> Iterator[None]:
        yield
        self.steps += training.epoch == self.epoch
        if self.steps == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def trained(
    kind: type[EagerEngine], folder: Path, warmup: dict[str, float], kill_in: int | None = None
) -> History:
    """Train with everything; killed in an epoch if there is a number."""
    torch.set_num_threads(1)
    torch.manual_seed(2)
    encoder = partial(MLP, widths=[4], activation="Identity", dropout=0.2, noise=0.1)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(2, [4, 3], Linear),
        posteriors.Normal([4, 3], 2, encoder),
    )
    optimizer = AdamW(weight_decay=0.1)
    objective = ELBO(**warmup)
    engine = kind(vae.model, vae.guide, objective, 1e-2, optimizer=optimizer, clip_norm=30.0)
    # Each set of trained parameters is compiled for itself: the compiled engine does without it.
    guide_first = [] if kind is CompiledEngine else [GuideFirst(VALIDATION, 3)]
    return fit(
        engine,
        IMAGES,
        show,
        epochs=EPOCHS,
        batch_size=20,
        callbacks=[
            Budget(1e30),  # the share of it that is used does not move the schedules
            Cosine(1e-2, warmup=25),
            BatchDoubling(1),
            EMA(0.9),
            Validate(VALIDATION, every=2, by="IWAE_5"),
            *guide_first,
            Diagnose(VALIDATION, every=2),
            EarlyStopping(5),
            *([] if kill_in is None else [Kill(kill_in)]),
            Checkpoint(folder),
        ],
        progress=False,
    )


def content(path: Path) -> list[Any]:
    """Return all that a file holds, but for the time that was used, and for the state of `Kill`."""
    state = checkpoint.load(path)
    if "callbacks" in state:
        assert state["callbacks"].pop("Budget")["used"] > 0
        state["callbacks"].pop("Kill", None)
    leaves, structure = tree_flatten(state)
    return [str(structure), *leaves]


@pytest.mark.parametrize(
    ("kind", "epoch", "warmup"),
    [
        (EagerEngine, 3, {"warmup": 2.5}),
        (EagerEngine, 5, {"warmup_share": 0.3, "cycles": 2}),
        (CompiledEngine, 5, {"warmup_share": 0.9}),
    ],
)
def test_killed_and_resumed_bit_for_bit(
    kind: type[EagerEngine], epoch: int, warmup: dict[str, float], tmp_path: Path
) -> None:
    """Before the batch size is doubled, and after that; in the KL's warm-up, too."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    process = multiprocessing.get_context("spawn").Process(
        target=trained, args=(kind, killed, warmup, epoch)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(checkpoint.load(killed / "checkpoint.pt")["history"]) == epoch - 1
    torch.rand(17)
    assert trained(kind, killed, warmup) == trained(kind, whole, warmup)
    for name in ("checkpoint.pt", "best.pt"):
        for one, other in zip(content(whole / name), content(killed / name), strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    assert (whole / "metrics.csv").read_text() == (killed / "metrics.csv").read_text()
