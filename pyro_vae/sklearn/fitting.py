"""Fitting a VAE to the rows of an array: what they are, their split, and the training in memory."""

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import objectives, training
from pyro_vae.data.column_spec import kind_of_values
from pyro_vae.data.fingerprint import row_hashes
from pyro_vae.data.source import ReadOptions, Source
from pyro_vae.data.sources.in_memory import source_of_object
from pyro_vae.data.splitting import split_by_content
from pyro_vae.data.understanding.given_kinds import ALL
from pyro_vae.errors import InputError
from pyro_vae.kinds import Incomplete, Kind
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.runs.options import Options
from pyro_vae.runs.parts_of_vae import make_vae
from pyro_vae.training import Callback, History, Training, Validate
from pyro_vae.vae import VAE

AUTO = "auto"


def source_of_rows(rows: np.ndarray, kind: str) -> Source:
    """Return rows as examples, and what their columns are.

    Args:
        rows: numbers, shape [N, D].
        kind: the kind of all columns, or `auto` for what the rules infer.

    Raises:
        InputError: if the values are not of the kind, or some columns say nothing.
    """
    source = source_of_object(rows, None, ReadOptions({} if kind == AUTO else {ALL: kind}))
    found = source.train.examples.shape[1]
    if found < rows.shape[1]:
        raise InputError(
            f"{rows.shape[1] - found} of {rows.shape[1]} columns of X are empty or have the same "
            f"value in all rows, and no density: remove them ({'; '.join(source.notes)})",
            "X",
        )
    return source


def fit_vae(source: Source, options: Options, validation_fraction: float) -> tuple[VAE, History]:
    """Make the VAE that the options describe, and train it.

    Args:
        source: the rows.
        options: the options of a run; those of its data and its folder are not used.
        validation_fraction: the share of the rows that is not trained on: the epoch with the best
            bound on these is the one that is kept. 0 keeps the last epoch.

    Returns:
        The VAE, in evaluation mode, and a row for each epoch.

    Raises:
        InputError: if the rows and the options do not fit together.
        DivergenceError: if the loss is not finite.
    """
    examples, seed = source.train.read().examples, options.seed
    assert isinstance(examples, Tensor)
    train, validation = _split(examples, validation_fraction, seed)
    with preserve_rng_state(None):
        torch.manual_seed(seed)
        vae = make_vae(options, _kind(source), train)
        if vae.posterior.support == "layers":
            raise InputError(
                "codes in several layers cannot be returned as one array: choose a posterior "
                "with one layer",
                "posterior",
            )
        kind = vae.likelihood.kind
        vae.initialize(kind.stored_features(train))
        engine = training.EagerEngine(vae.model, vae.guide, objectives.ELBO(), lr=options.lr)
        engine.check(kind.observe_once(train[:2], seed))
        best, callbacks = _KeepBest(), list[Callback]()
        if len(validation):
            kind.check(validation)
            callbacks = [Validate(kind.observe_once(validation, seed)), best]
        history = training.fit(
            engine,
            train,
            kind.observe,
            epochs=options.epochs,
            batch_size=min(options.examples_in_step, len(train)),
            seed=seed,
            callbacks=callbacks,
            progress=False,
        )
        if best.state:
            engine.load_state_dict(best.state)
    return vae.eval(), history


class _KeepBest(Callback):
    """Keeps the state of the epoch with the best validation bound, in memory."""

    def __init__(self) -> None:
        self.bound = -math.inf
        self.state: dict[str, Any] = {}

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        """Copy the state of the engine, if the bound is the best so far."""
        if row["validation_bound"] > self.bound:
            self.bound = row["validation_bound"]
            self.state = copy.deepcopy(training.engine.state_dict())


def _kind(source: Source) -> Kind:
    """Return what the rows of a source are, without statistics."""
    kind = kind_of_values(source.columns, source.train.examples.shape[1:], source.names)
    return Incomplete(kind) if source.has_missing else kind


def _split(train: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return training and validation examples; the same ones in any order of the rows."""
    chosen = torch.from_numpy(split_by_content(row_hashes(train), fraction, seed))
    if chosen.all():
        chosen[0] = False
    return train[~chosen], train[chosen]
