"""Likelihoods of pixels in [0, 1]."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.distributions.transforms import SigmoidTransform
from torch.nn.functional import logsigmoid

from pyro_vae import distributions
from pyro_vae.errors import InputError
from pyro_vae.kinds import UnitInterval
from pyro_vae.kinds.unit_interval import inside
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood
from pyro_vae.networks import MLP

DEQUANTIZED = 1 / 256 / math.sqrt(12)  # the deviation of the noise in a dequantised pixel


class ContinuousBernoulli(Likelihood):
    """The Bernoulli made a density that integrates to one over [0, 1], from the same logits.

    log p(x|z) is the cross-entropy plus log C(logits) (Loaiza-Ganem & Cunningham 2019); without
    log C, as grey images are often scored, it is no likelihood.
    """

    kind = UnitInterval()

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(distributions.ContinuousBernoulli(self.decoder(z)))

    def initialize(self, images: Tensor) -> None:
        """Start the pixels' means at those of the data, found by bisection in the logit."""
        # Means closer than 1/30 to 0 or 1 are left for training to find: a pixel that was never
        # on may yet be.
        low = torch.full_like(self.decoder.bias, -30.0)
        high = -low
        mean = images.mean(0)
        for _ in range(40):
            middle = (low + high) / 2
            below = distributions.ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        self.decoder.bias.data.copy_(low)


class Gaussian(Likelihood):
    """N(m(z), s^2), pixel by pixel.

    With s fixed, -log p(x|z) = |x - m(z)|^2 / (2 s^2) + D log(s sqrt(2 pi)): the squared error up
    to a factor and a constant, so to choose its weight against the KL is to choose s. Learned, s
    settles at the root mean squared error of the reconstructions, and there is no weight left to
    choose (Rybkin, Daniilidis & Levine 2021).

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to m, and to s if that is each pixel's own.
        scale: s, or where a learned s starts if there are no data to start it from.
        noise: `fixed`; `learned`, one s for all pixels; `per_pixel`, s(z) from the decoder (Kingma
            & Welling 2014, equation 12), 0.001 at least; `optimal`, one s, in training the root
            mean squared error of each batch (sigma-VAE, Rybkin et al. 2021), and in
            evaluation its running mean.
    """

    kind = UnitInterval()
    running: Tensor

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        scale: float = 0.1,
        noise: Literal["fixed", "learned", "per_pixel", "optimal"] = "learned",
    ) -> None:
        self.outputs = 1 + (noise == "per_pixel")
        super().__init__(latent_dim, event_shape, decoder)
        if not 1e-6 < scale < 1e6:
            raise InputError(f"a Gaussian's scale has to be in (1e-6, 1e6), and {scale} is not")
        self.noise = noise
        if noise == "per_pixel":
            self.start[1] = math.log(scale)
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
        loc = self.decoder(z)
        if self.noise != "optimal":
            return self.independent(dist.Normal(loc, self.log_scale.exp()))
        if self.training:
            return self.independent(_OptimalNormal(loc, self.running))
        return self.independent(dist.Normal(loc, self.running))

    def initialize(self, images: Tensor) -> None:
        """Start m at the mean image, and s, unless it is fixed, at the deviation from it."""
        self.start[0] = images.mean(0)
        deviation = (images - images.mean(0)).square().mean(0)
        overall = deviation.mean().sqrt().clamp(min=1e-3)
        if self.noise == "per_pixel":
            self.start[1] = (deviation.sqrt() + 0.01).log()
        elif self.noise == "optimal":
            self.running.copy_(overall)
        elif self.noise == "learned":
            self.log_scale.data.copy_(overall.log())


class _OptimalNormal(dist.TorchDistribution):
    """N(loc, s^2), s the root mean squared error over all of the values that are scored at once."""

    arg_constraints = {"loc": constraints.real}  # noqa: RUF012 - as torch has it
    support = constraints.real

    def __init__(self, loc: Tensor, running: Tensor) -> None:
        self.loc = loc
        self.running = running
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    def expand(self, batch_shape: Size, _instance: Any = None) -> "_OptimalNormal":
        return _OptimalNormal(self.loc.expand(batch_shape), self.running)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        return dist.Normal(self.loc, self.running).sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        scale = (value - self.loc).square().mean().sqrt().clamp(min=1e-6)
        self.running.lerp_(scale.detach(), 0.01)
        return dist.Normal(self.loc, scale).log_prob(value)


class _Scaled(Likelihood):
    """A location for each pixel from the decoder, and one scale for all of them."""

    def __init__(self, latent_dim: int, event_shape: Sequence[int], decoder: Decoder = MLP) -> None:
        super().__init__(latent_dim, event_shape, decoder)
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.1)))

    def initialize(self, images: Tensor) -> None:
        """Start at the mean image, and the scale at the mean deviation from it."""
        self.start[0] = images.mean(0)
        deviation = (images - images.mean(0)).abs().mean().clamp(min=1e-3)
        self.log_scale.data.copy_(deviation.log())


class Laplace(_Scaled):
    """Laplace, pixel by pixel, with one learned scale: the absolute error.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to the medians.
    """

    kind = UnitInterval()

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(dist.Laplace(self.decoder(z), self.log_scale.exp()))


class StudentT(_Scaled):
    """Student's t, pixel by pixel, with one learned scale and number of degrees of freedom.

    Pixels that are far off cost less than under a Gaussian.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to the locations.
        df: where the degrees of freedom start, more than one; they stay above one.
    """

    kind = UnitInterval()

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        df: float = 3.0,
    ) -> None:
        super().__init__(latent_dim, event_shape, decoder)
        if not 1 < df <= 1e6:
            raise InputError(f"degrees of freedom have to be in (1, 1e6], and {df:g} are not")
        self.log_df = nn.Parameter(torch.tensor(math.log(df - 1)))

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        df = 1 + self.log_df.exp()  # there is a mean
        return self.independent(dist.StudentT(df, self.decoder(z), self.log_scale.exp()))


class Beta(Likelihood):
    """Beta(m n, (1 - m) n), pixel by pixel, with mean m(z) and concentration n(z).

    The density may be infinite at 0 and 1: values closer than 2^-33 and 2^-24 are taken as there.
    Float images that are exactly black or white in places have no bounded density: store levels.
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
        """Start at the mean and the variance of each pixel, dequantised."""
        mean = images.mean(0).clamp(0.5 / 256, 1 - 0.5 / 256)
        variance = images.var(0) + DEQUANTIZED**2
        self.start[0] = mean.logit()
        self.start[1] = (mean * (1 - mean) / variance - 1).clamp(min=0.1).log()


class _InnerBeta(dist.Beta):
    """A Beta whose density is not asked for at 0 and 1."""

    def log_prob(self, value: Tensor) -> Tensor:
        # In double precision: log B of large concentrations is a difference of large numbers.
        first, second = self.concentration1.double(), self.concentration0.double()
        log_b = first.lgamma() + second.lgamma() - (first + second).lgamma()
        x = inside(value).double()
        log_prob = (first - 1) * x.log() + (second - 1) * (-x).log1p() - log_b
        return log_prob.to(self.concentration1.dtype)


class LogitNormal(Likelihood):
    """The logits of the pixels are N(m(z), s(z)^2).

    Values closer to 0 and 1 than 2^-33 and 2^-24 are taken as there. Float images that are exactly
    black or white in places have no bounded density: store levels.
    """

    kind = UnitInterval()
    outputs = 2

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        loc, log_scale = self.decode(z)
        logits = dist.Normal(loc, 1e-3 + log_scale.exp())
        return self.independent(_InnerTransformed(logits, [SigmoidTransform()]))

    def initialize(self, images: Tensor) -> None:
        """Start at the mean and deviation of the logits, dequantised."""
        middle = ((255 * images + 0.5) / 256).logit()
        self.start[0] = middle.mean(0)
        self.start[1] = (middle.std(0) + 0.5).log()

    def picture(self, z: Tensor) -> Tensor:
        """Return the mean of p(x|z), by Gauss-Hermite quadrature."""
        loc, log_scale = self.decode(z)
        nodes, weights = np.polynomial.hermite_e.hermegauss(20)
        picture = torch.zeros_like(loc)
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            picture += weight * torch.sigmoid(loc + node * (1e-3 + log_scale.exp()))
        return picture


class _InnerTransformed(dist.TransformedDistribution):
    """A distribution on (0, 1) whose density is not asked for at 0 and 1."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(inside(value))
