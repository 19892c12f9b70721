"""The estimator: a VAE that is fitted to an array, scores rows, and turns them into codes.

It transforms rows into codes, as PCA does, and scores them, as a density does: `score_samples`
bounds log p(x) of each row from below, by IWAE_K (Burda, Grosse & Salakhutdinov 2016, equation 8)

    log p(x) >= E[log 1/K sum_k p(x, z_k) / q(z_k | x)],    z_1, .., z_K ~ q(z | x)

The rows are arrays [N, D]. Their kind is real numbers, unless you name another one, or `auto` for
the one that the package's rules infer. Everything else is as in the package's own runs, and
`trained_` is what `pyro_vae.load` would return.
"""

import copy
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import pyro
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pyro_vae import bounds, likelihoods, posteriors, priors
from pyro_vae.data.column_spec import KIND_NAMES
from pyro_vae.data.fingerprint import row_hashes
from pyro_vae.data.source import Source
from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.random_streams import preserve_rng_state, stream_seed
from pyro_vae.runs.applying import Trained
from pyro_vae.runs.applying.decoding import typical
from pyro_vae.runs.applying.new_rows import stored_rows
from pyro_vae.runs.applying.own_form import in_own_form
from pyro_vae.runs.data_form import DataForm
from pyro_vae.runs.options import Options
from pyro_vae.runs.validation_scores import shift
from pyro_vae.sklearn.fitting import AUTO, fit_vae, source_of_rows
from pyro_vae.sklearn.named_parts import part
from pyro_vae.vae import VAE as PyroVAE

NOT_NEGATIVE = ("positive", "counts", "unit_interval", "levels")  # kinds
WHOLE = ("latent_dim", "epochs", "batch_size", "num_samples")  # arguments
DRAWS = 100  # of codes, for a mean that has no closed form
NOISE = 1  # the random stream of the noise in a row; that of the draws of its z has no number
SAMPLES = 2  # the random stream of samples: none of training's, if the seed is the same
BATCH = 500  # codes that are decoded at once


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A variational autoencoder that is fitted to an array [N, D].

    Parts of the model are named by their class in `priors`, `likelihoods` or `posteriors`, or given
    as the class. To set more of their arguments, give `functools.partial(priors.Mixture,
    components=20)`.

    Values may be missing (NaN): log p(x) is then that of the values that are there. A model that
    was fitted to rows without NaN refuses them later.

    With an integer as `random_state` everything is deterministic. A row's score and code depend on
    the row alone, and not on its place or on the rows beside it. The global random state is as it
    was afterwards, and so is Pyro's store of parameters.

    Args:
        latent_dim: the dimension of z.
        kind: what the values are: `real`, `positive`, `counts`, `unit_interval`, `levels` (or
            `levels 17`, with their number), `binary`, `categories` or `ordered`; or `auto` for what
            the rules infer, column by column.
        likelihood: p(x|z); `auto` is the one that suits the kind.
        prior: p(z).
        posterior: q(z|x).
        widths: the widths of the hidden layers of the encoder; the decoder has the reverse. With
            none both are linear.
        epochs: the number of passes over the rows.
        batch_size: the number of rows in a step; all rows if there are fewer.
        lr: the learning rate of Adam.
        validation_fraction: the share of the rows that is not trained on: the epoch with the best
            bound on these is the one that is kept. 0 keeps the last epoch.
        num_samples: K, the number of draws of z for each row that is scored.
        random_state: the seed, or the source of one.

    Attributes:
        vae_: the trained `pyro_vae.VAE`, whose `model` and `guide` are Pyro programs.
        trained_: the model with what it knows of the data: it also imputes, and bounds log p(x)
            from both sides. It has no folder.
        history_: a row for each epoch; see `pyro_vae.training.fit`.
        n_features_in_: D.
        feature_names_in_: the names of the columns, if X had names.

    Examples:
        >>> import numpy as np
        >>> from pyro_vae.sklearn import VAE
        >>> X = np.random.default_rng(0).normal(size=(60, 3))
        >>> vae = VAE(latent_dim=2, epochs=2, random_state=0).fit(X)
        >>> vae.transform(X).shape, vae.score_samples(X).shape, vae.sample(5).shape
        ((60, 2), (60,), (5, 3))
    """

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        kind: str = "real",
        likelihood: Any = AUTO,
        prior: Any = "StandardNormal",
        posterior: Any = "Normal",
        widths: Sequence[int] = (200, 200),
        epochs: int = 200,
        batch_size: int = 100,
        lr: float = 1e-3,
        validation_fraction: float = 0.1,
        num_samples: int = 100,
        random_state: Any = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.kind = kind
        self.likelihood = likelihood
        self.prior = prior
        self.posterior = posterior
        self.widths = widths
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.num_samples = num_samples
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.positive_only = str(self.kind).partition(" ")[0] in NOT_NEGATIVE
        return tags

    @property
    def _n_features_out(self) -> int:
        return int(self.trained_.options.latent_dim)

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on rows.

        Args:
            X: the rows, shape [N, D].
            y: not used; scikit-learn hands it on.

        Raises:
            InputError: if the rows or the arguments do not fit.
            DivergenceError: if the loss is not finite.
        """
        rows = self._read(X, reset=True)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        options = self._options(seed)
        source = source_of_rows(rows, self.kind)
        vae, self.history_ = fit_vae(source, options, self.validation_fraction)
        self.vae_ = vae
        self.trained_ = Trained(
            None, options, _form(source, vae), vae, torch.device("cpu"), validation=None
        )
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the mean of q(z|x) of each row, shape [N, latent_dim].

        A mean that has no closed form is that of 100 draws. Kinds with noise in x, such as
        dequantised levels, are encoded without it.

        Args:
            X: the rows, shape [N, D].

        Raises:
            InputError: if the rows do not fit.
        """
        stored, seeds = self._stored(X)
        # In double precision a code does not depend on the rows that are encoded beside it.
        posterior = copy.deepcopy(self.vae_.posterior).double()
        with torch.no_grad(), preserve_rng_state(None):
            features = self.trained_.kind.stored_features(stored).double()
            try:
                codes = torch.cat([posterior(part).mean for part in features.split(BATCH)])
            except (NotImplementedError, AttributeError):
                means = []
                for part, row_seed in zip(features.split(1), seeds, strict=True):
                    torch.manual_seed(row_seed)
                    means.append(posterior(part).sample((DRAWS,)).mean(0))
                codes = torch.cat(means)
        return codes.numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return what is typical of p(x|z) for each code, shape [N, D], in the units of the data.

        That is the mean of numbers, and the most probable category.

        Args:
            X: the codes, shape [N, latent_dim].

        Raises:
            InputError: if they are no such codes, or the likelihood has no mean in closed form.
        """
        check_is_fitted(self)
        z = torch.from_numpy(np.array(check_array(X, dtype=np.float32)))
        if z.shape[1] != self._n_features_out:
            raise InputError(
                f"codes have {self._n_features_out} dimensions, and these have {z.shape[1]}", "X"
            )
        with torch.no_grad(), preserve_rng_state(None):
            found = [
                typical(self.vae_, self.vae_.prior.code(part), part) for part in z.split(BATCH)
            ]
        return _as_array(in_own_form(self.trained_.form, torch.cat(found), are_means=True))

    def score_samples(self, X: Any) -> np.ndarray:
        """Bound log p(x) of each row by IWAE_K, in nats on the base measure, shape [N].

        Densities are in the data's own units, so their logarithms can be of either sign. Rows are
        scored one by one, each with random draws of its own, which takes some milliseconds a row:
        of many rows `bounds.evaluate` with `vae_.model` and `vae_.guide` is faster.

        Args:
            X: the rows, shape [N, D].

        Raises:
            InputError: if the rows do not fit.
        """
        stored, seeds = self._stored(X)
        kind, num_samples = self.trained_.kind, self.trained_.options.num_samples
        # Pyro's store is put aside: the programs register their parameters in it.
        with torch.no_grad(), preserve_rng_state(None), pyro.get_param_store().scope():
            some = Arguments.of(kind.observe_once(stored[:2], 0))
            pair = look_at(self.vae_.model, self.vae_.guide, some)
            scores = []
            for row, seed in zip(stored.split(1), seeds, strict=True):
                x = kind.observe_once(row, stream_seed(seed, NOISE))
                torch.manual_seed(seed)
                drawn = pair.draw(Arguments.of(x), num_samples)
                log_p = bounds.iwae((drawn.log_p() - drawn.log_q()).double())
                scores.append(log_p + shift(kind, x))
        return torch.cat(scores).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of `score_samples`, which searches over parameters maximise.

        Args:
            X: the rows, shape [N, D].
            y: not used; scikit-learn hands it on.

        Raises:
            InputError: if the rows do not fit.
        """
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draw rows from the model, shape [n_samples, D].

        Args:
            n_samples: the number of rows.
            random_state: the seed, or the source of one; by default that of the estimator.

        Raises:
            InputError: if the number is not above zero, or the model has no totals to draw.
        """
        check_is_fitted(self)
        source = check_random_state(self.random_state if random_state is None else random_state)
        seed = int(source.randint(np.iinfo(np.int32).max))
        return _as_array(self.trained_.sample(n_samples, seed=stream_seed(seed, SAMPLES)))

    def _read(self, X: Any, reset: bool) -> np.ndarray:
        """Return rows as an array of numbers, checked as scikit-learn does it."""
        rows = validate_data(
            self, X, reset=reset, ensure_all_finite="allow-nan", ensure_min_samples=1 + reset
        )
        return np.array(rows)  # torch warns of arrays that cannot be written

    def _stored(self, X: Any) -> tuple[Tensor, list[int]]:
        """Return new rows as they are stored, and a seed for each, made from its content."""
        check_is_fitted(self)
        stored = stored_rows(self.trained_.form, self._read(X, reset=False))
        seed = self.trained_.options.seed
        return stored, [stream_seed(seed, int(each)) for each in row_hashes(stored)]

    def _options(self, seed: int) -> Options:
        """Return the arguments as the options of a run, which checks their values."""
        if str(self.kind).partition(" ")[0] not in (*KIND_NAMES, AUTO):
            raise InputError(
                f"kind has to be {AUTO} or one of {', '.join(KIND_NAMES)}, but is {self.kind}",
                "kind",
            )
        if not 0 <= self.validation_fraction < 1:
            raise InputError(
                "validation_fraction has to be from 0 to below 1, but is "
                f"{self.validation_fraction}",
                "validation_fraction",
            )
        for name in WHOLE:
            if not isinstance(getattr(self, name), Integral):
                raise InputError(
                    f"{name} has to be a whole number, but is {getattr(self, name)}", name
                )
        widths = tuple(self.widths)
        likelihood = "ByKind" if self.likelihood == AUTO else self.likelihood
        return Options(
            latent_dim=int(self.latent_dim),
            prior=part("prior", self.prior, priors),
            likelihood=part("likelihood", likelihood, likelihoods, decoder=widths[::-1]),
            posterior=part("posterior", self.posterior, posteriors, encoder=widths),
            epochs=int(self.epochs),
            batch_size=int(self.batch_size),
            lr=self.lr,
            num_samples=int(self.num_samples),
            seed=seed,
        )


def _as_array(rows: Any) -> np.ndarray:
    """Return rows in the data's own form as an array of numbers."""
    return np.asarray(rows, np.float64)


def _form(source: Source, vae: PyroVAE) -> DataForm:
    """Return the form of the rows, by which new rows are read."""
    dtype = str(source.train.read().examples.dtype).removeprefix("torch.")
    return DataForm(vae.likelihood.kind, source.columns, (), False, (), (), True, dtype, "")
