"""Training by stochastic variational inference: engines, the loop `fit`, and callbacks.

- An engine takes the steps. `EagerEngine` is `pyro.infer.SVI`; `CompiledEngine` takes the same
  steps as one compiled graph each. Any class with the methods of `Engine` is an engine.
- `fit` passes over the data, epoch by epoch, and runs callbacks.
- A callback does what else happens in training: `Validate` estimates the bound on validation
  examples, `Diagnose` looks for posterior collapse, `GuideFirst` trains the guide ahead of the
  model, `Checkpoint` saves the training and resumes it. A `Schedule` sets the learning rate, an
  `Averaging` averages the parameters, `EarlyStopping` and `Budget` end the training;
  `TensorBoard` and `WandB` show its metrics.
- An `Optimizer` is the engine's way to turn gradients into steps.

To add a callback, subclass `Callback`, override what you need, and put an instance into the list
that `fit` is given:

    class ParameterNorm(Callback):
        def after_epoch(self, training, row):
            parameters = training.engine.model.parameters()
            row["norm"] = sum(p.square().sum().item() for p in parameters) ** 0.5

    fit(engine, train, epochs=10, callbacks=[Validate(validation), ParameterNorm()])

A `Checkpoint` has to be the last in the list. Runs, and with them the command line, list their
callbacks in one place: `make_callbacks` in `pyro_vae.runs.trainer`.
"""

from pyro_vae.training.averaging import EMA, Averaging, TailMean
from pyro_vae.training.callbacks import Callback, Diagnose, History, Training, Validate
from pyro_vae.training.compiled_engine import CompiledEngine
from pyro_vae.training.eager_engine import EagerEngine, Precision
from pyro_vae.training.engine import Engine, Observe, unchanged
from pyro_vae.training.guide_first import GuideFirst
from pyro_vae.training.loop import check, fit
from pyro_vae.training.metric_logs import MetricLog, TensorBoard, WandB
from pyro_vae.training.optimizers import Adam, Adamax, AdamW, Optimizer
from pyro_vae.training.resuming import Checkpoint, has_checkpoint, resume
from pyro_vae.training.schedules import BatchDoubling, Constant, Cosine, Schedule, Stages
from pyro_vae.training.stopping import Budget, EarlyStopping

__all__ = [
    "EMA",
    "Adam",
    "AdamW",
    "Adamax",
    "Averaging",
    "BatchDoubling",
    "Budget",
    "Callback",
    "Checkpoint",
    "CompiledEngine",
    "Constant",
    "Cosine",
    "Diagnose",
    "EagerEngine",
    "EarlyStopping",
    "Engine",
    "GuideFirst",
    "History",
    "MetricLog",
    "Observe",
    "Optimizer",
    "Precision",
    "Schedule",
    "Stages",
    "TailMean",
    "TensorBoard",
    "Training",
    "Validate",
    "WandB",
    "check",
    "fit",
    "has_checkpoint",
    "resume",
    "unchanged",
]
