"""Binary and one-hot codes, and their relaxations, which training needs for its gradients.

With a temperature these are the Concrete distributions (Maddison, Mnih & Teh 2017): densities on
(0, 1) and on the simplex, reparameterised. Without one they are what is relaxed.
"""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions.transforms import ReshapeTransform

from pyro_vae.errors import InputError


class _Relaxed(dist.RelaxedOneHotCategorical):
    """Draws stay off the simplex's corners, where the density is not finite in single precision."""

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        tiny: float = torch.finfo(self.logits.dtype).tiny
        return super().rsample(sample_shape).clamp(min=tiny)

    def expand(self, batch_shape: Size, _instance: Any = None) -> "_Relaxed":
        return super().expand(batch_shape, self._get_checked_instance(_Relaxed, _instance))


def bernoulli(logits: Tensor, temperature: float | None) -> dist.Distribution:
    """Return independent binary variables, or their relaxation.

    Args:
        logits: shape [..., D].
        temperature: of the relaxation; None for the variables themselves.

    Returns:
        A distribution of batch shape [...] and event shape [D].
    """
    if temperature is None:
        return dist.Bernoulli(logits=logits).to_event(1)
    return dist.RelaxedBernoulli(logits.new_tensor(temperature), logits=logits).to_event(1)


def one_hot(logits: Tensor, temperature: float | None) -> dist.Distribution:
    """Return independent one-hot variables side by side, or their relaxation.

    Args:
        logits: shape [..., variables, categories].
        temperature: of the relaxation; None for the variables themselves.

    Returns:
        A distribution of batch shape [...] and event shape [variables * categories].
    """
    if temperature is None:
        variables = dist.OneHotCategorical(logits=logits).to_event(1)
    else:
        variables = _Relaxed(logits.new_tensor(temperature), logits=logits).to_event(1)
    flatten = ReshapeTransform(logits.shape[-2:], Size([logits.shape[-2:].numel()]))
    return dist.TransformedDistribution(variables, [flatten])


def one_hot_shape(latent_dim: int, categories: int) -> tuple[int, int]:
    """Return how many variables there are, and of how many categories.

    Raises:
        InputError: if the latent dimensions cannot be shared out.
    """
    if categories < 2 or latent_dim % categories:
        raise InputError(
            f"{latent_dim} latent dimensions are no whole number of one-hot variables of "
            f"{categories} categories"
        )
    return latent_dim // categories, categories


def check_temperature(temperature: float) -> float:
    """Return a temperature that can be one.

    Raises:
        InputError: if it cannot.
    """
    if not 0.01 <= temperature <= 100:
        raise InputError(f"a temperature has to be in [0.01, 100], and {temperature:g} is not")
    return temperature
