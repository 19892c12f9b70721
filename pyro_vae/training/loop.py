"""The training loop.

Every epoch draws its noise from its own random stream, made from the seed and the epoch's number.
A training that was interrupted and resumed therefore draws the same numbers, and ends with the same
parameters, as one that was not.
"""

import contextlib
import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae.data import Rows
from pyro_vae.data.rows import batches as read_batches
from pyro_vae.errors import InputError
from pyro_vae.programs import ranks
from pyro_vae.programs.random_streams import preserve_rng_state, stream_seed
from pyro_vae.training.callbacks import Callback, History, Training
from pyro_vae.training.engine import Engine, Observe, unchanged
from pyro_vae.training.shared_steps import (
    check_batch_size,
    copy_buffers,
    own,
    start_alike,
    step_on,
)


def fit(
    engine: Engine,
    train: Tensor | Rows,
    observe: Observe = unchanged,
    *,
    epochs: int | None,
    batch_size: int = 100,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> History:
    """Train up to epoch number `epochs`, from the beginning or from a checkpoint.

    Args:
        engine: the engine that takes the steps.
        train: stored training examples, shape [N, *event].
        observe: a function that turns a batch of them into what the likelihood sees.
        epochs: the number of passes over the training examples. Those that were already done,
            before the training was interrupted, are included. With None only a callback ends the
            training, such as a `Budget`.
        batch_size: the number of examples in a step; the last step of an epoch may have fewer.
        seed: the seed of the order of the examples, and of all noise in training.
        callbacks: what else is done; see `pyro_vae.training`. They run in the given order, which is
            also the order of their columns. Each epoch has its own random stream, which `start` and
            `after_epoch` do not disturb: see `Callback`.
        progress: whether to show a progress bar.

    Returns:
        A row for each epoch: `epoch`, from 1; `train_loss`, the mean of the objective over
        examples, in nats; and what the callbacks add.

    Raises:
        InputError: if a batch is larger than the data, if the engine and the callbacks do not go
            together, or if a checkpoint cannot be used.
        DivergenceError: if the loss is not finite. The last checkpoint stays as it was.
    """
    if not 1 <= batch_size <= len(train):
        raise InputError(
            f"a batch of {batch_size} cannot be drawn from {len(train)} training examples",
            "batch_size",
        )
    check_batch_size(batch_size)
    check(engine, callbacks)
    progress = progress and ranks.is_first()
    training = Training(engine, train, observe, epochs, batch_size, seed, callbacks)
    with preserve_rng_state(train), _quiet():
        # One-time set-up must not consume an epoch's random numbers, so it is done here. Some
        # programs make their parameters now, for which a checkpoint has values.
        engine.evaluate_loss(observe(train[:batch_size]))
    ranks.wait_for_all()  # the first process has written what it has to write before
    for callback in callbacks:
        callback.resume(training)
    training.epoch = len(training.history)
    start_alike(engine, training.epoch)
    bar = tqdm(
        total=None if epochs is None else max(epochs, training.epoch) * len(train),
        initial=training.epoch * len(train),
        unit="example",
        unit_scale=True,
        disable=not progress,
        mininterval=0.1 if sys.stderr.isatty() else 10,
    )
    with bar, preserve_rng_state(train), _quiet():
        for callback in callbacks:
            callback.start(training)
        while training.end_reason is None and (epochs is None or training.epoch < epochs):
            _run_epoch(training, bar)
        if training.end_reason and progress:
            bar.write(f"training ends: {training.end_reason}", file=sys.stderr)
    return training.history


def check(engine: Engine, callbacks: Sequence[Callback]) -> None:
    """Refuse an engine and callbacks that do not go together, before anything is trained.

    Raises:
        InputError: if a callback refuses the engine, or two callbacks are of classes with the same
            name, by which a checkpoint tells their states apart.
    """
    names = Counter(type(callback).__name__ for callback in callbacks)
    for name, count in names.items():
        if count > 1:
            raise InputError(
                f"there are {count} callbacks of the class {name}, and a checkpoint could not tell "
                "them apart: give one of them another class"
            )
    for callback in callbacks:
        callback.check(engine)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Pyro's warnings of NaN: a DivergenceError says more."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered (NaN|inf)")
        yield


def _run_epoch(training: Training, bar: tqdm) -> None:
    """Pass once over the training examples, run the callbacks, and add a row to the history."""
    training.epoch += 1
    of_all = "" if training.epochs is None else f"/{training.epochs}"
    bar.set_description(f"epoch {training.epoch}{of_all}", refresh=False)
    torch.manual_seed(stream_seed(training.seed, training.epoch))
    training.progress = max(training.progress, _progress(training))
    with contextlib.ExitStack() as contexts:
        for callback in training.callbacks:
            contexts.enter_context(callback.around_epoch(training))
        loss = _pass_over_data(training, bar)
    copy_buffers(training.engine)
    row = {"epoch": training.epoch, "train_loss": loss}
    training.history.append(row)
    for callback in training.callbacks:
        with preserve_rng_state(training.train):
            callback.after_epoch(training, row)
    if "validation_bound" in row:
        bound = f"{row['validation_bound']:.2f}"
        bar.set_postfix_str(f"validation bound {bound} nats", refresh=False)


def _pass_over_data(training: Training, bar: tqdm) -> float:
    """Take a step on each batch until training ends, and return the mean loss per example."""
    engine, train, epoch = training.engine, training.train, training.epoch
    total, seen = 0.0, 0
    batches = torch.randperm(len(train), device=train.device).split(training.batch_size)
    shares = [ranks.share_of(len(batch)) for batch in batches]
    places = [own(batch, share) for batch, share in zip(batches, shares, strict=True)]
    with contextlib.closing(read_batches(train, places)) as examples:
        for number, batch in enumerate(examples):
            training.step += 1
            share_of_epoch = number / len(batches)
            # A budget may have brought it further, after the last step.
            training.progress = max(training.progress, _progress(training, share_of_epoch))
            engine.objective.anneal(epoch - 1 + share_of_epoch, training.progress)
            with contextlib.ExitStack() as contexts:
                for callback in training.callbacks:
                    contexts.enter_context(callback.around_step(training))
                loss = step_on(engine, batch, training.observe, shares[number])
            if not math.isfinite(loss):
                raise training.diverged("loss", loss, f"step {number + 1} of epoch {epoch}")
            total += loss
            seen += len(batches[number])
            bar.update(len(batches[number]))
            if training.end_reason is not None:
                break
    return total / seen


def _progress(training: Training, share_of_epoch: float = 0.0) -> float:
    """Return the share of the epochs that is done; 0 if their number is not limited."""
    if training.epochs is None:
        return 0.0
    return (training.epoch - 1 + share_of_epoch) / training.epochs
