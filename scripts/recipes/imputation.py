"""Impute scikit-learn's breast_cancer with half of its values missing, beside scikit-learn.

A VAE with a Student t likelihood, trained by IWAE on what is observed (MIWAE, Mattei & Frellsen
2019), against `IterativeImputer` with BayesianRidge and with ExtraTrees, on the same masks. The
score is the mean squared error of the hidden values in standardised units; differences are paired.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyro
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - sklearn asks for it
from sklearn.impute import IterativeImputer
from sklearn.linear_model import BayesianRidge
from torch import Tensor

from pyro_vae import VAE, kinds, likelihoods, networks, objectives, posteriors, priors, training
from pyro_vae.prediction import impute, score

LATENT_DIM, WIDTHS = 10, [128, 128]


def train(x: Tensor, epochs: int, seed: int) -> VAE:
    """Return a VAE that was trained on rows with missing values."""
    pyro.clear_param_store()
    torch.manual_seed(seed)

    def network(inputs: Sequence[int], outputs: Sequence[int]) -> networks.Network:
        return networks.MLP(inputs, outputs, widths=WIDTHS)

    whole = likelihoods.StudentT(LATENT_DIM, kinds.Real(x.shape[1:]), decoder=network)
    likelihood = likelihoods.ObservedEntries(whole)
    likelihood.fit_kind(x)
    posterior = posteriors.Normal(likelihood.kind.feature_shape, LATENT_DIM, encoder=network)
    vae = VAE(priors.StandardNormal(LATENT_DIM), likelihood, posterior)
    vae.initialize(likelihood.kind.stored_features(x))
    engine = training.EagerEngine(vae.model, vae.guide, objectives.IWAE(20), 1e-3)
    training.fit(
        engine, x, likelihood.kind.observe, epochs=epochs, batch_size=64, seed=seed, callbacks=[]
    )
    return vae.eval()


def main() -> None:
    """Print the squared errors for each mask, and the paired differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--masks", type=int, default=5, help="The number of masks.")
    parser.add_argument("--epochs", type=int, default=500, help="Passes over the rows.")
    options = parser.parse_args()
    table = load_breast_cancer().data
    table = (table - table.mean(0)) / table.std(0)
    peers: dict[str, Callable[[int], IterativeImputer]] = {
        "BayesianRidge": lambda seed: IterativeImputer(BayesianRidge(), random_state=seed),
        "ExtraTrees": lambda seed: IterativeImputer(
            ExtraTreesRegressor(100, random_state=seed), max_iter=5, random_state=seed
        ),
    }
    errors: dict[str, list[np.ndarray]] = {name: [] for name in ("VAE", *peers)}
    for seed in range(options.masks):
        missing = np.random.default_rng(seed).random(table.shape) < 0.5
        holes = np.where(missing, np.nan, table)
        started = time.monotonic()
        x = torch.as_tensor(holes, dtype=torch.float32)
        vae = train(x, options.epochs, seed)
        kind = vae.likelihood.kind
        assert isinstance(kind, kinds.Incomplete)
        hidden = torch.as_tensor(np.where(missing, table, np.nan), dtype=torch.float32)
        found = impute(vae, x, 2000, draws=0, hidden=hidden, seed=seed)
        seconds = [time.monotonic() - started]
        imputed = {"VAE": found.values.numpy()}
        for name, make in peers.items():
            started = time.monotonic()
            with np.errstate(all="ignore"):
                imputed[name] = make(seed).fit_transform(holes)
            seconds.append(time.monotonic() - started)
        for name, values in imputed.items():
            squares = np.where(missing, (values - table) ** 2, 0)
            errors[name].append(squares.sum(1) / missing.sum())
        shown = ", ".join(f"{name} {errors[name][-1].sum():.4f}" for name in errors)
        times = ", ".join(f"{each:.0f} s" for each in seconds)
        print(f"mask {seed}: {shown} ({times})")
        print(score(found, hidden, kind, torch.ones(table.shape[1])), flush=True)
    rows = {name: np.mean(each, 0) for name, each in errors.items()}  # of a row, over the masks
    for name in peers:
        difference = rows["VAE"] - rows[name]
        se = difference.std(ddof=1) * len(difference) ** 0.5
        print(f"VAE - {name}: {difference.sum():+.4f} (se {se:.4f}, over rows)")


if __name__ == "__main__":
    main()
