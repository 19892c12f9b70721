"""The Pareto k-hat of importance weights: how far they can be relied on."""

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from pyro_vae.bounds.arviz_versions import load_arviz


def tail_length(num_samples: int) -> int:
    """Return how many of the largest weights a k-hat is fitted to (Vehtari et al. 2024, sec. 2)."""
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def pareto_k(log_w: Tensor, num_samples: int | None = None) -> Tensor:
    """Fit the Pareto shape k-hat to the tail of each example's weights (Vehtari et al. 2024).

    Args:
        log_w: log-weights, shape [N, num_samples]; or, of so many, the `tail_length` + 1 largest.
        num_samples: how many there were; all that are given, by default.

    Returns:
        k-hat, `float64`, shape [N]: 1 / k-hat is how many moments the weights have. Infinite where
        the tail is of four weights or fewer; 0 where they are all alike.
    """
    log_w = log_w.detach().double().cpu()
    num_samples = num_samples or log_w.shape[1]
    tail = tail_length(num_samples)
    k = torch.full((len(log_w),), math.inf, dtype=torch.float64)
    largest = log_w.topk(min(tail + 1, log_w.shape[1])).values
    if tail < 5:
        return k
    alike = largest[:, 0] - largest[:, tail - 1] < 1e-4  # as rounding makes weights differ
    k[alike] = 0.0
    fitted = (~alike).nonzero()[:, 0]
    if len(fitted) == 0:
        return k
    # ArviZ fits to the largest 3 sqrt(S / r_eff) of S weights, rounded up in 0.x and down in 1.x,
    # and to S / 5 at most. The fit is blind to what is below the largest tail + 1.
    arviz, old = load_arviz()
    size = 5 * (tail + 1)
    below = largest[fitted, -1:].expand(-1, size - largest.shape[1])
    padded = torch.cat([below, largest[fitted]], 1).numpy()
    r_eff = 9 * size / (tail + (-0.5 if old else 0.5)) ** 2
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if old:
            _, found = arviz.psislw(padded, reff=r_eff)
        else:
            from arviz_stats.base import array_stats

            _, found = array_stats.psislw(-padded, r_eff=r_eff)  # it takes log 1 / w
    k[fitted] = torch.as_tensor(np.asarray(found))
    return k


def good_k(num_samples: int) -> float:
    """Return the k-hat up to which so many weights are reliable (Vehtari et al. 2024, eq. 13)."""
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 10 else 0.0
