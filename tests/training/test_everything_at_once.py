"""With every ingredient of training on at once, a training that is stopped ends as it would have.

It is killed in the middle of an epoch, in a process of its own; or it is interrupted by a signal,
between any two steps, or while an epoch is validated.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
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


class Interrupt(Callback):
    """Interrupts training as Ctrl-C does, in a step, or after an epoch where a step is given twice.

    Args:
        moments: the numbers of the steps.
    """

    def __init__(self, moments: Sequence[int]) -> None:
        self.moments = moments

    @contextlib.contextmanager
    def around_step(self, training: Training) -> Iterator[None]:
        if self.moments.count(training.step) == 1:
            signal.raise_signal(signal.SIGINT)
        yield

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        if self.moments.count(training.step) == 2:
            signal.raise_signal(signal.SIGINT)


def trained(
    kind: type[EagerEngine],
    folder: Path,
    warmup: dict[str, float],
    *others: Callback,
    minutes: float = 10.0,
) -> History:
    """Train with everything, and with other callbacks."""
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
            *others,
            Checkpoint(folder, minutes),
        ],
        progress=False,
    )


def content(path: Path) -> list[Any]:
    """Return all that a file holds, but for the time that was used, and what stops training."""
    state = checkpoint.load(path)
    if "callbacks" in state:
        assert state["callbacks"].pop("Budget")["used"] > 0
        for mine in ("Kill", "Interrupt"):
            state["callbacks"].pop(mine, None)
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
        target=trained, args=(kind, killed, warmup, Kill(epoch))
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(checkpoint.load(killed / "checkpoint.pt")["history"]) == epoch - 1
    torch.rand(17)
    assert trained(kind, killed, warmup) == trained(kind, whole, warmup)
    assert_same(whole, killed)


def assert_same(whole: Path, other: Path) -> None:
    for name in ("checkpoint.pt", "best.pt"):
        for one, two in zip(content(whole / name), content(other / name), strict=True):
            assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    assert (whole / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    assert not list(other.rglob(".*"))


@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        # An epoch has 5 steps, and from the fourth on 3: the last one is smaller, and not compiled.
        (EagerEngine, [1, 2, 5, 5, 7, 10, 12, 15, 15, 16, 18, 18, 19, 21, 24, 24]),
        (CompiledEngine, [4, 17]),
    ],
)
def test_interrupted_anywhere_and_resumed_bit_for_bit(
    kind: type[EagerEngine], moments: list[int], tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    expected = trained(kind, whole, {"warmup": 2.5})
    for moment in dict.fromkeys(moments):
        with pytest.raises(KeyboardInterrupt):
            trained(kind, parts, {"warmup": 2.5}, Interrupt([moment] * moments.count(moment)))
        state = checkpoint.load(parts / "checkpoint.pt")
        assert state["callbacks"]["Checkpoint"]["steps"] == moment
        in_epoch = (moment - 1) % 5 + 1 if moment <= 15 else (moment - 16) % 3 + 1
        assert state["place"]["steps"] == in_epoch
        torch.rand(17)
    assert trained(kind, parts, {"warmup": 2.5}) == expected
    assert_same(whole, parts)


def test_a_checkpoint_after_every_step_changes_nothing(tmp_path: Path) -> None:
    whole, often = tmp_path / "whole", tmp_path / "often"
    whole.mkdir(), often.mkdir()
    assert trained(EagerEngine, often, {}, minutes=1e-9) == trained(EagerEngine, whole, {})
    assert_same(whole, often)
    before = checkpoint.load(often / "previous/checkpoint.pt")  # the one before the last step
    assert before["place"]["steps"] == 2 and "place" not in checkpoint.load(often / "checkpoint.pt")


def test_the_second_signal_ends_at_once_and_saves_nothing(tmp_path: Path) -> None:
    """The step is not finished then, and a checkpoint could not be resumed from."""

    class Impatient(Callback):
        @contextlib.contextmanager
        def around_step(self, training: Training) -> Iterator[None]:
            yield
            if training.step == 7:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(EagerEngine, tmp_path, {}, Impatient())
    assert checkpoint.load(tmp_path / "checkpoint.pt")["callbacks"]["Checkpoint"]["steps"] == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
