"""The log p(x, y) of each class y, and Bayes' rule."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.programs.arguments import Arguments
from pyro_vae.semi_supervised.class_and_code import SemiSupervised


@dataclass(frozen=True)
class ClassEvidence:
    """What is known of log p(x, y), for each class y of each x.

    Attributes:
        log_p_x_and_y: IWAE_K of log p(x, y), nats, shape [N, classes].
        mc_variance: the Monte Carlo variance of each, shape [N, classes]; NaN where it is unknown.
        khat: the Pareto k-hat of the weights, shape [N, classes]; above 0.7 IWAE_K may be far below
            log p(x, y), and the probabilities below may be wrong.
    """

    log_p_x_and_y: Tensor
    mc_variance: Tensor
    khat: Tensor

    @property
    def log_p_x(self) -> Tensor:
        """A bound on log p(x), log sum_y p(x, y), nats, shape [N]."""
        return self.log_p_x_and_y.logsumexp(-1)

    @property
    def probabilities(self) -> Tensor:
        """p(y|x) by Bayes' rule, shape [N, classes]; an estimate, and no bound."""
        return self.log_p_x_and_y.softmax(-1)


def class_evidence(
    m2: SemiSupervised, x: Tensor, num_samples: int = 100, **options: Any
) -> ClassEvidence:
    """Estimate log p(x, y) for each class y by importance sampling from q(z|x, y).

    Args:
        m2: the model and its guide, in evaluation mode.
        x: examples as the likelihood sees them, shape [N, *event].
        num_samples: K, the number of draws of z for each x and y.
        options: the other options of `bounds.evaluate`.
    """
    results = []
    for c in range(len(m2.model.log_p_y)):
        y = torch.full((len(x),), c, device=x.device)
        results.append(bounds.evaluate(m2.model, m2.guide, Arguments(x, y), num_samples, **options))
    return ClassEvidence(
        torch.stack([result.bound.values for result in results], -1),
        torch.stack([result.bound.mc_variance for result in results], -1),
        torch.stack([result.khat for result in results], -1),
    )
