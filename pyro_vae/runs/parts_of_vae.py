"""The VAE of a run, from the parts that its options name."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pyro_vae import checkpoint
from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Incomplete, Kind, Stored
from pyro_vae.likelihoods import Given, Likelihood, ObservedEntries
from pyro_vae.programs import ranks
from pyro_vae.runs.memory import make_within_memory
from pyro_vae.runs.options import Options
from pyro_vae.vae import VAE


def named_likelihood(likelihood: Likelihood) -> Likelihood:
    """Return the likelihood that the options name: that of whole examples, without conditions."""
    while isinstance(likelihood, Given | ObservedEntries):
        likelihood = likelihood.whole
    return likelihood


def _make_likelihood(options: Options, kind: Kind) -> Likelihood:
    """Make the likelihood that the options name, of data that may have holes and conditions."""
    given = kind.given if isinstance(kind, Conditional) else None
    of = kind.of if isinstance(kind, Conditional) else kind
    whole = of.whole if isinstance(of, Incomplete) else of
    conditions = 0 if given is None else given.feature_shape[0]
    likelihood = options.likelihood(options.latent_dim + conditions, whole)
    if isinstance(of, Incomplete):
        likelihood = ObservedEntries(likelihood)
        with torch.no_grad():  # refuses values that depend on each other, before Pyro runs it
            likelihood(torch.zeros(1, options.latent_dim + conditions))
    return likelihood if given is None else Given(likelihood, given)


def make_vae(options: Options, kind: Kind, train: Stored | None = None) -> VAE:
    """Make the parts that the options name, for data of a kind.

    Args:
        options: the options of the run.
        kind: what the data are.
        train: stored training examples, from which the likelihood's kind takes its statistics; None
            if `kind` is that of a likelihood, and has them already.

    Raises:
        InputError: if the parts do not fit together, or need more memory than there is.
    """

    def make() -> VAE:
        prior = options.prior(options.latent_dim)
        likelihood = _make_likelihood(options, kind)
        if train is not None:
            likelihood.kind.check(train)
            likelihood.fit_kind(train)
        posterior = options.posterior(likelihood.kind.feature_shape, options.latent_dim)
        return VAE(prior, likelihood, posterior)

    with abstract_refused():
        return make_within_memory(make, trained=train is not None)


@contextlib.contextmanager
def abstract_refused() -> Iterator[None]:
    """Make parts that the options name inside this context.

    Raises:
        InputError: if a class is abstract.
    """
    try:
        yield
    except TypeError as error:
        if "abstract class" not in str(error):  # a mistake in a user's own class
            raise
        raise InputError(
            f"{error}: choose a subclass that implements them, see the help"
        ) from error


def load_best(vae: VAE, path: Path) -> dict[str, Any]:
    """Load the parameters of the best epoch into a VAE, and set it to evaluation mode.

    Args:
        vae: the VAE that the options of the run describe.
        path: a run's `best.pt`.

    Returns:
        What the file holds.

    Raises:
        InputError: if there is no such file, or its parameters do not fit.
    """
    state = checkpoint.load(path)
    try:
        for name in ("bound", "bound_before"):
            checkpoint.typed(state, name, float, None, default=None)
        vae.model.load_state_dict(state["model"])
        vae.guide.load_state_dict(state["guide"])
        if any(parameter.isnan().any() for parameter in vae.parameters()):
            raise TypeError("a parameter is NaN")
        vae.eval()  # in training mode, some priors draw, and batch norms change
        if not isinstance(vae.likelihood.kind, Conditional):
            with torch.no_grad():
                vae.prior()  # refuses scales that are not positive
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not fit the model that config.yaml describes") from error
    # Of several processes, one may have read a file that was replaced since then.
    ranks.copy_from_first([*vae.model.state_dict().values(), *vae.guide.state_dict().values()])
    return state


def start_from(vae: VAE, folder: Path) -> None:
    """Load the parameters of another run's best epoch, and leave the VAE in training mode.

    Raises:
        InputError: if that folder is no trained run, or its parameters do not fit.
    """
    try:
        load_best(vae, folder / "best.pt")
    except InputError as error:
        raise InputError(
            f"training cannot start from {folder}: it has to be a trained run with the same "
            "parts, data of the same shape, and the same kinds of columns",
            "init_from",
        ) from error
    vae.train()
