"""How a run is trained: its engine and its callbacks, from its options."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import Namespace
from torch import Tensor

from pyro_vae import training
from pyro_vae.runs import bounded_yaml, config
from pyro_vae.runs.devices import speed_of_bfloat16
from pyro_vae.runs.options import Options
from pyro_vae.runs.parts_of_vae import abstract_refused
from pyro_vae.training import CompiledEngine, EagerEngine, Engine
from pyro_vae.training.stopping import seconds_of
from pyro_vae.vae import VAE

EngineName = Literal["compiled", "eager"]

# The number of training steps, and the seconds, for which compiling saves time: it takes about
# 20 s, and each step is then about 3 ms faster.
COMPILING_PAYS = 7000
COMPILING_PAYS_SECONDS = 60

# How many times as fast products of bfloat16 have to be: a step also converts to it.
BFLOAT16_PAYS = 1.2

# The least number of steps, and of seconds, of a training that has a warm-up by default, and the
# share of it.
WARMUP_PAYS = 500
WARMUP_PAYS_SECONDS = 30
WARMUP_SHARE = 0.25
CHANGED = 0.05  # the share of a bound by which it is worse after few steps that went wild


def choose_batch_size(options: Options, namespace: Namespace, num_examples: int) -> list[str]:
    """Choose the batch size, unless the user has: all training examples, if there are few.

    Args:
        options: the options of the run; their batch size is replaced.
        namespace: the same, as they are saved.
        num_examples: the number of training examples.

    Returns:
        What the user is told of it.
    """
    is_few = options.batch_size is None and options.examples_in_step > num_examples
    options.batch_size = num_examples if is_few else options.examples_in_step
    namespace.batch_size = options.batch_size
    return [f"Each step takes all {num_examples} training examples (batch_size)."] * is_few


def choose_engine(options: Options, num_examples: int, device: torch.device) -> EngineName:
    """Return the engine to train with: for `auto`, the one that is expected to be faster.

    Args:
        options: the options of the run.
        num_examples: the number of training examples.
        device: the device of the model.
    """
    if options.engine != "auto":
        return options.engine
    steps = num_steps(options, num_examples)
    seconds = seconds_of(options.budget) if options.budget is not None else math.inf
    is_long = steps >= COMPILING_PAYS and seconds >= COMPILING_PAYS_SECONDS
    return "compiled" if device.type == "cpu" and is_long else "eager"


def choose_precision(
    options: Options, engine: EngineName, device: torch.device
) -> training.Precision:
    """Return the precision to train with.

    For `auto` that is bfloat16 if the engine is compiled, on a processor for which it is faster.
    """
    if options.precision != "auto":
        return options.precision
    pays = engine == "compiled" and device.type == "cpu" and speed_of_bfloat16() > BFLOAT16_PAYS
    return "bfloat16" if pays else "float32"


def slow_precision(precision: training.Precision, device: torch.device) -> list[str]:
    """Return what the user is told if the precision makes products slower."""
    if precision == "float32" or device.type != "cpu" or (speed := speed_of_bfloat16()) > 1:
        return []
    return [
        f"On this processor, products of bfloat16 take {1 / speed:.1f} times as long as those of "
        "float32: --precision float32 is faster."
    ]


def choose_warmup(options: Options, namespace: Namespace, num_examples: int, vae: VAE) -> list[str]:
    """Choose the warm-up of the KL for a new run, unless the user has chosen its weight.

    At full weight from the start, training switches units and layers off before the decoder uses
    them (Bowman et al. 2016; Sonderby et al. 2016). A short training of a code in one layer has no
    warm-up: there would be no time to recover from it.

    A number of epochs is chosen if it is known: a share would begin again if training is resumed
    with more epochs.

    Args:
        options: the options of the run; the objective is replaced.
        namespace: the same, as they are saved; `warmup` and `warmup_share` of the objective are
            replaced.
        num_examples: the number of training examples.
        vae: the VAE.

    Returns:
        What the user is told of it.
    """
    arguments = namespace.objective.get("init_args", {})
    is_chosen = any(arguments.get(name, 0) is not None for name in ("warmup", "warmup_share"))
    if is_chosen or namespace.get("resume"):
        return []
    seconds = seconds_of(options.budget) if options.budget is not None else math.inf
    is_short = (
        num_steps(options, num_examples) < WARMUP_PAYS or seconds < WARMUP_PAYS_SECONDS
    ) and not vae.posterior.upper_dims
    has_its_own = arguments.get("start") or arguments.get("cycles") != 1 or options.aggressive
    # The parameters of `init_from` have been trained.
    if is_short or has_its_own or not arguments.get("beta") or options.init_from:
        arguments.warmup_share = 0.0  # what `--config` of this run repeats, however long it is
        return []
    if options.budget is None and options.last_epoch is not None:
        arguments.warmup = WARMUP_SHARE * options.last_epoch
    else:
        arguments.warmup_share = WARMUP_SHARE
    options.objective = config.instantiate(namespace).objective
    return [
        f"The KL's weight rises over the first {100 * WARMUP_SHARE:.0f} % of training: "
        "--objective.warmup 0 turns that off."
    ]


def make_engine(
    name: EngineName, precision: training.Precision, vae: VAE, options: Options, may_fall_back: bool
) -> Engine:
    """Make an engine. If it may fall back, it is eager where the programs cannot be compiled."""
    make: Callable[..., Engine] = EagerEngine
    more = {}
    if name == "compiled":
        make, more = CompiledEngine, {"fall_back": may_fall_back}
    with abstract_refused():
        objective, optimizer = options.objective(), options.optimizer()
    parts = vae.model, vae.guide, objective, options.lr, precision
    return make(*parts, optimizer=optimizer, clip_norm=options.clip_norm, **more)


def make_callbacks(
    options: Options, validation: Tensor, folder: Path, about: str = ""
) -> list[training.Callback]:
    """Return what happens in training beside the steps, in its order.

    Args:
        options: the options of the run.
        validation: validation examples as the likelihood sees them.
        folder: the run's folder.
        about: a text that checkpoints hold; see `training.Checkpoint`.
    """
    callbacks: list[training.Callback] = []
    if options.budget is not None:
        callbacks.append(training.Budget(seconds_of(options.budget)))
    with abstract_refused():
        schedule = options.schedule(options.lr)
        averaging = [options.average()] if options.average else []
    callbacks.append(schedule)
    if options.batch_doublings:
        callbacks.append(training.BatchDoubling(options.batch_doublings))
    callbacks += averaging
    every, by = options.validate_every, options.validate_by
    callbacks.append(training.Validate(validation, every, by, before=True))
    if options.aggressive:
        callbacks.append(training.GuideFirst(validation, options.aggressive))
    if options.diagnose_every:
        callbacks.append(training.Diagnose(validation, options.diagnose_every))
    if options.patience:
        callbacks.append(training.EarlyStopping(options.patience))
    if options.log == "tensorboard":
        callbacks.append(training.TensorBoard(folder))
    if options.log == "wandb":
        callbacks.append(training.WandB(folder, bounded_yaml.load(about)))
    return [*callbacks, training.Checkpoint(folder, options.checkpoint_minutes, about)]


def describe_length(options: Options, num_examples: int) -> str:
    """Return in words how long training may be."""
    limits = [] if options.last_epoch is None else [f"{num_steps(options, num_examples)} steps"]
    return ", at most ".join([*limits, *([] if options.budget is None else [options.budget])])


def warning_of(bound: float | None, before: float | None, steps: float) -> str:
    """Return the warning of a training that ends with a worse model than it began with.

    A few steps may change nothing that can be told: then the model has to be worse by a share.

    Args:
        bound: the best validation bound, in nats; None if it is unknown.
        before: that before training.
        steps: the number of steps that were planned.

    Returns:
        What to do about it; "" if the model is better.
    """
    if bound is None or before is None:
        return ""
    margin = CHANGED * abs(before) if steps < WARMUP_PAYS else 0.0
    if bound >= before - margin:
        return ""
    return (
        f"Training went wild: the best validation bound, {bound:.6g} nats, is worse than "
        f"before training, {before:.6g} nats. Train again with a smaller learning rate."
    )


def num_steps(options: Options, num_examples: int) -> float:
    """Return the number of steps up to the last epoch, as if no other limit ended training."""
    epochs, first = options.last_epoch, options.examples_in_step
    if epochs is None:
        return math.inf
    if not options.batch_doublings:
        return epochs * math.ceil(num_examples / first)
    doubling = training.BatchDoubling(options.batch_doublings)
    return sum(
        math.ceil(num_examples / doubling.size(first, epoch / epochs, num_examples))
        for epoch in range(epochs)
    )
