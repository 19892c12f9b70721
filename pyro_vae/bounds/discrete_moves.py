"""Proposals for discrete variables, from the gradient of the log-density.

All variables are proposed at once, each independently of the others: a variable of value i gets

    the value j != i with a probability proportional to  s exp((g_j - g_i) / 2)

and keeps its value with a probability proportional to 1 (Zhang, Liu & Liu 2022). g_j is the
gradient by the weight of value j, so g_j - g_i estimates the change of the log-density. The factor
s is the step size: the smaller s is, the fewer variables change. A move accepts or refuses the
proposal by the exact densities, and by the exact probabilities of the proposal and of its reverse.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

LARGEST_GRADIENT = 1e4

Variables = Iterable[tuple[int, int, int]]  # see `Densities.variables`


def propose(log_probs: list[Tensor]) -> Tensor:
    """Draw new values, as weights, shape [chains, batch, all weights]."""
    drawn = []
    for log_prob in log_probs:
        gumbel = -torch.empty_like(log_prob).exponential_().log()
        values = one_hot((log_prob + gumbel).argmax(-1), log_prob.shape[-1])
        drawn.append(values.to(log_prob.dtype).flatten(2))
    return torch.cat(drawn, -1)


def proposal(u: Tensor, gradient: Tensor, step: Tensor, variables: Variables) -> list[Tensor]:
    """Return the log-probabilities of the new values of each variable.

    Args:
        u: the coordinates, shape [chains, batch, D].
        gradient: the gradient of the log-density at u, shape [chains, batch, D].
        step: the factor s of each example, shape [batch].
        variables: the places of the variables in u.

    Returns:
        For each entry of `variables`, log-probabilities of shape [chains, batch, variables, V].
    """
    log_probs = []
    for first, end, count in variables:
        weights, slope = (
            part[:, :, first:end].unflatten(-1, (-1, count)) for part in (u, gradient)
        )
        slope = slope.nan_to_num(0.0).clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT)
        change = (slope - (weights * slope).sum(-1, keepdim=True)) / 2
        log_step = step.log()[:, None, None]
        log_probs.append((change + (1 - weights) * log_step).log_softmax(-1))
    return log_probs


def log_probability(log_probs: list[Tensor], u: Tensor, variables: Variables) -> Tensor:
    """Return the log-probability of proposing the values in u, shape [chains, batch]."""
    terms = []
    for log_prob, (first, end, count) in zip(log_probs, variables, strict=True):
        weights = u[:, :, first:end].unflatten(-1, (-1, count))
        terms.append(torch.where(weights > 0, log_prob, 0.0).sum((-1, -2)))
    return torch.stack(terms).sum(0)
