"""The training loop: epochs, validation, checkpoints.

Every epoch draws from a random stream of its own, made from the seed and the epoch's number. A run
that was killed and resumed therefore draws what it would have drawn, and ends where it would have.
"""

import contextlib
import csv
import io
import math
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyro_vae import checkpoint, diagnostics
from pyro_vae.errors import DivergenceError, InputError
from pyro_vae.programs.random_streams import stream_seed
from pyro_vae.training.engine import EagerEngine, Observe, as_they_are

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
    diagnose_every: int = 0,
    aggressive: int = 0,
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
        diagnose_every: after how many epochs, each time, the latent code is diagnosed on validation
            images; 0 for never.
        aggressive: how many steps the guide takes alone, at most, before each step of the model
            (He et al. 2019); 0 for none. It ends once the mutual information of x and z, looked at
            every 50 steps of the model, has ceased to grow.

    Returns:
        A row for each epoch: `epoch`, from 1; `train_loss`, the objective; `validation_bound`, the
        bound on log p(x) that goes with it, both means over examples, in nats. Where the code was
        diagnosed, also `kl` and `mutual_information`, in nats, and `active_units`; with aggressive
        training, `guide_steps`, those that the guide took alone, `lagging`, whether it is still
        held to lag behind, and `led_to`, the mutual information when last looked at, in nats.

    Raises:
        InputError: if a batch is larger than the data, there are too few validation images, the
            objective learns and the guide is to lead, or the checkpoint cannot be read.
        DivergenceError: if the loss is not finite; the last checkpoint stays as it was.
    """
    if not 1 <= batch_size <= len(train):
        raise InputError(
            f"a batch of {batch_size} cannot be drawn from {len(train)} training images"
        )
    check(engine, validation, diagnose_every=diagnose_every, aggressive=aggressive)
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
            torch.manual_seed(stream_seed(seed, epoch))
            before = history[-1] if history else {}
            lead = None
            if aggressive and before.get("lagging", True):
                so_far = before.get("led_to")
                lead = _Lead(engine, train, validation, observe, batch_size, aggressive, so_far)
            loss = _train_epoch(engine, train, observe, epoch, batch_size, bar, folder, lead)
            torch.manual_seed(stream_seed(seed, 0))  # the same noise each time: epochs are compared
            bound = -sum(engine.evaluate_loss(x) for x in validation.split(1000)) / len(validation)
            if not math.isfinite(bound):
                raise DivergenceError(_diverged("validation bound", bound, epoch, None, folder))
            row: dict[str, Any] = {"epoch": epoch, "train_loss": loss, "validation_bound": bound}
            if aggressive:
                row["guide_steps"] = lead.steps if lead else 0
                row["lagging"] = lead is not None and lead.lagging
                row["led_to"] = lead.information if lead else before["led_to"]
            if diagnose_every and epoch % diagnose_every == 0:
                row |= _look_at_code(engine, validation)
            history.append(row)
            bar.set_postfix_str(f"validation bound {bound:.2f} nats", refresh=False)
            if folder is not None:
                _save(engine, folder, history)
    return history


def check(engine: EagerEngine, validation: Tensor, *, diagnose_every: int, aggressive: int) -> None:
    """Refuse what cannot be trained together; see `fit`.

    Raises:
        InputError: if there are too few validation images, or the guide is to lead and the
            objective learns.
    """
    if len(validation) == 0:
        raise InputError("there are no validation images")
    if len(validation) < 2 and (diagnose_every or aggressive):
        raise InputError("one validation image is too little to diagnose the code by")
    if aggressive and engine.objective.learns:
        raise InputError(
            f"{type(engine.objective).__name__} learns in each step, and the guide's own, of "
            "aggressive training, would mislead it: take one of the two"
        )


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
    lead: "_Lead | None" = None,
) -> float:
    """Pass once over the data, and return the mean loss per example."""
    total = 0.0
    batches = torch.randperm(len(train), device=train.device).split(batch_size)
    for step, batch in enumerate(batches, start=1):
        engine.objective.anneal(epoch - 1 + (step - 1) / len(batches))
        held: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if lead is not None and lead.take((epoch - 1) * len(batches) + step):
            held = _held(engine.guide.parameters())
        with held:
            loss = engine.step(train.index_select(0, batch), observe)
        if not math.isfinite(loss):
            raise DivergenceError(_diverged("loss", loss, epoch, step, folder))
        total += loss
        bar.update(len(batch))
    return total / len(train)


class _Lead:
    """Lets the guide catch up with the model before each of the model's steps (He et al. 2019).

    Early on q(z|x) lags behind the p(z|x) of the moment, and the model learns to do without z. The
    guide steps until ten steps are no better than the ten before, or it has taken as many as it
    may: always so many, if that is less than twenty. All that ends as soon as the mutual
    information, measured every 50 steps of the model, falls (the paper looks once an epoch, of some
    thousand steps).
    """

    def __init__(
        self,
        engine: EagerEngine,
        train: Tensor,
        validation: Tensor,
        observe: Observe,
        batch_size: int,
        most: int,
        information: float | None,
    ) -> None:
        self.engine, self.train, self.validation = engine, train, validation
        self.observe, self.batch_size, self.most = observe, batch_size, most
        self.lagging = True
        self.steps = 0
        self.information = information  # of x and z, in nats, when last looked at

    def take(self, step: int) -> bool:
        """Take the guide's steps before one of the model's, which are counted from 1.

        Returns:
            Whether there were any: else the guide steps along with the model.
        """
        if step % 50 == 0:
            found = _look_at_code(self.engine, self.validation)["mutual_information"]
            self.lagging = self.information is None or found > self.information
            self.information = found
        if not self.lagging:
            return False
        guides = set(self.engine.guide.parameters())
        losses: list[float] = []
        with _held(p for p in self.engine.model.parameters() if p not in guides):
            while len(losses) < self.most:
                batch = torch.randint(len(self.train), (self.batch_size,), device=self.train.device)
                losses.append(self.engine.step(self.train.index_select(0, batch), self.observe))
                rounds, rest = divmod(len(losses), 10)
                if rounds > 1 and not rest and sum(losses[-10:]) >= sum(losses[-20:-10]):
                    break
        self.steps += len(losses)
        return True


@contextlib.contextmanager
def _held(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Hold parameters where they are: without a gradient, Adam leaves them and their averages."""
    held = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def _look_at_code(engine: EagerEngine, validation: Tensor) -> dict[str, float]:
    """Diagnose the latent code on a few validation images, which is cheap."""
    engine.model.eval()  # the engine's next step puts them back
    engine.guide.eval()
    with pyro.get_param_store().scope():
        found = diagnostics.diagnose(engine.model, engine.guide, validation[:500])
    return {
        "kl": found.information.rate.mean().item(),
        "mutual_information": found.information.mutual_information.mean().item(),
        "active_units": found.active,
    }


def _save(engine: EagerEngine, folder: Path, history: History) -> None:
    """Leave the state of training in `folder`, the checkpoint last: it says what is done."""
    state = engine.state_dict()
    if history[-1]["validation_bound"] == max(row["validation_bound"] for row in history):
        best = {"model": state["model"], "guide": state["guide"], "epoch": len(history)}
        checkpoint.save(folder / "best.pt", best)
    table = io.StringIO()
    columns = dict.fromkeys(name for row in history for name in row)  # some are not in every row
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    checkpoint.write(folder / "metrics.csv", table.getvalue().encode())
    checkpoint.save(folder / "checkpoint.pt", {"engine": state, "history": history})


def _diverged(what: str, value: float, epoch: int, step: int | None, folder: Path | None) -> str:
    where = f"epoch {epoch}" if step is None else f"step {step} of epoch {epoch}"
    if folder is None:
        kept = "no checkpoint was kept"
    elif epoch == 1:
        kept = "there is no checkpoint from before it"
    else:
        kept = f"the last good checkpoint, of epoch {epoch - 1}, is {folder / 'checkpoint.pt'}"
    return f"the {what} became {value} in {where}; {kept}: try a smaller --lr"
