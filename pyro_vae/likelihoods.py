"""Likelihoods p(x|z): what an image is, given its code.

-log p(x|z) is the reconstruction term of the loss. Cross-entropy is a `Bernoulli`; mean squared
error is a `Gaussian` of fixed scale, up to a constant. `support` says what x may be, and so in what
form images are shown to the likelihood; `observations` says how probabilities of levels and
densities on the unit interval are compared, and that neither can be with binary pixels.

Densities on the whole line (Gaussian, Laplace, Student t) waste what they put outside [0, 1]: they
are below the same densities truncated, and their bounds stay bounds.

To add one, subclass `Likelihood`: the constructor takes the latent dimension, the shape of x, and
then the options of the command line; `forward` returns the distribution of x for a batch of z.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.distributions.transforms import SigmoidTransform
from torch.nn.functional import logsigmoid

from pyro_vae import distributions
from pyro_vae.autoregressive import Autoregressive, GatedPixelCNN
from pyro_vae.errors import InputError
from pyro_vae.networks import MLP, Network
from pyro_vae.observations import Support, white

Decoder = Callable[[Sequence[int], Sequence[int]], Network]

DEQUANTIZED = 1 / 256 / math.sqrt(12)  # the deviation of the noise in a dequantised pixel


class Likelihood(nn.Module, ABC):
    """A distribution over images for each code, from a decoder network.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to the parameters of each pixel's distribution.
        outputs: how many parameters a pixel has.

    Attributes:
        support: what x may be.
    """

    support: ClassVar[Support]

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.outputs = outputs
        # As channels, so that convolutional decoders make them as they make colours.
        *channels, height, width = (1, *event_shape) if len(event_shape) == 1 else event_shape
        stacked = (outputs * math.prod(channels), height, width)
        self.decoder = decoder((latent_dim,), event_shape if outputs == 1 else stacked)

    @abstractmethod
    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z), with batch shape [...] and event shape `event_shape`.

        Args:
            z: shape [..., latent_dim].
        """

    def decode(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the parameters of the pixels, `outputs` tensors of shape [..., *event_shape]."""
        parameters = self.decoder(z).reshape(*z.shape[:-1], self.outputs, *self.event_shape)
        return parameters.unbind(z.dim() - 1)

    @property
    def start(self) -> Tensor:
        """The decoder's biases, to be filled, shape [outputs, *event_shape]."""
        return self.decoder.bias.data.view(self.outputs, *self.event_shape)

    def initialize(self, images: Tensor) -> None:
        """Start from the data; called once before training.

        Args:
            images: training images, shape [N, *event_shape], intensities in [0, 1].
        """

    def picture(self, z: Tensor) -> Tensor:
        """Return an image to look at for each z: the mean of p(x|z), if it is known.

        Args:
            z: shape [..., latent_dim].

        Returns:
            Intensities in [0, 1], shape [..., *event_shape].
        """
        return (self(z).mean / white(self.support)).clamp(0, 1)

    def independent(self, pixels: dist.Distribution) -> dist.Distribution:
        """Return the distribution of an image of independent pixels."""
        return pixels.to_event(len(self.event_shape))


class Bernoulli(Likelihood):
    """Independent binary pixels, the decoder giving their logits.

    -log p(x|z) is the cross-entropy.
    """

    support = "binary"

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(dist.Bernoulli(logits=self.decoder(z)))

    def initialize(self, images: Tensor) -> None:
        """Start the pixels' probabilities at their means, off 0 and 1 by 0.001."""
        self.decoder.bias.data.copy_(images.mean(0).clamp(1e-3, 1 - 1e-3).logit())


class Binomial(Likelihood):
    """Independent levels, each the number of 255 coins that fall heads up.

    At middling greys its deviation is 8 levels, whatever the decoder does.
    """

    support = "levels"

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(dist.Binomial(255, logits=self.decoder(z)))

    def initialize(self, images: Tensor) -> None:
        """Start the pixels' means at those of the data, off black and white by 0.001."""
        self.decoder.bias.data.copy_(images.mean(0).clamp(1e-3, 1 - 1e-3).logit())


class ContinuousBernoulli(Likelihood):
    """The Bernoulli made a density that integrates to one over [0, 1], from the same logits.

    log p(x|z) is the cross-entropy plus log C(logits) (Loaiza-Ganem & Cunningham 2019); without
    log C, as grey images are often scored, it is no likelihood.
    """

    support = "unit_interval"

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
            mean squared error of each batch (sigma-VAE, Rybkin et al. 2021, equation 8), and in
            evaluation its running mean.
    """

    support = "unit_interval"
    running: Tensor

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        scale: float = 0.1,
        noise: Literal["fixed", "learned", "per_pixel", "optimal"] = "learned",
    ) -> None:
        super().__init__(latent_dim, event_shape, decoder, outputs=1 + (noise == "per_pixel"))
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

    support = "unit_interval"

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

    support = "unit_interval"

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        df: float = 3.0,
    ) -> None:
        super().__init__(latent_dim, event_shape, decoder)
        if not 1 < df < math.inf:
            raise InputError(f"degrees of freedom have to be more than 1, and {df:g} are not")
        self.log_df = nn.Parameter(torch.tensor(math.log(df - 1)))

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        df = 1 + self.log_df.exp()  # there is a mean
        return self.independent(dist.StudentT(df, self.decoder(z), self.log_scale.exp()))


class Beta(Likelihood):
    """Beta(m n, (1 - m) n), pixel by pixel, with mean m(z) and concentration n(z).

    The density may be infinite at 0 and 1: values closer than 2^-33 and 2^-24 are taken as there.
    """

    support = "unit_interval"

    def __init__(self, latent_dim: int, event_shape: Sequence[int], decoder: Decoder = MLP) -> None:
        super().__init__(latent_dim, event_shape, decoder, outputs=2)

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

    def expand(self, batch_shape: Size, _instance: Any = None) -> "_InnerBeta":
        return super().expand(batch_shape, self._get_checked_instance(_InnerBeta, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        # In double precision: log B of large concentrations is a difference of large numbers.
        first, second = self.concentration1.double(), self.concentration0.double()
        log_b = first.lgamma() + second.lgamma() - (first + second).lgamma()
        x = value.clamp(2**-33, 1 - 2**-24).double()
        log_prob = (first - 1) * x.log() + (second - 1) * (-x).log1p() - log_b
        return log_prob.to(self.concentration1.dtype)


class LogitNormal(Likelihood):
    """The logits of the pixels are N(m(z), s(z)^2).

    Values closer to 0 and 1 than 2^-33 and 2^-24 are taken as there.
    """

    support = "unit_interval"

    def __init__(self, latent_dim: int, event_shape: Sequence[int], decoder: Decoder = MLP) -> None:
        super().__init__(latent_dim, event_shape, decoder, outputs=2)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        loc, log_scale = self.decode(z)
        logits = dist.Normal(loc, 1e-3 + log_scale.exp())
        return self.independent(dist.TransformedDistribution(logits, [SigmoidTransform()]))

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


class DiscretizedLogistic(Likelihood):
    """A mixture of logistic densities, integrated over each level (Salimans et al. 2017).

    With one component: Kingma et al. 2016.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to the location and scale of each component, and to its
            weight.
        components: how many are mixed, pixel by pixel.
    """

    support = "levels"

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        components: int = 1,
    ) -> None:
        if components < 1:
            raise InputError(f"a mixture needs at least one component, and not {components}")
        outputs = 2 if components == 1 else 3 * components
        super().__init__(latent_dim, event_shape, decoder, outputs)
        self.components = components

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(_logistics(torch.stack(self.decode(z), -1)))

    def initialize(self, images: Tensor) -> None:
        """Start at the mean and deviation of each pixel, the components side by side."""
        loc, log_scale, *_ = self.start.split(self.components)
        spread = torch.linspace(-1, 1, self.components + 2)[1:-1].to(loc)
        deviation = images.std(0)
        loc.copy_(images.mean(0) + deviation * spread.view(-1, *[1] * images[0].dim()))
        log_scale.copy_(((255 * deviation * math.sqrt(3) / math.pi) + 0.5).log().expand_as(loc))


def _logistics(parameters: Tensor) -> dist.Distribution:
    """A mixture of discretised logistics for each pixel.

    Args:
        parameters: locations as intensities, log-scales in levels, and logits, one after another:
            shape [..., 3 * components]; [..., 2] for a single one.
    """
    count = max(1, parameters.shape[-1] // 3)
    loc, log_scale, logits = parameters.split([count, count, parameters.shape[-1] - 2 * count], -1)
    scale = 0.05 + log_scale.clamp(-10, 10).exp()
    if count == 1:
        return distributions.DiscretizedLogistic(255 * loc[..., 0], scale[..., 0])
    components = distributions.DiscretizedLogistic(255 * loc, scale)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)


class Categorical(Likelihood):
    """Any distribution over the 256 levels of each pixel.

    The decoder gives each pixel some features, and all pixels share a linear map from these to the
    logits of the levels; each pixel has biases of its own.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x.
        decoder: the network that maps z to the features.
        features: of each pixel.
    """

    support = "levels"

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        features: int = 8,
    ) -> None:
        if features < 1:
            raise InputError(f"a Categorical needs one feature or more, and not {features}")
        super().__init__(latent_dim, event_shape, decoder, outputs=features)
        self.logits = nn.Linear(features, 256, bias=False)
        self.biases = nn.Parameter(torch.zeros(*event_shape, 256))

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        features = torch.stack(self.decode(z), -1)
        return self.independent(_Levels(logits=self.logits(features) + self.biases))

    def initialize(self, images: Tensor) -> None:
        """Start at how often each pixel has each level, smoothed with how often any pixel has."""
        levels = (255 * images).round().long()
        counts = torch.stack([(levels == level).sum(0) for level in range(256)], -1).float()
        share = counts.flatten(0, -2).sum(0) + 1
        self.biases.data.copy_((counts + 10 * share / share.sum()).log())


class _Levels(dist.Categorical):
    """A categorical distribution over levels, whose mean is one."""

    def expand(self, batch_shape: Size, _instance: Any = None) -> "_Levels":
        return super().expand(batch_shape, self._get_checked_instance(_Levels, _instance))

    @property
    def mean(self) -> Tensor:
        levels = torch.arange(256, dtype=self.logits.dtype, device=self.logits.device)
        return self.probs @ levels

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        return super().sample(sample_shape).to(self.logits.dtype)


class PixelCNN(Likelihood):
    """An autoregressive decoder of binary pixels: a gated PixelCNN whose context is z.

    log p(x|z) = sum_i log p(x_i | x_<i, z), in raster order (van den Oord et al. 2016; as a
    decoder, Gulrajani et al. 2017, Chen et al. 2017). So strong that it may do without z: posterior
    collapse. The fewer layers and the smaller the kernel, the less it sees, the more it needs z.

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x: [H, W] or [C, H, W].
        decoder: the network that maps z to the context of each pixel.
        context: how many numbers that is.
        channels: of the hidden layers.
        layers: how many there are.
        kernel_size: of the convolutions, odd.
    """

    support: ClassVar[Support] = "binary"
    pixel_support: ClassVar[constraints.Constraint] = constraints.boolean
    pixel_outputs: ClassVar[int] = 1

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        decoder: Decoder = MLP,
        context: int = 4,
        channels: int = 16,
        layers: int = 4,
        kernel_size: int = 5,
    ) -> None:
        nn.Module.__init__(self)
        self.event_shape = torch.Size(event_shape)
        self.network = GatedPixelCNN(
            event_shape, self.pixel_outputs, context, channels, layers, kernel_size
        )
        self.decoder = decoder((latent_dim,), (context, *event_shape[-2:]))

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return Autoregressive(
            self.network,
            self.pixels,
            self.decoder(z),
            self.event_shape,
            scale=white(self.support),
            support=self.pixel_support,
        )

    def pixels(self, parameters: Tensor) -> dist.Distribution:
        """Return the distribution of the pixels, for parameters of shape [N, 1, *event_shape]."""
        return dist.Bernoulli(logits=parameters[:, 0])

    def picture(self, z: Tensor) -> Tensor:
        """Return a draw from p(x|z): its mean is not known."""
        return self(z).sample() / white(self.support)


class PixelCNNLevels(PixelCNN):
    """An autoregressive decoder of 256 levels: a gated PixelCNN whose context is z.

    As `PixelCNN`, and each pixel a mixture of three discretised logistics (Salimans et al. 2017).

    Args:
        latent_dim: the dimension of z.
        event_shape: the shape of one x: [H, W] or [C, H, W].
        decoder: the network that maps z to the context of each pixel.
        context: how many numbers that is.
        channels: of the hidden layers.
        layers: how many there are.
        kernel_size: of the convolutions, odd.
    """

    support = "levels"
    pixel_support = constraints.integer_interval(0, 255)
    pixel_outputs = 9

    def pixels(self, parameters: Tensor) -> dist.Distribution:
        """Return the distribution of the pixels, for parameters of shape [N, 9, *event_shape]."""
        loc, log_scale, logits = parameters.movedim(1, -1).split(3, -1)
        apart = torch.linspace(0, 1, 3).to(loc)  # black, grey and white to start from
        return _logistics(torch.cat([loc + apart, log_scale + 2, logits], -1))
