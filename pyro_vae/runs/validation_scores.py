"""log p(x) of validation examples, with which the score of a new example is compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae import bounds, checkpoint
from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind
from pyro_vae.vae import VAE

NAME = "scores.pt"
NUM_SAMPLES = 100  # draws of z for each example
MOST = 1000  # examples


@dataclass(frozen=True)
class ValidationScores:
    """Scores of validation examples.

    Attributes:
        log_p: IWAE_K of each in nats, on the base measure of the run, rising, shape [N], `float64`.
        num_samples: K.
    """

    log_p: Tensor
    num_samples: int

    @classmethod
    def of(cls, vae: VAE, x: Tensor, data_seed: int, seed: int) -> "ValidationScores":
        """Score at most `MOST` validation examples, drawn at random.

        Args:
            vae: a trained VAE, in evaluation mode.
            x: the validation examples as the likelihood sees them.
            data_seed: the seed of the choice.
            seed: the seed of the draws of z.
        """
        generator = torch.Generator().manual_seed(data_seed)
        chosen = x[torch.randperm(len(x), generator=generator)[:MOST].to(x.device)]
        found = bounds.evaluate(
            vae.model, vae.guide, chosen, NUM_SAMPLES, ladder=(), seed=seed
        ).bound.values
        log_p = found + shift(vae.likelihood.kind, chosen)
        return cls(log_p.sort().values, NUM_SAMPLES)

    def percentiles(self, log_p: Tensor) -> Tensor:
        """Return the share of validation examples with lower scores, in percent.

        Args:
            log_p: IWAE_K of other examples for the same K, shape [M]; NaN where it is unknown.
        """
        below = torch.searchsorted(self.log_p, log_p)
        equal = torch.searchsorted(self.log_p, log_p, right=True) - below
        share = 100 * (below + 0.5 * equal).double() / len(self.log_p)
        return share.where(~log_p.isnan(), torch.nan)  # NaN would be above all

    def save(self, folder: Path) -> None:
        """Write `scores.pt`."""
        checkpoint.save(folder / NAME, {"log_p": self.log_p, "num_samples": self.num_samples})

    @classmethod
    def read(cls, folder: Path) -> "ValidationScores | None":
        """Read `scores.pt`; None if training has not come to its end.

        Args:
            folder: the folder of a run.

        Raises:
            InputError: if the file cannot be used.
        """
        path = folder / NAME
        if not path.exists():
            return None
        state: dict[str, Any] = checkpoint.load(path)
        try:
            log_p, num_samples = state["log_p"], checkpoint.typed(state, "num_samples", int)
            if log_p.ndim != 1 or not log_p.is_floating_point() or not len(log_p):
                raise ValueError(f"scores of the shape {log_p.shape}")
            if num_samples < 1 or not (log_p.diff() >= 0).all():
                raise ValueError("the scores are not in order")
            return cls(log_p, num_samples)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged: replace it with a complete copy") from error


def shift(kind: Kind, x: Tensor) -> Tensor:
    """Return the nats that are added to log p(x) to have it on the base measure, on the CPU.

    Args:
        kind: the kind of the data.
        x: examples as the likelihood sees them, shape [N, *event].
    """
    return torch.as_tensor(kind.shift(x)).cpu().double()
