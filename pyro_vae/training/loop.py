"""The training loop.

Every epoch draws its noise from its own random stream, made from the seed and the epoch's number,
and a checkpoint within an epoch holds where the stream is. A training that was interrupted and
resumed therefore draws the same numbers, and ends with the same parameters, as one that was not.
"""

import contextlib
import copy
import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae.bounds.batches import BAR
from pyro_vae.data import Rows
from pyro_vae.data.rows import batches as read_batches
from pyro_vae.errors import DivergenceError, InputError
from pyro_vae.programs import ranks
from pyro_vae.programs.random_streams import (
    preserve_rng_state,
    rng_state,
    set_rng_state,
    stream_seed,
)
from pyro_vae.training.callbacks import Callback, History, Training
from pyro_vae.training.divergence import explain
from pyro_vae.training.engine import Engine, Observe, unchanged
from pyro_vae.training.interruption import Place, signals_wait
from pyro_vae.training.resuming import callback_states
from pyro_vae.training.shared_steps import (
    check_batch_size,
    copy_buffers,
    own_part,
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
    progress: bool | None = True,
) -> History:
    """Train up to epoch number `epochs`, from the beginning or from a checkpoint.

    Args:
        engine: the engine that takes the steps.
        train: stored training examples, shape [N, *event].
        observe: a function that turns a batch of them into what the likelihood sees.
        epochs: the number of passes over the training examples. Those that were already done,
            before the training was interrupted, are included. With None only a callback ends the
            training, such as a `Budget`.
        batch_size: the number of examples in a step; the last step of an epoch may have fewer. An
            epoch that was begun before an interruption is finished with its own batch size.
        seed: the seed of the order of the examples, and of all noise in training.
        callbacks: what else is done; see `pyro_vae.training`. They run in the given order, which is
            also the order of their columns. Each epoch has its own random stream, which `start` and
            `after_epoch` do not disturb: see `Callback`.
        progress: whether to show a progress bar, and to say why training ends early. With None, the
            bar is shown on a terminal only.

    Returns:
        A row for each epoch: `epoch`, from 1; `train_loss`, the mean of the objective over
        examples, in nats; and what the callbacks add.

    If SIGINT (Ctrl-C) comes, or SIGTERM where it has a handler, the step is finished, the handler
    is called, and if it raises a `KeyboardInterrupt`, a `Checkpoint` saves the training. At the
    second signal the handler is called at once.

    Raises:
        InputError: if a batch is larger than the data, if the engine and the callbacks do not go
            together, or if a checkpoint cannot be used.
        DivergenceError: if the loss is not finite, or a matrix cannot be factorised. The last
            checkpoint stays as it was.
    """
    if not 1 <= batch_size <= len(train):
        raise InputError(
            f"a batch of {batch_size} cannot be drawn from {len(train)} training examples: "
            f"choose 1 to {len(train)}",
            "batch_size",
        )
    check_batch_size(batch_size)
    check(engine, callbacks)
    progress = progress if ranks.is_first() else False
    training = Training(engine, train, observe, epochs, batch_size, seed, callbacks)
    with preserve_rng_state(train), _quiet():
        # One-time set-up must not consume an epoch's random numbers, so it is done here. Some
        # programs make their parameters now, for which a checkpoint has values.
        engine.evaluate_loss(observe(train[:batch_size]))
    ranks.wait_for_all()  # the first process has written what it has to write before
    for callback in callbacks:
        callback.resume(training)
    training.epoch = len(training.history)
    start_alike(engine, training.epoch, training.place.steps if training.place else 0)
    begun = training.place.examples if training.place else 0
    bar = tqdm(
        total=None if epochs is None else max(epochs, training.epoch) * len(train),
        initial=training.epoch * len(train) + begun,
        unit="example",
        unit_scale=True,
        bar_format=None if epochs is None else BAR,
        disable=None if progress is None else not progress,
        mininterval=0.1 if sys.stderr.isatty() else 10,
    )
    with bar, preserve_rng_state(train), _quiet():
        for callback in callbacks:
            callback.start(training)
        # An epoch that was begun is finished, whatever the limits are now.
        while training.place or (
            training.end_reason is None and (epochs is None or training.epoch < epochs)
        ):
            try:
                _run_epoch(training, bar)
            except KeyboardInterrupt:
                _pause(training)
                raise
            except torch.linalg.LinAlgError as error:
                why = "a matrix of the programs has no Cholesky factor or no inverse"
                where = f"epoch {training.epoch}"
                raise training.diverged("loss", math.nan, where, why) from error
        if training.end_reason and progress is not False:
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
    """Pass once over the training examples, run the callbacks, and add a row to the history.

    If training was interrupted in the epoch, this is the rest of it.
    """
    training.epoch += 1
    of_all = "" if training.epochs is None else f"/{training.epochs}"
    bar.set_description(f"epoch {training.epoch}{of_all}", refresh=False)
    torch.manual_seed(stream_seed(training.seed, training.epoch))
    training.progress = max(training.progress, _progress(training))
    is_over = False
    while not is_over:
        with signals_wait() as came:
            is_over = _take_steps(training, bar, came)
        if not is_over:
            _pause(training)
    copy_buffers(training.engine)
    assert training.place is not None
    training.pause = False  # the end of the epoch is saved anyway
    place, states = training.place, callback_states(training.callbacks)
    place.callbacks = copy.deepcopy(states)  # callbacks change them after the epoch
    row = {"epoch": training.epoch, "train_loss": place.loss / place.examples}
    training.history.append(row)
    for callback in training.callbacks:
        with preserve_rng_state(training.train):
            callback.after_epoch(training, row)
    training.place = None
    if "validation_bound" in row:
        bound = f"{row['validation_bound']:.2f}"
        bar.set_postfix_str(f"validation bound {bound} nats", refresh=False)


def _take_steps(training: Training, bar: tqdm, came: Sequence[int]) -> bool:
    """Take the steps of the epoch that remain, and stop earlier if training is to pause.

    Args:
        training: where the training is. Its place is whole when this returns.
        bar: the progress bar.
        came: the signals that wait for the steps to end; see `signals_wait`.

    Returns:
        Whether the epoch is over.
    """
    engine, train, epoch = training.engine, training.train, training.epoch
    if training.place:
        training.place.is_whole = False
    with contextlib.ExitStack() as contexts:
        for callback in training.callbacks:
            contexts.enter_context(callback.around_epoch(training))
        if training.place is None:
            training.place = Place(training.batch_size, rng_state(train))
        place = training.place
        asked, training.batch_size = training.batch_size, place.batch_size
        set_rng_state(train, place.order)
        batches = torch.randperm(len(train), device=train.device).split(place.batch_size)
        if place.noise is not None:
            set_rng_state(train, place.noise)
        shares = [ranks.share_of(len(batch)) for batch in batches]
        own = [own_part(*each) for each in zip(batches, shares, strict=True)]
        is_over = len(batches) <= place.steps or (place.steps > 0 and _is_ended(training))
        rest = () if is_over else own[place.steps :]
        with contextlib.closing(read_batches(train, rest)) as examples:
            for batch in examples:
                training.step += 1
                noise = rng_state(train)
                share_of_epoch = place.steps / len(batches)
                # A budget may have brought it further, after the last step.
                training.progress = max(training.progress, _progress(training, share_of_epoch))
                engine.objective.anneal(epoch - 1 + share_of_epoch, training.progress)
                with contextlib.ExitStack() as around:
                    for callback in training.callbacks:
                        around.enter_context(callback.around_step(training))
                    loss = step_on(engine, batch, training.observe, shares[place.steps])
                size = len(batches[place.steps])
                place.steps += 1
                if not math.isfinite(loss):
                    set_rng_state(train, noise)
                    raise _diverged(training, loss, batch, own[place.steps - 1].cpu())
                place.loss += loss
                place.examples += size
                bar.update(size)
                is_over = place.steps == len(batches) or _is_ended(training)
                # Of several processes, the first one decides: the others wait for it in a step.
                if is_over or training.pause or (came and ranks.is_first()):
                    break
        place.noise = rng_state(train)
        training.batch_size = asked
    place.is_whole = True
    return is_over


def _diverged(training: Training, loss: float, batch: Tensor, numbers: Tensor) -> DivergenceError:
    """Return the error to raise for the loss of the last step, which is not finite.

    Args:
        training: where the training is; the random state is that from before the step.
        loss: the loss.
        batch: the stored examples of the step, in this process.
        numbers: their numbers in the training set.
    """
    engine, place = training.engine, training.place
    assert place is not None
    why = explain(engine.model, engine.guide, training.observe(batch), numbers, "training")
    why = next(filter(None, ranks.gathered(why)), "")  # each process has looked at its own examples
    return training.diverged("loss", loss, f"step {place.steps} of epoch {training.epoch}", why)


def _is_ended(training: Training) -> bool:
    return training.end_reason is not None


def _pause(training: Training) -> None:
    """Let the callbacks save where training is in the epoch, unless that is within a step."""
    training.pause = False
    if training.place and training.place.is_whole:
        del training.history[training.epoch - 1 :]  # the row of an epoch that is not finished
        for callback in training.callbacks:
            callback.during_epoch(training)


def _progress(training: Training, share_of_epoch: float = 0.0) -> float:
    """Return the share of the epochs that is done; 0 if their number is not limited."""
    if training.epochs is None:
        return 0.0
    return (training.epoch - 1 + share_of_epoch) / training.epochs
