"""The Pareto k-hat of importance weights, which says how far they can be trusted."""

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from pyro_vae.bounds.arviz_versions import load_arviz


def tail_length(num_samples: int) -> int:
    """Return how many of the largest weights k-hat is fitted to (Vehtari et al. 2024, sec. 2)."""
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def pareto_k(log_w: Tensor, num_samples: int | None = None) -> Tensor:
    """Fit the Pareto shape k-hat to the tail of each example's weights (Vehtari et al. 2024).

    Args:
        log_w: log-weights, shape [N, num_samples]; or the `tail_length` + 1 largest, or more, of
            each row.
        num_samples: the number of weights of an example; by default the number that is given.

    Returns:
        k-hat, `float64`, shape [N]. The weights have 1 / k-hat finite moments. k-hat is infinite if
        the tail has fewer than five weights, and 0 if the weights of the tail are equal.
    """
    log_w = log_w.detach().double().cpu()
    num_samples = num_samples or log_w.shape[1]
    tail = tail_length(num_samples)
    k = torch.full((len(log_w),), math.inf, dtype=torch.float64)
    largest = log_w.topk(min(tail + 1, log_w.shape[1])).values
    if tail < 5:
        return k
    equal = largest[:, 0] - largest[:, tail - 1] < 1e-4  # up to rounding
    k[equal] = 0.0
    fitted = (~equal).nonzero()[:, 0]
    if len(fitted) == 0:
        return k
    # ArviZ fits to the largest 3 sqrt(S / r_eff) of S weights, rounded up in 0.x and down in 1.x,
    # but to S / 5 at most. The fit uses the values of the largest tail + 1 weights, and only the
    # number of the others. So the rows are padded to a length S at which this rule gives `tail`.
    arviz, old = load_arviz()
    size = 5 * (tail + 1)
    below = largest[fitted, -1:].expand(-1, size - largest.shape[1])
    padded = torch.cat([below, largest[fitted]], 1).numpy()
    r_eff = 9 * size / (tail + (-0.5 if old else 0.5)) ** 2
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if old:
            _, k_hat = arviz.psislw(padded, reff=r_eff)
        else:
            from arviz_stats.base import array_stats

            _, k_hat = array_stats.psislw(-padded, r_eff=r_eff)  # its argument is log 1 / w
    k[fitted] = torch.as_tensor(np.asarray(k_hat))
    return k


def good_k(num_samples: int) -> float:
    """Return the k-hat up to which the weights are reliable (Vehtari et al. 2024, eq. 13)."""
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 10 else 0.0
