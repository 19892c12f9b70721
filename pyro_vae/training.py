"""The training loop: epochs, validation, checkpoints.

Every epoch draws from a random stream of its own, made from the seed and the epoch's number. A run
that was killed and resumed therefore draws what it would have drawn, and ends where it would have.
"""

import csv
import io
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae import checkpoint
from pyro_vae.errors import DivergenceError, InputError
from pyro_vae.svi import EagerEngine, Observe, as_they_are

History = list[dict[str, Any]]


def fit(
    engine: EagerEngine,
    train: Tensor,
    validation: Tensor,
    observe: Observe = as_they_are,
    *,
    epochs: int,
    batch_size: int = 100,
    seed: int = 0,
    folder: Path | None = None,
    progress: bool = True,
) -> History:
    """Train for `epochs` epochs, or as many of them as are left to do.

    With a folder, each epoch leaves there `checkpoint.pt`, from which a later call with the same
    folder goes on, `metrics.csv`, and `best.pt`, the parameters with the best validation bound.

    Args:
        engine: takes the steps.
        train: stored images, shape [N, *event].
        validation: images as the likelihood sees them, shape [M, *event].
        observe: turns a batch of stored images into what the likelihood sees.
        epochs: the number of passes over the training images, those already done included.
        batch_size: the last batch of an epoch may be smaller.
        seed: of the order of the images, and of all noise in training.
        folder: an existing folder to keep checkpoints in.
        progress: whether to show a progress bar.

    Returns:
        A row for each epoch: `epoch`, from 1; `train_loss`, the objective; `validation_bound`, the
        bound on log p(x) that goes with it. Both are means over examples, in nats.

    Raises:
        InputError: if a batch is larger than the data, or the checkpoint cannot be read.
        DivergenceError: if the loss is not finite; the last checkpoint stays as it was.
    """
    if not 1 <= batch_size <= len(train):
        raise InputError(
            f"a batch of {batch_size} cannot be drawn from {len(train)} training images"
        )
    if len(validation) == 0:
        raise InputError("there are no validation images")
    history: History = []
    if folder is not None and (folder / "checkpoint.pt").exists():
        history = resume(engine, folder)
    bar = tqdm(
        total=max(epochs, len(history)) * len(train),
        initial=len(history) * len(train),
        unit="image",
        unit_scale=True,
        disable=not progress,
        mininterval=0.1 if sys.stderr.isatty() else 10,
    )
    devices = [train.device] if train.is_cuda else []
    with bar, torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered (NaN|inf)")  # said better below
        engine.evaluate_loss(validation[:1])  # what is done once draws no noise of an epoch
        for epoch in range(len(history) + 1, epochs + 1):
            bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)
            torch.manual_seed(_stream(seed, epoch))
            loss = _train_epoch(engine, train, observe, epoch, batch_size, bar, folder)
            torch.manual_seed(_stream(seed, 0))  # the same noise each time: epochs are compared
            bound = -sum(engine.evaluate_loss(x) for x in validation.split(1000)) / len(validation)
            if not math.isfinite(bound):
                raise DivergenceError(_diverged("validation bound", bound, epoch, None, folder))
            history.append({"epoch": epoch, "train_loss": loss, "validation_bound": bound})
            bar.set_postfix_str(f"validation bound {bound:.2f} nats", refresh=False)
            if folder is not None:
                _save(engine, folder, history)
    return history


def resume(engine: EagerEngine, folder: Path) -> History:
    """Bring an engine to where the checkpoint in `folder` left it, and return the history."""
    path = folder / "checkpoint.pt"
    state = checkpoint.load(path)
    try:
        engine.load_state_dict(state["engine"])
        return list(state["history"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not fit the model that config.yaml describes") from error


def _train_epoch(
    engine: EagerEngine,
    train: Tensor,
    observe: Observe,
    epoch: int,
    batch_size: int,
    bar: tqdm,
    folder: Path | None,
) -> float:
    """Pass once over the data, and return the mean loss per example."""
    total = 0.0
    batches = torch.randperm(len(train), device=train.device).split(batch_size)
    for step, batch in enumerate(batches, start=1):
        engine.objective.anneal(epoch - 1 + (step - 1) / len(batches))
        loss = engine.step(train[batch], observe)
        if not math.isfinite(loss):
            raise DivergenceError(_diverged("loss", loss, epoch, step, folder))
        total += loss
        bar.update(len(batch))
    return total / len(train)


def _save(engine: EagerEngine, folder: Path, history: History) -> None:
    """Leave the state of training in `folder`, the checkpoint last: it says what is done."""
    state = engine.state_dict()
    if history[-1]["validation_bound"] == max(row["validation_bound"] for row in history):
        best = {"model": state["model"], "guide": state["guide"], "epoch": len(history)}
        checkpoint.save(folder / "best.pt", best)
    table = io.StringIO()
    writer = csv.DictWriter(table, history[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    checkpoint.write(folder / "metrics.csv", table.getvalue().encode())
    checkpoint.save(folder / "checkpoint.pt", {"engine": state, "history": history})


def _stream(seed: int, epoch: int) -> int:
    """Seed of the random stream of an epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def _diverged(what: str, value: float, epoch: int, step: int | None, folder: Path | None) -> str:
    where = f"epoch {epoch}" if step is None else f"step {step} of epoch {epoch}"
    if folder is None:
        kept = "no checkpoint was kept"
    elif epoch == 1:
        kept = "there is no checkpoint from before it"
    else:
        kept = f"the last good checkpoint, of epoch {epoch - 1}, is {folder / 'checkpoint.pt'}"
    return f"the {what} became {value} in {where}; {kept}: try a smaller --lr"
