"""Classification by Bayes' rule, with a VAE whose condition y is a class.

    p(y | x) = p(x | y) p(y) / sum_y' p(x | y') p(y')

p(x | y) is estimated by IWAE_K for every class, and p(y) is given, as the frequency of the class in
the training data. The estimates have Monte Carlo errors, and so have the decisions. IWAE_K is a
lower bound: a class whose bound is looser than that of others is chosen too seldom. More draws make
both smaller.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.bounds.estimates import finite, said, standard_error
from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional
from pyro_vae.vae import VAE

REACH = 2  # Monte Carlo standard errors, within which a difference is not sure


@dataclass(frozen=True)
class Classification:
    """Probabilities of the classes of N examples.

    Attributes:
        names: the names of the classes, in the order of their codes.
        log_joint: estimates of log p(x | y) + log p(y) in nats, for every class y, shape [N, K].
        variance: the Monte Carlo variances of these, shape [N, K]; NaN where they are unknown.
        truth: the codes of the examples' own classes, shape [N].
    """

    names: tuple[str, ...]
    log_joint: Tensor
    variance: Tensor
    truth: Tensor

    @property
    def probabilities(self) -> Tensor:
        """p(y | x), shape [N, K]."""
        return self.log_joint.softmax(1)

    @property
    def mc_se(self) -> Tensor:
        """The Monte Carlo standard errors of p(y | x), shape [N, K]; NaN where they are unknown.

        By the delta method: d p_j / d log_joint_k = p_j ([j = k] - p_k).
        """
        p = self.probabilities
        derivative = p[:, :, None] * (torch.eye(p.shape[1]).to(p) - p[:, None, :])
        return (derivative.square() @ self.variance[:, :, None])[..., 0].sqrt()

    @property
    def predicted(self) -> Tensor:
        """The code of the most probable class of each example, shape [N]."""
        return self.log_joint.argmax(1)

    @property
    def is_unknown(self) -> Tensor:
        """Whether the error of an example's decision is unknown, shape [N]."""
        return self.variance.isnan().any(1)

    @property
    def is_unsure(self) -> Tensor:
        """Whether the best class is within the Monte Carlo error of another one, shape [N].

        That is, less than two standard errors of the difference ahead. False where the error is
        unknown.
        """
        best = self.predicted[:, None]
        lead = self.log_joint.gather(1, best) - self.log_joint
        error = (self.variance.gather(1, best) + self.variance).sqrt()
        close = (lead < REACH * error).scatter(1, best, False)
        return close.any(1) & ~self.is_unknown

    @property
    def is_right(self) -> Tensor:
        """Whether the predicted class is the example's own, shape [N]."""
        return self.predicted == self.truth

    @property
    def accuracy(self) -> tuple[float, float]:
        """The share of examples that are classified right, and its standard error over examples."""
        right = self.is_right.double()
        return right.mean().item(), standard_error(right) or math.nan  # unknown if all are alike

    @property
    def log_loss(self) -> tuple[float, float]:
        """The mean of -log p(own class | x) in nats, and its standard error over examples."""
        own = self.log_joint.log_softmax(1).gather(1, self.truth[:, None])[:, 0]
        return -own.mean().item(), standard_error(own)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary in a form that JSON takes."""
        summary: dict[str, Any] = {
            name: {"mean": finite(mean), "se": finite(se)}
            for name, (mean, se) in (("accuracy", self.accuracy), ("log_loss", self.log_loss))
        }
        counts = {"unsure": int(self.is_unsure.sum()), "unknown": int(self.is_unknown.sum())}
        return {"num_examples": len(self.truth), **summary, **counts}

    def __str__(self) -> str:
        accuracy, se = self.accuracy
        loss, loss_se = self.log_loss
        return (
            f"Bayes' rule classifies {100 * accuracy:.2f} % of {len(self.truth)} examples right "
            f"(se {said(100 * se, '.2f')} %), with a log-loss of {loss:.3f} nats (se "
            f"{said(loss_se)}). "
            f"{int(self.is_unsure.sum())} decisions are within the Monte Carlo error, and the "
            f"error of {int(self.is_unknown.sum())} is unknown."
        )


def class_frequencies(y: Tensor, count: int) -> Tensor:
    """Return the share of each class, `float64`, shape [count].

    Args:
        y: codes of the classes of training examples, shape [M] or [M, 1].
        count: the number of classes.
    """
    counts = torch.bincount(y.flatten().long(), minlength=count)
    return counts.double() / counts.sum()


def classify(
    vae: VAE,
    x: Tensor,
    frequencies: Tensor,
    num_samples: int = 1000,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    keep: Path | None = None,
    progress: bool = False,
) -> Classification:
    """Classify examples by Bayes' rule.

    This takes as long as bounds on log p(x | y) of K times as many examples.

    Args:
        vae: a trained VAE with conditions, in evaluation mode. Its y is one column of categories.
        x: examples with their own classes, as the likelihood sees them, shape [N, *event]. The
            classes only enter the accuracy.
        frequencies: p(y) of each class, shape [K]; see `class_frequencies`.
        num_samples: the number of draws of z for each example and class.
        seed: the seed of the draws.
        batch_size: see `bounds.evaluate`.
        keep: a file for the results so far; see `bounds.evaluate`.
        progress: whether to show a progress bar.

    Raises:
        InputError: if y is no class, or `frequencies` are no probabilities of the classes.
    """
    kind = vae.likelihood.kind
    count = num_classes(kind) if isinstance(kind, Conditional) else 0
    if not isinstance(kind, Conditional) or count == 0:
        raise InputError(
            "classification needs a model of p(x | y) whose condition y is one column of "
            f"categories, and this model is of {kind}",
            "condition",
        )
    log_p = frequencies.double().log()
    is_distribution = bool((frequencies >= 0).all()) and math.isclose(
        frequencies.sum().item(), 1, rel_tol=1e-6
    )
    if tuple(log_p.shape) != (count,) or not is_distribution:
        raise InputError(
            f"frequencies have to be {count} probabilities of the classes, which add up to one",
            "frequencies",
        )
    own, truth = kind.parted(x)
    # All examples with the first class, then all with the second class, ..
    classes = torch.arange(count, device=x.device).repeat_interleave(len(x))[:, None]
    found = bounds.evaluate(
        vae.model,
        vae.guide,
        kind.packed(own.repeat(count, *[1] * len(kind.of.shape)), classes.to(x)),
        num_samples,
        ladder=(),
        seed=seed,
        batch_size=batch_size,
        keep=keep,
        progress=progress,
    ).bound
    return Classification(
        names=tuple(kind.given.text(0, code) for code in range(count)),
        log_joint=found.values.view(count, len(x)).T + log_p.to(found.values.device),
        variance=found.mc_variance.view(count, len(x)).T,
        truth=truth[:, 0].long().to(found.values.device),
    )


def num_classes(kind: Conditional) -> int:
    """Return the number of classes that y is one of; 0 if it is no class."""
    sizes = kind.given.num_categories.expand(kind.given.shape)
    return int(sizes[0]) if len(sizes) == 1 else 0
