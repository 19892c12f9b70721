"""Densities on [0, 1]."""

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.transforms import SigmoidTransform
from torch.nn.functional import logsigmoid

from pyro_vae import distributions
from pyro_vae.kinds import UnitInterval
from pyro_vae.kinds.unit_interval import away_from_ends
from pyro_vae.likelihoods.likelihood import Likelihood


class ContinuousBernoulli(Likelihood):
    """The Bernoulli, normalised to a density on [0, 1], with the same logits.

    log p(x|z) is minus the cross-entropy plus log C(logits) (Loaiza-Ganem & Cunningham 2019). Grey
    images are often scored without log C; that score is not a likelihood.
    """

    kinds = (UnitInterval,)
    kind: UnitInterval

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(distributions.ContinuousBernoulli(self.decoder(z)))

    def initialize(self, images: Tensor) -> None:
        """Set the pixels' means to those of the data, by bisection in the logit."""
        # Logits stay within +-30: means closer than 1/30 to 0 or 1 are left to training, because
        # a pixel that is black in all training images may be white in a new one.
        low = torch.full_like(self.decoder.bias, -30.0)
        high = -low
        mean = images.mean(0)
        for _ in range(40):
            middle = (low + high) / 2
            below = distributions.ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        self.decoder.bias.data.copy_(low)


class Beta(Likelihood):
    """Beta(m n, (1 - m) n) for each pixel, with mean m(z) and concentration n(z).

    The density may be infinite at 0 and 1: values that are closer to 0 than 2^-33 and closer to 1
    than 2^-24 are moved to that distance. For float images with exactly black or white pixels the
    density has no upper bound: store them as levels.
    """

    kinds = (UnitInterval,)
    kind: UnitInterval
    outputs = 2

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        logit, log_n = self.decode(z)
        log_n = log_n.clamp(-10, 10)
        first = (logsigmoid(logit) + log_n).exp()
        second = (logsigmoid(-logit) + log_n).exp()
        return self.independent(_InnerBeta(first + 1e-6, second + 1e-6))

    def initialize(self, images: Tensor) -> None:
        """Set the mean and the variance of each pixel to those of the dequantised data."""
        levels = self.kind.levels or 256
        mean = images.mean(0).clamp(0.5 / levels, 1 - 0.5 / levels)
        variance = images.var(0) + 1 / 12 / levels**2  # of the noise in a dequantised pixel
        self.decoder_bias[0] = mean.logit()
        self.decoder_bias[1] = (mean * (1 - mean) / variance - 1).clamp(min=0.1).log()


class _InnerBeta(dist.Beta):
    """A Beta whose density is not evaluated at 0 and 1, but next to them."""

    def log_prob(self, value: Tensor) -> Tensor:
        # In double precision: log B of large concentrations is a difference of large numbers.
        first, second = self.concentration1.double(), self.concentration0.double()
        log_b = first.lgamma() + second.lgamma() - (first + second).lgamma()
        x = away_from_ends(value).double()
        log_prob = (first - 1) * x.log() + (second - 1) * (-x).log1p() - log_b
        return log_prob.to(self.concentration1.dtype)


class LogitNormal(Likelihood):
    """The logit of each pixel is N(m(z), s(z)^2).

    Values that are closer to 0 than 2^-33 and closer to 1 than 2^-24 are moved to that distance.
    For float images with exactly black or white pixels the density has no upper bound: store them
    as levels.
    """

    kinds = (UnitInterval,)
    kind: UnitInterval
    outputs = 2

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        loc, log_scale = self.decode(z)
        logits = dist.Normal(loc, 1e-3 + log_scale.exp())
        return self.independent(_InnerTransformed(logits, [SigmoidTransform()]))

    def initialize(self, images: Tensor) -> None:
        """Set the mean and the deviation of the logits to those of the dequantised data."""
        levels = self.kind.levels or 256
        logits = (((levels - 1) * images + 0.5) / levels).logit()
        self.decoder_bias[0] = logits.mean(0)
        self.decoder_bias[1] = (logits.std(0) + 0.5).log()

    def picture(self, z: Tensor) -> Tensor:
        """Return the mean of p(x|z), by Gauss-Hermite quadrature."""
        loc, log_scale = self.decode(z)
        nodes, weights = np.polynomial.hermite_e.hermegauss(20)
        picture = torch.zeros_like(loc)
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            picture += weight * torch.sigmoid(loc + node * (1e-3 + log_scale.exp()))
        return picture


class _InnerTransformed(dist.TransformedDistribution):
    """A distribution on (0, 1) whose density is not evaluated at 0 and 1, but next to them."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(away_from_ends(value))
