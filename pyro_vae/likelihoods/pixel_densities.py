"""Likelihoods of pixels in [0, 1]: densities."""

import math
from typing import Literal

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.transforms import SigmoidTransform
from torch.nn.functional import logsigmoid

from pyro_vae import distributions
from pyro_vae.errors import InputError
from pyro_vae.kinds import UnitInterval
from pyro_vae.kinds.unit_interval import away_from_ends
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood, Shape
from pyro_vae.networks import MLP

DEQUANTIZED = 1 / 256 / math.sqrt(12)  # the deviation of the noise in a dequantised pixel


class ContinuousBernoulli(Likelihood):
    """The Bernoulli, normalised to a density on [0, 1], with the same logits.

    log p(x|z) is minus the cross-entropy plus log C(logits) (Loaiza-Ganem & Cunningham 2019). Grey
    images are often scored without log C; that score is not a likelihood.
    """

    kind = UnitInterval()

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


class Gaussian(Likelihood):
    """N(m(z), s^2) for each pixel.

    With s fixed, -log p(x|z) = |x - m(z)|^2 / (2 s^2) + D log(s sqrt(2 pi)). That is the squared
    error up to a factor and a constant, so the choice of s is the choice of its weight against the
    KL. If s is learned, it converges to the root mean squared error of the reconstructions, and no
    weight has to be chosen (Rybkin, Daniilidis & Levine 2021).

    Args:
        decoder: the network that maps z to m and, if each pixel has its own s, to log s.
        scale: s, or the first value of a learned s, which `initialize` replaces by one from the
            data.
        noise: the way in which s is set. `fixed`: s is `scale`. `learned`: one s for all pixels is
            learned. `per_pixel`: the decoder computes s(z), at least 0.001 (Kingma & Welling 2014,
            equation 12). `optimal`: one s is the root mean squared error of each batch in training
            (sigma-VAE, Rybkin et al. 2021), and the running mean of this error in evaluation.
    """

    kind = UnitInterval()
    running: Tensor

    def __init__(
        self,
        latent_dim: int,
        event_shape: Shape,
        decoder: Decoder = MLP,
        scale: float = 0.1,
        noise: Literal["fixed", "learned", "per_pixel", "optimal"] = "learned",
    ) -> None:
        outputs = 2 if noise == "per_pixel" else 1
        super().__init__(latent_dim, event_shape, decoder, _outputs=outputs)
        if not 1e-6 < scale < 1e6:
            raise InputError(
                f"a Gaussian's scale has to be in (1e-6, 1e6), and {scale} is not", "scale"
            )
        self.noise = noise
        if noise == "per_pixel":
            self.decoder_bias[1] = math.log(scale)
        elif noise == "optimal":
            self.register_buffer("running", torch.tensor(scale))
        else:
            learned = noise == "learned"
            self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learned)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        if self.noise == "per_pixel":
            loc, log_scale = self.decode(z)
            return self.independent(dist.Normal(loc, 1e-3 + log_scale.exp()))
        scale = self.running if self.noise == "optimal" else self.log_scale.exp()
        return self.independent(dist.Normal(self.decoder(z), scale))

    def for_training(self, z: Tensor, x: Tensor) -> dist.Distribution:
        """Return p(x|z); if the noise is `optimal`, with the s of this batch.

        That s enters the running mean with a weight of 0.01.
        """
        if self.noise != "optimal":
            return self(z)
        loc = self.decoder(z)
        scale = (x - loc).square().mean().sqrt().clamp(min=1e-6)
        self.running.lerp_(scale.detach(), 0.01)
        return self.independent(dist.Normal(loc, scale))

    def initialize(self, images: Tensor) -> None:
        """Set m to the mean image. If s is not fixed, set it to the deviation from that image."""
        self.decoder_bias[0] = images.mean(0)
        deviation = (images - images.mean(0)).square().mean(0)
        overall = deviation.mean().sqrt().clamp(min=1e-3)
        if self.noise == "per_pixel":
            self.decoder_bias[1] = (deviation.sqrt() + 0.01).log()
        elif self.noise == "optimal":
            self.running.copy_(overall)
        elif self.noise == "learned":
            self.log_scale.data.copy_(overall.log())


class _OneScale(Likelihood):
    """A location for each pixel from the decoder, and one learned scale for all pixels."""

    def __init__(self, latent_dim: int, event_shape: Shape, decoder: Decoder = MLP) -> None:
        super().__init__(latent_dim, event_shape, decoder)
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.1)))

    def initialize(self, images: Tensor) -> None:
        """Set the locations to the mean image, and the scale to the mean deviation from it."""
        self.decoder_bias[0] = images.mean(0)
        deviation = (images - images.mean(0)).abs().mean().clamp(min=1e-3)
        self.log_scale.data.copy_(deviation.log())


class Laplace(_OneScale):
    """Laplace for each pixel, with one learned scale: the absolute error.

    Args:
        decoder: the network that maps z to the medians.
    """

    kind = UnitInterval()

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(dist.Laplace(self.decoder(z), self.log_scale.exp()))


class StudentT(_OneScale):
    """Student's t for each pixel, with one learned scale and one number of degrees of freedom.

    Outlying pixels cost less than under a Gaussian.

    Args:
        decoder: the network that maps z to the locations.
        df: the first value of the degrees of freedom, more than one; they stay above one.
    """

    kind = UnitInterval()

    def __init__(
        self, latent_dim: int, event_shape: Shape, decoder: Decoder = MLP, df: float = 3.0
    ) -> None:
        super().__init__(latent_dim, event_shape, decoder)
        if not 1 < df <= 1e6:
            raise InputError(f"degrees of freedom have to be in (1, 1e6], and {df:g} are not", "df")
        self.log_df = nn.Parameter(torch.tensor(math.log(df - 1)))

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        df = 1 + self.log_df.exp()  # the mean exists
        return self.independent(dist.StudentT(df, self.decoder(z), self.log_scale.exp()))


class Beta(Likelihood):
    """Beta(m n, (1 - m) n) for each pixel, with mean m(z) and concentration n(z).

    The density may be infinite at 0 and 1: values that are closer to 0 than 2^-33 and closer to 1
    than 2^-24 are moved to that distance. For float images with exactly black or white pixels the
    density has no upper bound: store them as levels.
    """

    kind = UnitInterval()
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
        mean = images.mean(0).clamp(0.5 / 256, 1 - 0.5 / 256)
        variance = images.var(0) + DEQUANTIZED**2
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

    kind = UnitInterval()
    outputs = 2

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        loc, log_scale = self.decode(z)
        logits = dist.Normal(loc, 1e-3 + log_scale.exp())
        return self.independent(_InnerTransformed(logits, [SigmoidTransform()]))

    def initialize(self, images: Tensor) -> None:
        """Set the mean and the deviation of the logits to those of the dequantised data."""
        logits = ((255 * images + 0.5) / 256).logit()
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
