"""Binary and one-hot codes, and their relaxations, which training needs for its gradients.

With a temperature these are the Concrete distributions (Maddison, Mnih & Teh 2017), of the logits
of a relaxed binary code, or of the logarithms of a relaxed one-hot code: on (0, 1) and on the
simplex a confident code has no room in single precision. `code`, a method of priors and
posteriors, takes them there. Without a temperature they are the discrete codes themselves.
"""

from typing import Any

import torch
from pyro.distributions import Bernoulli, Distribution, OneHotCategorical, TransformedDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor
from torch.distributions import relaxed_bernoulli, relaxed_categorical
from torch.distributions.transforms import ReshapeTransform
from torch.nn.functional import softplus

from pyro_vae.errors import InputError


class LogitRelaxedBernoulli(relaxed_bernoulli.LogitRelaxedBernoulli, TorchDistributionMixin):
    """The logit of a relaxed binary variable, y = (logits + logistic noise) / temperature.

    torch limits the logits to 16 when it draws in single precision, and not when it scores; here
    they are not limited.
    """

    has_rsample = True

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Draw y."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        noise = uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log() - torch.log1p(-uniform)
        return (self.logits + noise) / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        """Return nats: log T + d - 2 softplus(d), d = logits - T y."""
        difference = self.logits - self.temperature * value
        return self.temperature.log() + difference - 2 * softplus(difference)


class LogRelaxedOneHot(relaxed_categorical.ExpRelaxedCategorical, TorchDistributionMixin):
    """The logarithm of a relaxed one-hot variable."""

    has_rsample = True


def bernoulli(logits: Tensor, temperature: float | None) -> Distribution:
    """Return independent binary variables, or the logits of relaxed ones.

    Args:
        logits: shape [..., D].
        temperature: of the relaxation; None for the variables themselves.

    Returns:
        A distribution of batch shape [...] and event shape [D].
    """
    if temperature is None:
        return Bernoulli(logits=logits).to_event(1)
    return LogitRelaxedBernoulli(logits.new_tensor(temperature), logits=logits).to_event(1)


def one_hot(logits: Tensor, temperature: float | None) -> Distribution:
    """Return independent one-hot variables side by side, or the logarithms of relaxed ones.

    Args:
        logits: shape [..., variables, categories].
        temperature: of the relaxation; None for the variables themselves.

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
