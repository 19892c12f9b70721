"""A run: a folder, the options in it, and the data and the model that they describe."""

import os
import shutil
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from pyro_vae import checkpoint, training
from pyro_vae.bounds import Estimate
from pyro_vae.data import Rows
from pyro_vae.errors import InputError
from pyro_vae.kinds import BaseMeasure, Conditional, Kind, has_holes
from pyro_vae.programs import ranks
from pyro_vae.runs import config, speaking, trainer
from pyro_vae.runs.command_line import CHANGEABLE
from pyro_vae.runs.data_form import DataForm
from pyro_vae.runs.devices import find_device
from pyro_vae.runs.hidden_entries import hidden_values
from pyro_vae.runs.memory import check_step
from pyro_vae.runs.options import Options
from pyro_vae.runs.parts_of_vae import (
    load_best,
    make_vae,
    named_likelihood,
    start_from,
)
from pyro_vae.runs.run_data import (
    check_fingerprint,
    check_moved,
    labels_are_given,
    left_out,
    prepare,
    sample,
    show,
)
from pyro_vae.runs.validation_scores import ValidationScores, shift
from pyro_vae.training import Engine, History
from pyro_vae.vae import VAE


@dataclass(eq=False)
class Run:
    """What the options of a run describe, built. `Run.build` makes it.

    Attributes:
        folder: the run's folder.
        namespace: the options in the form that `config.yaml` is written from. Engine and precision
            are never `auto` there, and the number of epochs and the batch size are never left out,
            so that a resumed run continues with the same ones.
        options: the options, as they were given.
        device: where the model and the data are.
        data_kind: what the data are.
        form: what is remembered of the data, in `data.pt`.
        train: stored training examples.
        validation: validation examples as the likelihood sees them.
        test: test examples as the likelihood sees them.
        labels: the labels of the validation and the test examples, if the data have labels.
        notes: sentences about the data, for a person to read.
        hidden: values of test examples that were hidden, as the likelihood sees them, and NaN
            elsewhere; None if none was.
        measured: the test examples in the form that log p(x) on the base measure refers to.
        base_measure: the measure on which log p(x) of the test examples can be compared.
        vae: the model and the guide.
        engine: computes the training steps.
        warning: why the model is not to be used, once its parameters are loaded; "" if it is.
    """

    folder: Path
    namespace: Namespace
    options: Options
    device: torch.device
    data_kind: Kind
    form: DataForm
    train: Tensor | Rows
    validation: Tensor
    test: Tensor
    labels: tuple[Tensor | None, Tensor | None]
    notes: tuple[str, ...]
    hidden: Tensor | None
    measured: Tensor
    base_measure: BaseMeasure
    vae: VAE
    engine: Engine
    warning: str = ""

    @classmethod
    def build(cls, folder: Path, namespace: Namespace, *, same_data: bool = False) -> "Run":
        """Load the data, make the model and the engine, and check that they fit together.

        Args:
            folder: the run's folder. It is neither read nor made.
            namespace: parsed options.
            same_data: whether the data have to be those whose fingerprint the options hold.

        Raises:
            InputError: if the options do not fit together, or do not fit the data.
        """
        options = config.instantiate(namespace)
        device = find_device(options.device)
        dataset, whole = prepare(options, trained=folder if same_data else None)
        torch.manual_seed(options.seed)
        vae = make_vae(options, dataset.kind, dataset.train)
        namespace = namespace.clone()
        namespace.fingerprint = dataset.fingerprint
        if namespace.likelihood.class_path == config.BY_KIND:
            name = type(named_likelihood(vae.likelihood)).__name__
            namespace.likelihood.class_path = f"pyro_vae.likelihoods.{name}"
        kind = vae.likelihood.kind
        train, validation, test, measured = show(dataset, kind, options)
        hidden = None if whole is None else hidden_values(kind, whole, test, options)
        batch = trainer.choose_batch_size(options, namespace, len(train))
        warmup = [] if same_data else trainer.choose_warmup(options, namespace, len(train), vae)
        vae.initialize(kind.stored_features(sample(train)))
        vae.to(device)
        engine_name = trainer.choose_engine(options, len(train), device)
        precision = trainer.choose_precision(options, engine_name, device)
        slow = trainer.slow_precision(precision, device)
        namespace.engine, namespace.precision = engine_name, precision
        namespace.epochs = options.last_epoch
        # If a resumed run cannot be compiled, it was not compiled before either.
        may_fall_back = options.engine == "auto" or bool(namespace.get("resume"))
        run = cls(
            folder=folder,
            namespace=namespace,
            options=options,
            device=device,
            data_kind=dataset.kind,
            form=DataForm.of(
                dataset,
                kind,
                labels_are_given=labels_are_given(options, dataset),
                ignored=left_out(options),
                is_array=Path(options.data).suffix.lower() in (".npy", ".npz", ".pt"),
            ),
            train=train.to(device),
            validation=validation.to(device),
            test=test.to(device),
            labels=(dataset.validation_labels, dataset.test_labels),
            notes=(*dataset.notes, *batch, *warmup, *slow),
            hidden=hidden,
            measured=measured,
            base_measure=kind.base_measure(),
            vae=vae,
            engine=trainer.make_engine(engine_name, precision, vae, options, may_fall_back),
        )
        run.check()
        return run

    @classmethod
    def open(cls, folder: str | Path, *, trust_code: bool = False, **changes: Any) -> "Run":
        """Open a trained run, with the parameters of its best epoch.

        Args:
            folder: the folder of the run. Nothing in it is executed.
            trust_code: whether `config.yaml` may name classes that are not in pyro_vae. They are
                imported, which executes their code.
            changes: options to change; those that are None keep their values.

        Raises:
            InputError: if the folder is no run, no epoch was finished, the data have changed, or
                its options name code that is not trusted.
        """
        namespace = config.read(Path(folder) / "config.yaml", trust_code)
        if changes.get("data") not in (None, namespace.data):
            check_moved(namespace.fingerprint, Path(folder))
        for name, value in changes.items():
            if value is not None:
                namespace[name] = value
        namespace.log = None  # it is not trained
        run = cls.build(Path(folder), namespace, same_data=True)
        run.load_best()
        return run

    def __str__(self) -> str:
        of = self.kind.of if isinstance(self.kind, Conditional) else self.kind
        shape = " x ".join(map(str, of.shape))
        engine = f"{self.namespace.engine} engine"
        if self.options.engine == "auto":
            engine += f" ({trainer.describe_length(self.options, len(self.train))})"
        if self.options.precision == "auto":
            engine += f" in {self.namespace.precision}"
        seen = "" if str(self.kind) == str(self.data_kind) else f", modelled as {self.kind}"
        lines = [
            f"{self.options.data}: {len(self.train)} training, {len(self.validation)} validation, "
            f"{len(self.test)} test examples of {shape}, on {self.device} by the {engine}, into "
            f"{self.folder}",
            f"The data are {self.data_kind}{seen}; the likelihood is "
            f"{type(named_likelihood(self.vae.likelihood)).__name__}"
            + (", of the observed values." if has_holes(self.kind) else "."),
            *self.notes,
        ]
        return "\n".join(lines)

    @property
    def kind(self) -> Kind:
        """The kind of the data, which the likelihood names."""
        return self.vae.likelihood.kind

    @property
    def dims(self) -> int:
        """The number of values in an example: pixels times channels."""
        return self.kind.dims

    @property
    def evaluated(self) -> Tensor:
        """The indices of the test examples that are evaluated, in a random order that is fixed."""
        return self._random_order()[: self.options.num_examples]

    @property
    def mixed(self) -> Tensor:
        """The test examples in a random order that is fixed: files are often sorted."""
        return self.test[self._random_order().to(self.device)]

    def _random_order(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.options.data_seed)
        return torch.randperm(len(self.test), generator=generator)

    @property
    def num_observed(self) -> Tensor:
        """How many values of each evaluated example are observed, shape [N]."""
        x = self.test[self.evaluated.to(self.device)]
        return self.dims - x.isnan().flatten(1).sum(1).cpu()

    @property
    def shift(self) -> Tensor:
        """The nats that are added to log p(x) of each evaluated example, on the base measure."""
        x = self.test[self.evaluated.to(self.device)]
        return shift(self.kind, x).expand(len(x))

    def on_base_measure(self, bound: Estimate) -> Estimate:
        """Return a bound on log p(x) as a bound on its logarithm on the run's base measure.

        Args:
            bound: of the evaluated examples, or of the first of them.
        """
        return replace(bound, values=bound.values + self.shift[: len(bound.values)])

    def observe(self, examples: Tensor) -> Tensor:
        """Return stored examples as the likelihood sees them, with fresh noise."""
        return self.kind.observe(examples.to(self.device))

    def check(self) -> None:
        """Check that the data, the model, the guide and the options of training fit together.

        Raises:
            InputError: if they do not.
        """
        if self.options.examples_in_step > len(self.train):
            raise InputError(
                f"batch_size {self.options.batch_size} is more than the {len(self.train)} training "
                "examples: choose a smaller one",
                "batch_size",
            )
        objective = self.engine.objective
        check_step(
            self.engine.check,
            self.validation,
            self.vae,
            self.options.examples_in_step * 2**self.options.batch_doublings,
            objective.num_draws,
            fused=self.namespace.engine == "compiled",
        )
        if "parameters" in self.engine.state_dict():
            raise InputError(
                "the model or the guide has a pyro.param that is not a parameter of a module, so "
                "the run would not save it with them: make it a torch.nn.Parameter"
            )
        training.check(self.engine, self.callbacks())

    def callbacks(self) -> list[training.Callback]:
        """Return what happens in training beside the steps, in its order."""
        about = config.dump(self.namespace)
        return trainer.make_callbacks(self.options, self.validation, self.folder, about)

    def fit(self) -> History:
        """Train to the end, and load the parameters of the best epoch.

        The scores of validation examples are written then; see `ValidationScores`.

        Returns:
            A row for each epoch; see `training.fit`.
        """
        history = training.fit(
            self.engine,
            self.train,
            self.observe,
            epochs=self.options.last_epoch,
            batch_size=self.options.examples_in_step,
            seed=self.options.seed,
            callbacks=self.callbacks(),
            progress=False if speaking.is_quiet() else None,
        )
        ranks.wait_for_all()  # the first process has written the file
        self.load_best()
        seeds = self.options.data_seed, self.options.seed
        with ranks.together():
            scores = ValidationScores.of(self.vae, self.validation, *seeds)
        if ranks.is_first():
            scores.save(self.folder)
        return history

    def create(self) -> None:
        """Make the run's folder with `config.yaml` and `data.pt`.

        The folder never exists without these files. With `init_from`, the parameters of that run
        are taken.

        Raises:
            InputError: if the folder exists, or `init_from` is no run that fits.
        """
        exists = InputError(
            f"{self.folder} exists already: continue that run with --resume {self.folder}, or "
            "choose another folder",
            "out",
        )
        if self.folder.exists():
            raise exists
        if self.options.init_from:
            start_from(self.vae, Path(self.options.init_from))
        ranks.wait_for_all()  # the others have seen that the folder does not exist
        if not ranks.is_first():
            return
        unfinished = self.folder.with_name(f".{self.folder.name}.{os.getpid()}")
        try:
            unfinished.mkdir(parents=True)
            self.write_config(unfinished)
            self.form.save(unfinished)
            try:
                unfinished.rename(self.folder)
            except OSError as error:
                if self.folder.exists():  # another process has made it in between
                    raise exists from error
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def write_config(self, folder: Path | None = None) -> None:
        """Write `config.yaml`, from which the run can be repeated.

        Args:
            folder: the folder to write it in; by default the run's own.
        """
        packages = ", ".join(
            f"{name} {version(name)}" for name in ("pyro_vae", "pyro-ppl", "torch")
        )
        text = f"# {packages}\n{config.dump(self.namespace)}"
        checkpoint.write((folder or self.folder) / "config.yaml", text.encode())

    def resume(self) -> None:
        """Load the last checkpoint, if there is one, and write the options, some of them changed.

        Raises:
            InputError: if the data have changed, or the checkpoint cannot be used, or it has more
                epochs than the options.
        """
        check_fingerprint(self.options, self.namespace.fingerprint, self.folder)
        if training.has_checkpoint(self.folder):
            resumed = training.resume(self.engine, self.folder)
            done = len(resumed.history) + (resumed.place is not None)
            if self.options.epochs is not None and done > self.options.epochs:
                raise InputError(
                    f"epochs {self.options.epochs} is less than the {done} epochs that "
                    f"{self.folder} has begun already: choose {done} or more",
                    "epochs",
                )
            edited = config.edited(resumed.about, config.dump(self.namespace), CHANGEABLE)
            if edited:
                raise InputError(
                    f"{self.folder / 'config.yaml'} was edited after training began: {edited}: "
                    "undo that, or start a new run"
                )
            if resumed.note:
                self.notes = (*self.notes, resumed.note)
        elif self.options.init_from:
            start_from(self.vae, Path(self.options.init_from))
        if ranks.is_first():
            self.write_config()
            self.form.save(self.folder)

    def load_best(self) -> None:
        """Load the parameters of the best epoch into the VAE, and set it to evaluation mode.

        Raises:
            InputError: if there is no such file, or its parameters do not fit.
        """
        state = load_best(self.vae, self.folder / "best.pt")
        steps = trainer.num_steps(self.options, len(self.train))
        self.warning = trainer.warning_of(state.get("bound"), state.get("bound_before"), steps)
