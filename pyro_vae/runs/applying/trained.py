"""A trained model, loaded from the folder of its run alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.bounds import Estimate, Settings
from pyro_vae.bounds.khat import pareto_k
from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind
from pyro_vae.prediction import impute
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.runs import config
from pyro_vae.runs.applying.answers import Codes, Imputed, RowScores
from pyro_vae.runs.applying.decoding import moments, typical
from pyro_vae.runs.applying.new_rows import stored_rows
from pyro_vae.runs.applying.noise_of_rows import shown_by_row
from pyro_vae.runs.applying.own_form import as_stored, from_stored, in_own_form
from pyro_vae.runs.applying.sampling import conditions, drawn_in_parts
from pyro_vae.runs.applying.seeded_batches import BATCH, check_seed, in_batches, own_store
from pyro_vae.runs.data_form import DataForm
from pyro_vae.runs.devices import find_device
from pyro_vae.runs.options import Options
from pyro_vae.runs.parts_of_vae import load_best, make_vae
from pyro_vae.runs.validation_scores import NUM_SAMPLES, ValidationScores, shift
from pyro_vae.vae import VAE

DRAWS = 100  # of codes, for a mean and a deviation that have no closed form
LEVEL = 0.9  # of the intervals of imputed values


def load(folder: str | Path, device: str = "cpu", *, trust_code: bool = False) -> "Trained":
    """Load a trained model from the folder of its run. Its data are not needed.

    Args:
        folder: the folder of the run.
        device: where to compute: `cpu`, `cuda`, `cuda:1`, or `auto` for a GPU if there is one.
        trust_code: whether `config.yaml` may name classes that are not in pyro_vae. They are
            imported, which executes their code.

    Raises:
        InputError: if the folder is no run, it was not trained, it is of an older version, or it
            names code that is not trusted.

    Examples:
        >>> import pyro_vae
        >>> model = pyro_vae.load("runs/a")  # doctest: +SKIP
        >>> model.score(x).log_p  # doctest: +SKIP
    """
    folder, place = Path(folder), find_device(device)
    options = config.instantiate(config.read(folder / "config.yaml", trust_code))
    form = DataForm.read(folder)
    with preserve_rng_state(None):
        vae = make_vae(options, form.kind)
    load_best(vae, folder / "best.pt")
    return Trained(folder, options, form, vae.to(place), place, ValidationScores.read(folder))


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model. `load` makes it.

    New rows are arrays, tensors, or DataFrames: see `new_rows`. Conditions y are columns of x, or
    are given beside it, such as labels of images. Rows are handled in batches, and answers are in
    their order. Where pixels are drawn from grey values, those of a row depend on the row and on
    `noise_seed` alone. With None they are drawn as in the evaluation, where they depend on the
    place of a row among the test examples.

    Attributes:
        folder: the folder of the run; None if there is none.
        options: the options of the run.
        form: the form of the run's data.
        vae: the model and the guide, in evaluation mode.
        device: where they are.
        validation: scores of validation examples; None if the run has no `scores.pt`.
    """

    folder: Path | None
    options: Options
    form: DataForm
    vae: VAE
    device: torch.device
    validation: ValidationScores | None

    @property
    def kind(self) -> Kind:
        """What the data are, as the likelihood sees them."""
        return self.form.kind

    def score(
        self,
        x: Any,
        num_samples: int = 100,
        method: Literal["importance", "ais"] = "importance",
        *,
        y: Any = None,
        seed: int | None = None,
        noise_seed: int | None = 0,
        settings: Settings | None = None,
        keep: Path | None = None,
        progress: bool = False,
    ) -> RowScores:
        """Bound log p(x) of each row.

        With the seed and the number of draws of an evaluation, the same rows in the same order have
        the same scores there (of grey pixels, with `noise_seed=None`).

        Args:
            x: the rows.
            num_samples: K, the number of draws of z for each row, for IWAE_K.
            method: `importance`, or `ais` to bound log p(x) from both sides by annealing.
            y: their conditions, if x does not hold them.
            seed: the seed of the draws of z; by default that of the run.
            noise_seed: the seed of pixels that are drawn from grey values.
            settings: the settings of annealing.
            keep: a folder for the results so far. If the call is interrupted, a later call with the
                same arguments continues from them. The caller removes them.
            progress: whether to show a progress bar.

        Raises:
            InputError: if the rows do not fit, or an option is out of range.
        """
        if method not in ("importance", "ais"):
            raise InputError(f"method has to be importance or ais, but is {method}", "method")
        if settings is not None and method != "ais":
            raise InputError("settings are those of annealing: use the method ais", "settings")
        shown = self.observe(x, y, noise_seed)
        nats = shift(self.kind, shown)
        seed = self.options.seed if seed is None else seed
        check_seed(seed, "seed")
        draws = max(num_samples, NUM_SAMPLES) if method == "ais" else num_samples
        with own_store():
            found = bounds.evaluate(
                self.vae.model,
                self.vae.guide,
                shown,
                draws,
                ladder=(NUM_SAMPLES,),
                seed=seed,
                keep=keep and keep / "importance.pt",
                progress=progress,
            )
        percentile = torch.full((len(shown),), torch.nan, dtype=torch.float64)
        if NUM_SAMPLES in found.iwae and self.validation is not None:
            percentile = self.validation.percentiles(found.iwae[NUM_SAMPLES].values + nats)
        lower, khat, upper = found.bound, found.khat, None
        if method == "ais":
            with own_store():
                annealed = bounds.anneal(
                    self.vae.model,
                    self.vae.guide,
                    shown,
                    settings,
                    seed=seed,
                    keep=keep and keep / "annealing.pt",
                    progress=progress,
                )
            lower, upper = annealed.lower, annealed.upper
            khat, draws = pareto_k(annealed.log_w.T), len(annealed.log_w)
        return RowScores(
            (lower.values + nats).numpy(),
            _errors(lower),
            khat.numpy(),
            percentile.numpy(),
            None if upper is None else (upper.values + nats).numpy(),
            None if upper is None else _errors(upper),
            self.kind.base_measure().name,
            draws,
        )

    def observe(self, x: Any, y: Any = None, noise_seed: int | None = 0) -> Tensor:
        """Return rows as the likelihood sees them, shape [N, *event].

        Args:
            x: the rows.
            y: their conditions, if x does not hold them.
            noise_seed: the seed of pixels that are drawn from grey values.

        Raises:
            InputError: if the rows do not fit.
        """
        return self._shown(stored_rows(self.form, x, y), noise_seed)

    def _shown(self, stored: Tensor, noise_seed: int | None) -> Tensor:
        if noise_seed is not None:
            check_seed(noise_seed, "noise_seed")
            shown = shown_by_row(self.kind, stored, self.options.binarization, noise_seed)
        else:
            seed = self.options.noise_seeds[2]
            stored = self.kind.binarize(stored, self.options.binarization, seed)
            shown = self.kind.observe_once(stored, seed)
        return shown.to(self.device)

    def encode(
        self,
        x: Any,
        draws: int = 0,
        *,
        y: Any = None,
        seed: int = 0,
        noise_seed: int | None = 0,
    ) -> Codes:
        """Return q(z|x) of each row: its mean, its deviation, and draws from it.

        Args:
            x: the rows.
            draws: the number of draws.
            y: their conditions, if x does not hold them.
            seed: the seed of the draws.
            noise_seed: the seed of pixels that are drawn from grey values.

        Raises:
            InputError: if the rows do not fit.
        """
        if draws < 0:
            raise InputError(f"draws has to be 0 or more, but is {draws}", "draws")
        shown = self.observe(x, y, noise_seed)
        found = in_batches(lambda part: self._encode(part, draws), shown, seed)
        mean, scale, drawn, exact = zip(*found, strict=True)
        return Codes(
            torch.cat(mean).cpu().numpy(),
            torch.cat(scale).cpu().numpy(),
            torch.cat(drawn, 1).cpu().numpy(),
            all(exact),
        )

    def _encode(self, x: Tensor, draws: int) -> tuple[Tensor, Tensor, Tensor, bool]:
        guide = self.vae.guide
        found = moments(self.vae, x)
        count = draws if found is not None else max(draws, DRAWS)
        codes = [guide(x) for _ in range(count)]
        drawn = torch.stack(codes) if codes else x.new_zeros(0, len(x), self.options.latent_dim)
        mean, scale = (drawn.mean(0), drawn.std(0)) if found is None else found
        return mean, scale, drawn[:draws], found is not None

    def reconstruct(
        self, x: Any, *, y: Any = None, seed: int = 0, noise_seed: int | None = 0
    ) -> Any:
        """Return what is typical of p(x|z) for the code of each row, in the data's own form.

        That is the mean of numbers, and the most probable category; of pixels whose mean has no
        closed form it is the likelihood's `picture`. The code is the mean of q(z|x) if codes are
        real and it has a closed form, and otherwise one draw.

        Args:
            x: the rows.
            y: their conditions, if x does not hold them.
            seed: the seed of the draws.
            noise_seed: the seed of pixels that are drawn from grey values.

        Raises:
            InputError: if the rows do not fit.
        """

        def decode(part: Tensor) -> Tensor:
            mean = moments(self.vae, part) if self.vae.posterior.support == "real" else None
            z = self.vae.guide(part) if mean is None else mean[0]
            return typical(self.vae, self.vae.prior.code(z), part)

        shown = self.observe(x, y, noise_seed)
        found = torch.cat(in_batches(decode, shown, seed))
        return in_own_form(self.form, found, are_means=True)

    def sample(self, n: int, y: Any = None, temperature: float = 1.0, *, seed: int = 0) -> Any:
        """Draw examples, in the data's own form.

        Args:
            n: the number of examples.
            y: their conditions: n of them, or one for all.
            temperature: the factor of the deviations of p(z) from its mean; below 1 examples are
                more typical and less diverse. Other than 1 needs a prior of normals.
            seed: the seed of the draws.

        Raises:
            InputError: if the conditions do not fit, or an option is out of range.
        """
        (whole,) = self.samples(n, y, temperature, seed=seed, size=max(n, 1))
        return whole

    def samples(
        self,
        n: int,
        y: Any = None,
        temperature: float = 1.0,
        *,
        seed: int = 0,
        size: int = 8 * BATCH,
        first: int = 0,
    ) -> Iterator[Any]:
        """Draw the examples that `sample` draws, some at a time.

        Args:
            n: the number of examples, of all parts together.
            y: see `sample`.
            temperature: see `sample`.
            seed: see `sample`.
            size: the number of examples of a part, a multiple of 500, or n.
            first: the number of the first part, from 0.

        Raises:
            InputError: if the conditions do not fit, or an option is out of range.
        """
        given = conditions(self.form, n, y, temperature, seed, size)
        return drawn_in_parts(
            self.vae, self.form, self.device, given, temperature, seed, size, first
        )

    def impute(
        self,
        x: Any,
        num_samples: int = 1000,
        *,
        draws: int = 0,
        y: Any = None,
        seed: int = 0,
        noise_seed: int | None = 0,
        keep: Path | None = None,
        progress: bool = False,
    ) -> Imputed:
        """Impute missing values: NaN in arrays, and empty cells of tables.

        Args:
            x: the rows.
            num_samples: the number of draws of z for each row.
            draws: the number of multiple imputations.
            y: their conditions, if x does not hold them.
            seed: the seed of all draws.
            noise_seed: the seed of pixels that are drawn from grey values.
            keep: a folder for the results so far; see `score`.
            progress: whether to show a progress bar.

        Raises:
            InputError: if the rows do not fit, or the model has seen no data with missing values.
        """
        stored = stored_rows(self.form, x, y)
        check_seed(seed, "seed")
        with own_store():
            found = impute(
                self.vae,
                self._shown(stored, noise_seed),
                num_samples,
                draws=draws,
                level=LEVEL,
                seed=seed,
                keep=keep and keep / "imputation.pt",
                progress=progress,
            )

        def filled(values: Tensor) -> Any:
            own = as_stored(self.form, values, are_means=True)
            whole = torch.where(stored.isnan(), own.double(), stored.double())
            return from_stored(self.form, whole, are_means=True)

        lower, upper = (
            np.where(stored.isnan().numpy(), as_stored(self.form, ends, True).numpy(), np.nan)
            for ends in (found.lower, found.upper)
        )
        return Imputed(
            filled(found.values),
            lower,
            upper,
            [filled(drawn) for drawn in found.draws],
            found.ess.numpy(),
            found.khat.numpy(),
        )


def _errors(estimate: Estimate) -> np.ndarray:
    """Return the Monte Carlo standard errors of single rows; NaN where they are unknown."""
    errors: np.ndarray = estimate.mc_variance.sqrt().numpy()
    return errors
