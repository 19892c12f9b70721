"""The test examples that are hard for a model: of the lowest likelihood, or with the loosest bound.

The gap IWAE_K - ELBO of an example is how far its ELBO is known to be below log p(x): there q(z|x)
is far from the posterior.
"""

from typing import Any

import torch
from torch import Tensor

from pyro_vae.bounds.estimates import finite
from pyro_vae.kinds import column_names
from pyro_vae.runs.evaluation import Evaluation
from pyro_vae.runs.run import Run

COUNT = 8  # examples of each sort
COLUMNS = 8  # columns of a table that are written


def find(evaluation: Evaluation) -> dict[str, Tensor]:
    """Return places of evaluated examples, the hardest first: `lowest` and `loosest`."""
    importance = evaluation.importance
    gap = importance.bound.values - importance.elbo.values
    return {
        "lowest": importance.bound.values.argsort()[:COUNT],
        "loosest": gap.nan_to_num(0.0).argsort(descending=True)[:COUNT],
    }


def describe(run: Run, evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Return what `bounds.json` holds of the hard examples.

    Returns:
        For each example its index in the test set, IWAE_K, the ELBO and the gap in nats, k-hat, and
        of rows of a table the first values.
    """
    importance = evaluation.importance

    def about(place: int) -> dict[str, Any]:
        log_p, elbo = importance.bound.values[place].item(), importance.elbo.values[place].item()
        index = int(run.evaluated[place])
        return {
            "example": index,
            "log_p": finite(log_p),
            "elbo": finite(elbo),
            "gap": finite(log_p - elbo),
            "khat": finite(importance.khat[place].item()),
            "values": {} if run.kind.is_picture else _values(run, run.test[index]),
        }

    return {
        name: [about(place) for place in places.tolist()]
        for name, places in find(evaluation).items()
    }


def pictures(run: Run, evaluation: Evaluation) -> Tensor:
    """Return the hard examples as pictures, the lowest first, shape [2 n, *event]."""
    places = torch.cat([*find(evaluation).values()]).cpu()
    x = run.test[run.evaluated[places].to(run.device)]
    return run.kind.intensities(x)


def _values(run: Run, row: Tensor) -> dict[str, str]:
    """Return the values of a row as people read them, by the names of their columns."""
    names = column_names(run.kind)[:COLUMNS]
    return {name: run.kind.text(place, row[place].item()) for place, name in enumerate(names)}
