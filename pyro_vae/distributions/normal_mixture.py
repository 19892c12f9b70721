"""Mixtures: a fast one of diagonal normals, and a function that uses it where it can."""

import math

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_vae.distributions.expandable import Expandable


class NormalMixture(Expandable):
    """A mixture of K diagonal normals whose density needs no tensor of shape [..., K, d].

        log p(z) = log sum_k exp(c_k + z . (m / s^2)_k - z^2 . (1 / (2 s^2))_k)

    is computed by products of matrices. Its terms cancel, so it is computed in double precision,
    with an error of 1e-16 |z|^2 / s^2.

    All distributions of a batch have the same components; their weights differ.

    Args:
        logits: the logarithms of the weights, up to a constant, shape [*batch, K].
        loc: the means m of the components, shape [K, d].
        scale: their standard deviations s, positive, shape [K, d].
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {  # noqa: RUF012 - torch's name and type
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    batched = {"logits": 1}  # noqa: RUF012 - a class variable in the base class
    shared = ("loc", "scale")

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None
    ) -> None:
        if logits.dim() < 1 or loc.dim() != 2 or len(loc) != logits.shape[-1]:
            raise ValueError(
                "logits and loc must have shapes [.., K] and [K, d], "
                f"not {list(logits.shape)} and {list(loc.shape)}"
            )
        self.logits, self.loc, self.scale = logits, loc, scale.expand(loc.shape)
        super().__init__(logits.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The weighted mean of the components' means, shape [*batch, d]."""
        return self.logits.softmax(-1) @ self.loc

    @property
    def variance(self) -> Tensor:
        """The mean of the components' variances plus the variance of their means, [*batch, d]."""
        weights = self.logits.softmax(-1)
        # The average of all means is subtracted first: large means would cancel otherwise.
        loc = self.loc - self.loc.mean(0)
        return weights @ (self.scale.square() + loc.square()) - (weights @ loc).square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats, in the dtype of value, shape value.shape[:-1]."""
        if self._validate_args:
            self._validate_sample(value)
        loc, scale = self.loc.double(), self.scale.double()
        precision = scale.square().reciprocal()
        half_norm = scale.log() + 0.5 * (loc.square() * precision + math.log(2 * math.pi))
        z = value.double().reshape(-1, value.shape[-1])
        exponent = torch.addmm(-half_norm.sum(-1), z, (loc * precision).T)
        exponent = torch.addmm(exponent, z.square(), precision.T, alpha=-0.5)
        exponent = exponent.reshape(*value.shape[:-1], -1)
        log_weights = self.logits.double().log_softmax(-1)
        return (exponent + log_weights).logsumexp(-1).to(value.dtype)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw a component for each sample, and then from its normal distribution."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            k = torch.distributions.Categorical(logits=self.logits).sample(sample_shape)
            return torch.normal(self.loc[k], self.scale[k]).reshape(shape)


def mixture(logits: Tensor, components: dist.Distribution) -> dist.Distribution:
    """Return the mixture over the last batch dimension of the components.

    For diagonal normals this is the faster `NormalMixture`.

    Args:
        logits: the logarithms of the weights, up to a constant, shape [*batch, K].
        components: a distribution of batch shape [K] and event shape [d].
    """
    if (
        isinstance(components, torch.distributions.Independent)
        and type(components.base_dist) is dist.Normal
        and components.reinterpreted_batch_ndims == 1
        and len(components.batch_shape) == 1
    ):
        return NormalMixture(logits, components.base_dist.loc, components.base_dist.scale)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)
