"""A VAE as a scikit-learn estimator, for pipelines and searches over parameters.

It transforms rows into codes, as PCA does, and scores them, as a density does: `score_samples`
bounds log p(x) of each row from below, by IWAE_K (Burda, Grosse & Salakhutdinov 2016, equation 8)

    log p(x) >= E[log 1/K sum_k p(x, z_k) / q(z_k | x)],    z_1, .., z_K ~ q(z | x)

The rows are arrays [N, D]. Their kind is real numbers, unless you name another one, or `auto` for
the one that the package's rules infer. Everything else is as in the package's own runs, and
`trained_` is what `pyro_vae.load` would return.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Self

import numpy as np
import pyro
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pyro_vae import bounds, likelihoods, objectives, posteriors, priors, training
from pyro_vae.data.column_spec import KIND_NAMES, kind_of_values
from pyro_vae.data.fingerprint import row_hashes
from pyro_vae.data.source import ReadOptions, Source
from pyro_vae.data.sources.in_memory import source_of_object
from pyro_vae.data.splitting import split_by_content
from pyro_vae.data.understanding.given_kinds import ALL
from pyro_vae.errors import InputError
from pyro_vae.kinds import Incomplete, Kind
from pyro_vae.networks import MLP
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.random_streams import preserve_rng_state, stream_seed
from pyro_vae.runs.applying import Trained
from pyro_vae.runs.applying.decoding import typical
from pyro_vae.runs.applying.new_rows import stored_rows
from pyro_vae.runs.applying.own_form import in_own_form
from pyro_vae.runs.data_form import DataForm
from pyro_vae.runs.options import Options
from pyro_vae.runs.parts_of_vae import make_vae
from pyro_vae.runs.validation_scores import shift

AUTO = "auto"
DRAWS = 100  # of codes, for a mean that has no closed form
NOISE = 1  # the random stream of the noise in x; that of the draws of z has no number
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
        kind: what the values are: `real`, `positive`, `counts`, `unit_interval`, `levels`,
            `binary`, `categories` or `ordered`; or `auto` for what the rules infer, column by
            column.
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

    Example:
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
        tags.input_tags.positive_only = self.kind not in ("real", "ordered", "categories", AUTO)
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
        source = _source(rows, self.kind)
        kind, train = _kind(source), source.train.read().examples
        assert isinstance(train, Tensor)
        train, validation = _split(train, self.validation_fraction, seed)
        with preserve_rng_state(None):
            torch.manual_seed(seed)
            vae = make_vae(options, kind, train)
            if vae.posterior.support == "two layers":
                raise InputError(
                    "codes in two layers are no vectors that can be returned: choose a posterior "
                    "with one layer",
                    "posterior",
                )
            kind = vae.likelihood.kind
            vae.initialize(kind.stored_features(train))
            engine = training.EagerEngine(vae.model, vae.guide, objectives.ELBO(), lr=options.lr)
            engine.check(kind.observe_once(train[:2], seed))
            callbacks: list[training.Callback] = []
            if len(validation):
                kind.check(validation)
                shown = kind.observe_once(validation, seed)
                callbacks = [training.Validate(shown), _KeepBest()]
            self.history_ = training.fit(
                engine,
                train,
                kind.observe,
                epochs=options.epochs,
                batch_size=min(options.batch_size, len(train)),
                seed=seed,
                callbacks=callbacks,
                progress=False,
            )
            for callback in callbacks:
                if isinstance(callback, _KeepBest):
                    callback.restore(engine)
        self.vae_ = vae.eval()
        dtype = str(train.dtype).removeprefix("torch.")
        form = DataForm(kind, source.columns, (), False, (), (), dtype, "")
        self.trained_ = Trained(None, options, form, vae, torch.device("cpu"), None)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the mean of q(z|x) of each row, shape [N, latent_dim].

        A mean that has no closed form is that of 100 draws.

        Args:
            X: the rows, shape [N, D].

        Raises:
            InputError: if the rows do not fit.
        """
        stored, seeds = self._stored(X)
        # In double precision a code does not depend on the rows that are encoded beside it.
        posterior = copy.deepcopy(self.vae_.posterior).double()
        features = self.trained_.kind.stored_features(stored).double()
        with torch.no_grad(), preserve_rng_state(None):
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

        Densities are in the data's own units, so their logarithms can be of either sign.

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
        return _as_array(self.trained_.sample(n_samples, seed=seed))

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
        if self.kind not in (*KIND_NAMES, AUTO):
            raise InputError(
                f"kind has to be {AUTO} or one of {', '.join(KIND_NAMES)}, and {self.kind} is not",
                "kind",
            )
        if not 0 <= self.validation_fraction < 1:
            raise InputError(
                "validation_fraction has to be from 0 to below 1, and "
                f"{self.validation_fraction} is not",
                "validation_fraction",
            )
        widths = tuple(self.widths)
        likelihood = "ByKind" if self.likelihood == AUTO else self.likelihood
        return Options(
            latent_dim=self.latent_dim,
            prior=_part("prior", self.prior, priors),
            likelihood=_part("likelihood", likelihood, likelihoods, decoder=widths[::-1]),
            posterior=_part("posterior", self.posterior, posteriors, encoder=widths),
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            num_samples=self.num_samples,
            seed=seed,
        )


class _KeepBest(training.Callback):
    """Keeps the parameters of the epoch with the best validation bound, in memory."""

    def __init__(self) -> None:
        self.bound = -np.inf
        self.state: dict[str, Any] = {}

    def after_epoch(self, training: training.Training, row: dict[str, Any]) -> None:
        """Copy the state of the engine, if the bound is the best so far."""
        if row["validation_bound"] > self.bound:
            self.bound = row["validation_bound"]
            self.state = copy.deepcopy(training.engine.state_dict())

    def restore(self, engine: training.Engine) -> None:
        """Load the parameters of the best epoch."""
        engine.load_state_dict(self.state)


def _part(
    argument: str, named: Any, module: ModuleType, **widths: Sequence[int]
) -> Callable[..., Any]:
    """Return what makes a part of the model, with networks of these widths.

    Args:
        argument: the name of the argument that names the part.
        named: the name of a class, a class, or any other callable that makes the part.
        module: the module with the classes that have names.
        widths: the widths of the network, by the name of the part's argument for it.

    Raises:
        InputError: if there is no such class.
    """
    found = getattr(module, named, None) if isinstance(named, str) else named
    if not callable(found) or (isinstance(named, str) and named not in module.__all__):
        raise InputError(
            f"{argument} has to be a class or the name of one in {module.__name__}, and {named} "
            "is not",
            argument,
        )
    given = getattr(found, "keywords", {})  # of a partial function
    networks = {
        name: partial(MLP, widths=sizes)
        for name, sizes in widths.items()
        if name in inspect.signature(found).parameters and name not in given
    }
    return partial(found, **networks) if networks else found


def _source(rows: np.ndarray, kind: str) -> Source:
    """Return rows as examples, and what their columns are.

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


def _as_array(rows: Any) -> np.ndarray:
    """Return rows in the data's own form as an array of numbers."""
    return np.asarray(rows, np.float64)
