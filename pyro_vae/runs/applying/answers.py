"""What a trained model says about new data. All arrays are in the order of their rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RowScores:
    """Bounds on log p(x) of N rows, in nats, on the base measure of the run.

    Attributes:
        log_p: a lower bound on log p(x): IWAE_K, or that of annealing, shape [N]. Of data with
            holes it is that of the observed values; with conditions y it is on log p(x | y).
        mc_se: its Monte Carlo standard error, shape [N]; NaN where it is unknown.
        khat: Pareto k-hat of the weights, shape [N]. Above 0.7 the bound may be far too low.
        percentile: the share of validation examples, in percent, whose IWAE_100 is lower than that
            of the row, shape [N]; NaN if fewer than 100 draws were made, or the run has no
            `scores.pt`.
        upper: an upper bound on log p(x) in expectation, shape [N]; None without annealing. It is
            for single rows only as good as its error.
        upper_mc_se: its Monte Carlo standard error, shape [N]; NaN where it is unknown.
        base_measure: the measure that log p(x) refers to.
        num_samples: K, the number of draws for each row.
    """

    log_p: np.ndarray
    mc_se: np.ndarray
    khat: np.ndarray
    percentile: np.ndarray
    upper: np.ndarray | None
    upper_mc_se: np.ndarray | None
    base_measure: str
    num_samples: int

    def columns(self) -> dict[str, np.ndarray]:
        """Return the arrays that there are, by their names."""
        names = ("log_p", "mc_se", "khat", "percentile", "upper", "upper_mc_se")
        found = {name: getattr(self, name) for name in names}
        return {name: array for name, array in found.items() if array is not None}

    def to_frame(self) -> Any:
        """Return the arrays as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.columns())


@dataclass(frozen=True)
class Codes:
    """Codes z of N rows.

    Attributes:
        mean: the means of q(z|x), shape [N, latent_dim].
        scale: its standard deviations, the same.
        draws: draws from it, shape [draws, N, latent_dim].
        in_closed_form: whether mean and scale are exact; otherwise they are those of 100 draws or
            more.
    """

    mean: np.ndarray
    scale: np.ndarray
    draws: np.ndarray
    in_closed_form: bool


@dataclass(frozen=True)
class Imputed:
    """Rows whose missing values are imputed, in the form that the data had.

    Attributes:
        values: the rows, with the means of missing numbers and the most probable ones of missing
            categories; observed values are unchanged.
        lower: the lower ends of 90 % intervals of missing numbers, an array [N, ..]; NaN elsewhere,
            and where the draws of a row are not reliable.
        upper: the upper ends.
        draws: multiple imputations, each in the form of `values`.
        ess: the effective number of draws of each row, shape [N].
        khat: Pareto k-hat of the weights of each row, shape [N].
    """

    values: Any
    lower: np.ndarray
    upper: np.ndarray
    draws: list[Any]
    ess: np.ndarray
    khat: np.ndarray
