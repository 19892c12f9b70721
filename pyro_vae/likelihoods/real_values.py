"""Densities on the real line: of real values, and of pixels in [0, 1].

A learned scale is one for all pixels of an image, and one for each column of a table. Networks and
scales work in standardised units, and the densities are those of the data in their own.
"""

import math
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind, Real, UnitInterval
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood, Shape
from pyro_vae.networks import MLP


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
        noise: the way in which s is set. `fixed`: s is `scale`. `learned`: one s is learned for all
            pixels, or one for each column of a table. `per_pixel`: the decoder computes s(z), at
            least 0.001 (Kingma & Welling 2014, equation 12). `optimal`: one s is the root mean
            squared error of each batch in training (sigma-VAE, Rybkin et al. 2021), and the running
            mean of this error in evaluation.
    """

    kinds = (UnitInterval, Real)
    running: Tensor

    def __init__(
        self,
        latent_dim: int,
        x: Kind | Shape,
        decoder: Decoder = MLP,
        scale: float = 0.1,
        noise: Literal["fixed", "learned", "per_pixel", "optimal"] = "learned",
    ) -> None:
        outputs = 2 if noise == "per_pixel" else 1
        super().__init__(latent_dim, x, decoder, _outputs=outputs)
        if not 1e-6 < scale < 1e6:
            raise InputError(
                f"a Gaussian's scale has to be in (1e-6, 1e6), but is {scale}", "scale"
            )
        self.noise = noise
        if noise == "per_pixel":
            self.decoder_bias[1] = math.log(scale)
        elif noise == "optimal":
            self.register_buffer("running", torch.tensor(scale))
        else:
            learned = noise == "learned"
            shape = _scale_shape(self.kind) if learned else ()
            first = torch.full(shape, math.log(scale))
            self.log_scale = nn.Parameter(first, requires_grad=learned)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        if self.noise == "per_pixel":
            loc, log_scale = self.decode(z)
            return self._normal(loc, 1e-3 + log_scale.exp())
        scale = self.running if self.noise == "optimal" else self.log_scale.exp()
        return self._normal(self.decoder(z), scale)

    def for_training(self, z: Tensor, x: Tensor) -> dist.Distribution:
        """Return p(x|z); if the noise is `optimal`, with the s of this batch.

        That s enters the running mean with a weight of 0.01.
        """
        if self.noise != "optimal":
            return self(z)
        loc = self.decoder(z)
        scale = (self.kind.features(x) - loc).square().mean().sqrt().clamp(min=1e-6)
        self.running.lerp_(scale.detach(), 0.01)
        return self._normal(loc, scale)

    def _normal(self, loc: Tensor, scale: Tensor) -> dist.Distribution:
        return self.independent(dist.Normal(*self.kind.in_units(loc, scale)))

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
            self.log_scale.data.copy_(
                _average(deviation, self.log_scale).sqrt().clamp(min=1e-3).log()
            )


class _LearnedScale(Likelihood):
    """A location for each pixel from the decoder, and a learned scale."""

    def __init__(self, latent_dim: int, x: Kind | Shape, decoder: Decoder = MLP) -> None:
        super().__init__(latent_dim, x, decoder)
        self.log_scale = nn.Parameter(torch.full(_scale_shape(self.kind), math.log(0.1)))

    def _location(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale in the units of x."""
        return self.kind.in_units(self.decoder(z), self.log_scale.exp())

    def initialize(self, images: Tensor) -> None:
        """Set the locations to the mean image, and the scale to the mean deviation from it."""
        self.decoder_bias[0] = images.mean(0)
        deviation = _average((images - images.mean(0)).abs().mean(0), self.log_scale)
        self.log_scale.data.copy_(deviation.clamp(min=1e-3).log())


class Laplace(_LearnedScale):
    """Laplace for each pixel, with a learned scale: the absolute error.

    Args:
        decoder: the network that maps z to the medians.
    """

    kinds = (UnitInterval, Real)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(dist.Laplace(*self._location(z)))


class StudentT(_LearnedScale):
    """Student's t for each pixel, with a learned scale and one number of degrees of freedom.

    Outlying pixels cost less than under a Gaussian.

    Args:
        decoder: the network that maps z to the locations.
        df: the first value of the degrees of freedom, more than one; they stay above one.
    """

    kinds = (UnitInterval, Real)

    def __init__(
        self, latent_dim: int, x: Kind | Shape, decoder: Decoder = MLP, df: float = 3.0
    ) -> None:
        super().__init__(latent_dim, x, decoder)
        if not 1 < df <= 1e6:
            raise InputError(f"degrees of freedom have to be in (1, 1e6], but are {df:g}", "df")
        self.log_df = nn.Parameter(torch.tensor(math.log(df - 1)))

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        df = 1 + self.log_df.exp()  # the mean exists
        return self.independent(dist.StudentT(df, *self._location(z)))


def _scale_shape(kind: Kind) -> torch.Size:
    """Return the shape of a learned scale: one for all pixels, or one for each column."""
    return torch.Size() if kind.is_picture else kind.shape


def _average(deviations: Tensor, scale: Tensor) -> Tensor:
    """Return the deviations of the pixels, averaged if they have one scale."""
    return deviations if scale.dim() else deviations.mean()
