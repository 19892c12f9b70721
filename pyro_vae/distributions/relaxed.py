"""Binary and one-hot codes, and their relaxations, which have the gradients that training needs.

With a temperature, these are the Concrete distributions (Maddison, Mnih & Teh 2017) of the logits
of a relaxed binary code, or of the logarithms of a relaxed one-hot code. The relaxed codes
themselves lie in (0, 1) and on the simplex, where single precision cannot represent a confident
code; the method `code` of priors and posteriors maps logits and logarithms to them. Without a
temperature, these are the distributions of the discrete codes.
"""

from typing import Any

import torch
from pyro.distributions import Bernoulli, Distribution, OneHotCategorical, TransformedDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor
from torch.distributions import relaxed_bernoulli, relaxed_categorical
from torch.distributions.transforms import ReshapeTransform
from torch.nn.functional import softplus

from pyro_vae.errors import InputError, check_range


class LogitRelaxedBernoulli(relaxed_bernoulli.LogitRelaxedBernoulli, TorchDistributionMixin):
    """The logit of a relaxed binary variable, y = (logits + logistic noise) / temperature.

    In single precision torch limits the logits to 16 in `rsample`, but not in `log_prob`. Here
    neither limits them.
    """

    has_rsample = True

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw y, shape [*sample_shape, *batch]."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        noise = uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log() - torch.log1p(-uniform)
        return (self.logits + noise) / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log T + d - 2 softplus(d) in nats, with d = logits - T y."""
        difference = self.logits - self.temperature * value
        return self.temperature.log() + difference - 2 * softplus(difference)


class LogRelaxedOneHot(relaxed_categorical.ExpRelaxedCategorical, TorchDistributionMixin):
    """The logarithm of a relaxed one-hot variable."""

    has_rsample = True


def bernoulli(logits: Tensor, temperature: float | None) -> Distribution:
    """Return the distribution of independent binary variables, or of the logits of relaxed ones.

    Args:
        logits: the log-odds of the variables, shape [..., D].
        temperature: the temperature of the relaxation; None for the binary variables themselves.

    Returns:
        A distribution of batch shape [...] and event shape [D].
    """
    if temperature is None:
        return Bernoulli(logits=logits).to_event(1)
    return LogitRelaxedBernoulli(logits.new_tensor(temperature), logits=logits).to_event(1)


def one_hot(logits: Tensor, temperature: float | None) -> Distribution:
    """Return the distribution of independent one-hot variables, or of the logs of relaxed ones.

    The variables are concatenated into one vector.

    Args:
        logits: the log-probabilities, up to constants, shape [..., variables, categories].
        temperature: the temperature of the relaxation; None for the one-hot variables themselves.

    Returns:
        A distribution of batch shape [...] and event shape [variables * categories].
    """
    if temperature is None:
        variables = OneHotCategorical(logits=logits).to_event(1)
    else:
        variables = LogRelaxedOneHot(logits.new_tensor(temperature), logits=logits).to_event(1)
    flatten = ReshapeTransform(logits.shape[-2:], Size([logits.shape[-2:].numel()]))
    return TransformedDistribution(variables, [flatten])


def one_hot_shape(latent_dim: int, categories: int) -> tuple[int, int]:
    """Return the number of one-hot variables, and of the categories of each.

    Args:
        latent_dim: the dimension of all variables together.
        categories: the number of categories of each variable.

    Raises:
        InputError: if `categories` is less than 2, or `latent_dim` is not a multiple of it.
    """
    if categories < 2 or latent_dim % categories:
        raise InputError(
            f"{latent_dim} latent dimensions cannot be divided into one-hot variables of "
            f"{categories} categories: choose two categories or more, and a multiple of them as "
            "latent dimensions",
            "categories",
        )
    return latent_dim // categories, categories


def check_temperature(temperature: float) -> float:
    """Return the temperature of a relaxation.

    Raises:
        InputError: if it is not between 0.01 and 100.
    """
    return check_range("temperature", temperature, 0.01, 100)
