"""A run: a folder, the options in it, and the data and the model that they describe."""

import math
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from pyro_vae import checkpoint, data, figures, training
from pyro_vae.errors import InputError
from pyro_vae.runs import options
from pyro_vae.training import CompiledEngine, EagerEngine, History
from pyro_vae.vae import VAE

COMPILING_PAYS = 7000  # steps, of 3 ms less each, for which 20 s of compiling are no loss


class Run:
    """What a run's options describe, built.

    Args:
        folder: where the run is kept.
        namespace: its options, as they were parsed.

    Attributes:
        options: the same, instantiated.
        train: stored training images, on the device.
        validation: validation images as the likelihood sees them.
        test: the same for test images.
        labels: of the validation and the test images, where there are any.
        measured: the test images on the base measure: what their probability is the probability of.
        vae: the model and the guide, as they start.
        engine: what trains them.

    Raises:
        InputError: if the options do not fit together, or do not fit the data.
    """

    def __init__(self, folder: Path, namespace: Namespace) -> None:
        self.folder = folder
        self.namespace = namespace
        self.options = chosen = options.instantiate(namespace)
        self.device = _device(chosen.device)
        dataset = data.load(
            chosen.data,
            chosen.data_root,
            validation_fraction=chosen.validation_fraction,
            test_fraction=chosen.test_fraction,
            seed=chosen.data_seed,
        )
        if chosen.batch_size > len(dataset.train):
            raise InputError(
                f"--batch_size {chosen.batch_size} is more than the {len(dataset.train)} training "
                "images"
            )
        torch.manual_seed(chosen.seed)
        self.vae = _make(chosen, dataset.event_shape)
        self.kind = kind = self.vae.likelihood.kind
        for part in (dataset.train, dataset.validation, dataset.test):
            kind.check(part)
        self.base_measure = kind.base_measure(dataset.test)
        seeds = [3 * chosen.data_seed + part for part in range(3)]  # no noise in common
        train, validation, test = (
            kind.binarize(images, chosen.binarization, seed)
            for images, seed in zip(
                (dataset.train, dataset.validation, dataset.test), seeds, strict=True
            )
        )
        self.labels = dataset.validation_labels, dataset.test_labels
        self.vae.initialize(kind.stored_features(train))
        self.vae.to(self.device)
        self.train = train.to(self.device)
        self.validation = kind.observe_once(validation, seeds[1]).to(self.device)
        self.test = kind.observe_once(test, seeds[2]).to(self.device)
        self.engine = self._choose_engine()
        self.engine.check(self.validation[:2])  # refuses parts that do not go together
        training.check(self.engine, self.callbacks())
        self.measured = kind.measured(test, self.test.cpu())

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.train.shape[1:]))
        return (
            f"{self.options.data}: {len(self.train)} training, {len(self.validation)} validation, "
            f"{len(self.test)} test examples of {shape}, on {self.device} {self._by}, into "
            f"{self.folder}"
        )

    def _choose_engine(self) -> EagerEngine:
        """Make the engine, and note in the options which it is: a resumed run goes on with it."""
        chosen = self.options
        steps = chosen.epochs * math.ceil(len(self.train) / chosen.batch_size)
        self._by = f"by the {chosen.engine} engine"
        if chosen.engine == "auto":
            pays = self.device.type == "cpu" and steps >= COMPILING_PAYS
            self.namespace.engine = "compiled" if pays else "eager"
            self._by = f"by the {self.namespace.engine} engine ({steps} steps)"
        parts = self.vae.model, self.vae.guide, chosen.objective(), chosen.lr, chosen.precision
        if self.namespace.engine == "eager":
            return EagerEngine(*parts)
        # Where a run that is resumed cannot be compiled, it was not compiled before.
        fall_back = chosen.engine == "auto" or bool(self.namespace.get("resume"))
        return CompiledEngine(*parts, fall_back=fall_back)

    @classmethod
    def open(cls, folder: str | Path, **changes: Any) -> "Run":
        """Open a run that was trained, with its best parameters.

        Args:
            folder: of the run.
            changes: options to change; those that are None stay as they were.

        Raises:
            InputError: if it is no run, or has not finished an epoch.
        """
        namespace = options.read(Path(folder) / "config.yaml")
        for name, value in changes.items():
            if value is not None:
                namespace[name] = value
        run = cls(Path(folder), namespace)
        run.load_best()
        return run

    def create(self) -> None:
        """Make the run's folder, with its configuration in it, in one stroke.

        Raises:
            InputError: if it is there already.
        """
        if self.folder.exists():
            raise InputError(
                f"{self.folder} exists already: go on with --resume {self.folder}, or choose "
                "another --out"
            )
        unfinished = self.folder.with_name(f".{self.folder.name}.{os.getpid()}")
        try:
            unfinished.mkdir(parents=True)
            self.write_config(unfinished)
            unfinished.rename(self.folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def write_config(self, folder: Path | None = None) -> None:
        """Write `config.yaml`, from which the run can be repeated."""
        packages = ", ".join(
            f"{name} {version(name)}" for name in ("pyro_vae", "pyro-ppl", "torch")
        )
        text = f"# {packages}\n{options.dump(self.namespace)}"
        checkpoint.write((folder or self.folder) / "config.yaml", text.encode())

    def resume(self) -> None:
        """Go back to where training stopped, if it got anywhere, and keep the options given anew.

        Raises:
            InputError: if the checkpoint cannot be used, or is beyond the epochs asked for.
        """
        if (self.folder / "checkpoint.pt").exists():
            done = len(training.resume(self.engine, self.folder))
            if done > self.options.epochs:
                raise InputError(
                    f"--epochs {self.options.epochs} is less than the {done} epochs that "
                    f"{self.folder} has done already"
                )
        self.write_config()

    def callbacks(self) -> list[training.Callback]:
        """Return what `training.fit` does in this run beside the steps."""
        chosen = self.options
        callbacks: list[training.Callback] = [training.Validate(self.validation)]
        if chosen.aggressive:
            callbacks.append(training.GuideFirst(self.validation, chosen.aggressive))
        if chosen.diagnose_every:
            callbacks.append(training.Diagnose(self.validation, chosen.diagnose_every))
        return [*callbacks, training.Checkpoint(self.folder)]

    def observe(self, images: Tensor) -> Tensor:
        """Show stored images to the likelihood, with fresh noise."""
        return self.kind.observe(images)

    def load_best(self) -> None:
        """Put the parameters of the best epoch into the VAE.

        Raises:
            InputError: if there are none, or they do not fit.
        """
        path = self.folder / "best.pt"
        state = checkpoint.load(path)
        try:
            self.vae.model.load_state_dict(state["model"])
            self.vae.guide.load_state_dict(state["guide"])
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            raise InputError(f"{path} does not fit the model that config.yaml describes") from error
        self.vae.eval()

    def draw_model(self, history: History) -> None:
        """Draw the course of training, and what the model does."""
        vae, test = self.vae, self.test
        torch.manual_seed(self.options.seed)
        self.draw("training", (6, 4), lambda ax: figures.training_curves(ax, history))
        self.draw("samples", (6, 6), lambda ax: figures.samples(ax, vae))
        self.draw(
            "reconstructions", (9, 2.2), lambda ax: figures.reconstructions(ax, vae, test[:12])
        )
        starts, ends = test[:6], test.flip(0)[:6]
        self.draw(
            "interpolation", (6, 4.2), lambda ax: figures.interpolation(ax, vae, starts, ends)
        )
        if self.options.latent_dim == 2 and vae.posterior.support in ("real", "two layers"):
            self.draw("manifold", (7, 7), lambda ax: figures.manifold(ax, vae))

    @property
    def chosen(self) -> Tensor:
        """Which test images are evaluated, in an order that is random but always the same."""
        generator = torch.Generator().manual_seed(self.options.data_seed)
        return torch.randperm(len(self.test), generator=generator)[: self.options.num_examples]

    def draw(
        self, name: str, size: tuple[float, float], draw: Callable[..., Any], columns: int = 1
    ) -> None:
        """Draw a figure into the run's folder, on one axes, or on several side by side."""
        (self.folder / "figures").mkdir(exist_ok=True)
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(ncols=columns))
        figure.savefig(self.folder / "figures" / f"{name}.png", dpi=150)


def _make(chosen: options.Options, event_shape: torch.Size) -> VAE:
    """Make the parts that the options name, for data of one shape."""
    try:
        return VAE(
            prior=chosen.prior(chosen.latent_dim),
            likelihood=chosen.likelihood(chosen.latent_dim, event_shape),
            posterior=chosen.posterior(event_shape, chosen.latent_dim),
        )
    except TypeError as error:
        if "abstract class" not in str(error):  # a fault in a user's own class
            raise
        raise InputError(f"{error}: name a class that has them all, see --help") from error


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no GPU that torch can use: take cpu or auto")
    return torch.device(name)
