"""Posteriors q(z|x): the guide's side, amortised by an encoder network.

The gap between log p(x) and the ELBO is KL(q(z|x) || p(z|x)). Part of it is the family's fault, the
approximation gap, and a richer family closes it: correlated normals, flows. The rest is the
encoder's, the amortisation gap (Cremer, Li & Duvenaud 2018): see `refinement`.

To add one, subclass `Posterior`: the constructor takes the shape of x, the latent dimension, and
then the options of the command line; `forward` returns the distribution of z for a batch of x.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.nn import ConditionalAutoRegressiveNN
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from pyro_vae import discrete, distributions
from pyro_vae.errors import InputError
from pyro_vae.networks import MLP, Network

Encoder = Callable[[Sequence[int], Sequence[int]], Network]
Latent = Literal["real", "sphere", "binary", "categorical", "two layers"]


class Posterior(nn.Module, ABC):
    """A distribution over codes for each x.

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z.

    Attributes:
        support: where its codes are; a prior's have to be there too.
    """

    support: ClassVar[Latent] = "real"

    def __init__(self, event_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.latent_dim = latent_dim

    @abstractmethod
    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x), with batch shape [...] and event shape [latent_dim].

        Args:
            x: intensities in [0, 1], shape [..., *event_shape].
        """

    def code(self, z: Tensor) -> Tensor:
        """Return what the decoder is shown of z, shape [..., latent_dim]; most show z itself."""
        return z


class Normal(Posterior):
    """N(m(x), diag(s(x)^2)), m and s from one encoder (Kingma & Welling 2014, equation 9).

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z.
        encoder: the network that maps x to m and s.
    """

    def __init__(self, event_shape: Sequence[int], latent_dim: int, encoder: Encoder = MLP) -> None:
        super().__init__(event_shape, latent_dim)
        self.encoder = encoder(event_shape, (2, latent_dim))

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        loc, raw_scale = self.encoder(x).unbind(-2)
        return dist.Normal(loc, _positive(raw_scale)).to_event(1)


class FullNormal(Posterior):
    """N(m(x), L(x) L(x)'), with any covariance, L lower triangular.

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z.
        encoder: the network that maps x to m and L.
    """

    def __init__(self, event_shape: Sequence[int], latent_dim: int, encoder: Encoder = MLP) -> None:
        super().__init__(event_shape, latent_dim)
        self.encoder = encoder(event_shape, (latent_dim * (latent_dim + 3) // 2,))

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        dim = self.latent_dim
        loc, raw_scale, below = self.encoder(x).split([dim, dim, dim * (dim - 1) // 2], -1)
        scale = _positive(raw_scale)
        rows, columns = torch.tril_indices(dim, dim, -1, device=x.device)
        lower = torch.zeros(*loc.shape, dim, dtype=loc.dtype, device=loc.device)
        lower[..., rows, columns] = below
        # Rows in units of their scale: what is learned below the diagonal is a correlation.
        return dist.MultivariateNormal(
            loc, scale_tril=scale.diag_embed() + scale[..., None] * lower
        )


class LowRankNormal(Posterior):
    """N(m(x), F(x) F(x)' + diag(s(x)^2)), F with a few columns.

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z.
        encoder: the network that maps x to m, s and F.
        rank: the number of columns of F.
    """

    def __init__(
        self, event_shape: Sequence[int], latent_dim: int, encoder: Encoder = MLP, rank: int = 2
    ) -> None:
        super().__init__(event_shape, latent_dim)
        if rank < 1:
            raise InputError(f"a LowRankNormal's rank has to be at least 1, and {rank} is not")
        self.encoder = encoder(event_shape, (2 + rank, latent_dim))

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        loc, raw_scale, *factors = self.encoder(x).unbind(-2)
        scale = _positive(raw_scale)
        factor = scale[..., None] * torch.stack(factors, -1)
        return dist.LowRankMultivariateNormal(loc, factor, scale.square())


class _Flow(Posterior):
    """z = m(x) + s(x) f(u; h(x)), u ~ N(0, I), with f autoregressive transforms, one after another.

    The order of the dimensions is turned round from one to the next. Fast to draw from; the density
    of a draw comes with it, that of any other z takes a pass for each dimension.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder,
        layers: int,
        hidden: int,
        context: int,
        outputs: Sequence[int],
    ) -> None:
        super().__init__(event_shape, latent_dim)
        if latent_dim < 2:
            raise InputError(
                f"the posterior {type(self).__name__} needs two latent dimensions or more"
            )
        if min(layers, hidden, context) < 1:
            raise InputError("layers, hidden and context of a flow have to be at least 1")
        self.context = context
        self.encoder = encoder(event_shape, (2 * latent_dim + context,))
        order = torch.arange(latent_dim)
        networks = [
            ConditionalAutoRegressiveNN(
                latent_dim,
                context,
                [max(hidden, latent_dim)] * 2,
                param_dims=list(outputs),
                permutation=order.flip(0) if layer % 2 else order,
            )
            for layer in range(layers)
        ]
        self.networks = nn.ModuleList(networks)
        with torch.no_grad():  # start near a diagonal normal
            for network in networks:
                for parameter in network.layers[-1].parameters():
                    parameter.mul_(0.1)

    @abstractmethod
    def transform(self, network: nn.Module, context: Tensor) -> dist.transforms.Transform:
        """Return one layer of f for a batch of h, shape [..., context]."""

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        dim = self.latent_dim
        loc, raw_scale, context = self.encoder(x).split([dim, dim, self.context], -1)
        base = dist.Normal(torch.zeros_like(loc), torch.ones_like(loc)).to_event(1)
        layers = [self.transform(network, context) for network in self.networks]
        affine = transforms.AffineTransform(loc, _positive(raw_scale), event_dim=1, cache_size=1)
        return dist.TransformedDistribution(base, [*layers, affine])


class IAF(_Flow):
    """Inverse autoregressive flow (Kingma et al. 2016, equation 10).

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z, two or more.
        encoder: the network that maps x to m, s and h.
        layers: the number of autoregressive transforms.
        hidden: the width of their two hidden layers.
        context: the dimension of h.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        layers: int = 2,
        hidden: int = 100,
        context: int = 50,
    ) -> None:
        super().__init__(event_shape, latent_dim, encoder, layers, hidden, context, [1, 1])

    def transform(self, network: nn.Module, context: Tensor) -> dist.transforms.Transform:
        """Return one affine layer."""
        return transforms.ConditionalAffineAutoregressive(network).condition(context)


class SplineFlow(_Flow):
    """Autoregressive rational splines (Durkan et al. 2019; linear ones, Dolatabadi et al. 2020).

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z, two or more.
        encoder: the network that maps x to m, s and h.
        layers: the number of autoregressive transforms.
        hidden: the width of their two hidden layers.
        context: the dimension of h.
        bins: of each spline, on [-4, 4]; outside it is the identity.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        layers: int = 2,
        hidden: int = 100,
        context: int = 50,
        bins: int = 8,
    ) -> None:
        if not 2 <= bins <= 500:
            raise InputError(f"a spline needs two bins or more, and 500 at most, not {bins}")
        self.bins = bins
        outputs = [bins, bins, bins - 1, bins]
        super().__init__(event_shape, latent_dim, encoder, layers, hidden, context, outputs)

    def transform(self, network: nn.Module, context: Tensor) -> dist.transforms.Transform:
        """Return one layer of splines."""
        return transforms.ConditionalSplineAutoregressive(
            self.latent_dim, network, count_bins=self.bins, bound=4.0
        ).condition(context)


class PowerSpherical(Posterior):
    """The power spherical distribution on the unit sphere (De Cao & Aziz 2020).

    Much like von Mises-Fisher's, and without its rejection sampler.

    Args:
        event_shape: the shape of one x.
        latent_dim: of the space that the sphere is in, two or more.
        encoder: the network that maps x to the direction and the concentration.
    """

    support = "sphere"

    def __init__(self, event_shape: Sequence[int], latent_dim: int, encoder: Encoder = MLP) -> None:
        super().__init__(event_shape, latent_dim)
        if latent_dim < 2:
            raise InputError("a sphere needs two latent dimensions or more")
        self.encoder = encoder(event_shape, (latent_dim + 1,))
        self.encoder.bias.data[-1] = 3.0  # start with a signal, of three parts to one of noise

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x)."""
        direction, raw = self.encoder(x).split([self.latent_dim, 1], -1)
        return distributions.PowerSpherical(
            normalize(direction, dim=-1), _positive(raw.squeeze(-1)) * self.latent_dim
        )

    def code(self, z: Tensor) -> Tensor:
        """Return codes of variance one, as `priors.UniformSphere`."""
        return z * self.latent_dim**0.5


class Bernoulli(Posterior):
    """Independent binary codes; in training, relaxed to (0, 1).

    In training mode this is the binary Concrete distribution (Maddison, Mnih & Teh 2017), of the
    logits of relaxed codes, and the ELBO is that of the relaxed model. In evaluation mode
    (`vae.eval()`) codes are 0 or 1, and bounds are those of the discrete model.

    Args:
        event_shape: the shape of one x.
        latent_dim: the number of binary variables.
        encoder: the network that maps x to the logits.
        temperature: of the relaxation.
    """

    support = "binary"

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        temperature: float = 2 / 3,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        self.encoder = encoder(event_shape, (latent_dim,))
        self.temperature = discrete.check_temperature(temperature)

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x), relaxed in training mode."""
        return discrete.bernoulli(self.encoder(x), self.temperature if self.training else None)

    def code(self, z: Tensor) -> Tensor:
        """Return codes in (0, 1) in training, where z are their logits."""
        return z.sigmoid() if self.training else z


class Categorical(Posterior):
    """Independent categorical codes, one-hot, side by side; in training, relaxed to the simplex.

    In training mode this is the Concrete distribution (Maddison, Mnih & Teh 2017; Jang, Gu & Poole
    2017), of the logarithms of relaxed codes, and the ELBO is that of the relaxed model. In
    evaluation mode (`vae.eval()`) codes are one-hot, and bounds are those of the discrete model.

    Args:
        event_shape: the shape of one x.
        latent_dim: the number of variables times that of their categories.
        encoder: the network that maps x to the logits.
        categories: of each variable.
        temperature: of the relaxation.
    """

    support = "categorical"

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        categories: int = 4,
        temperature: float = 2 / 3,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        self.encoder = encoder(event_shape, discrete.one_hot_shape(latent_dim, categories))
        self.categories = categories
        self.temperature = discrete.check_temperature(temperature)

    def forward(self, x: Tensor) -> dist.Distribution:
        """Return q(z|x), relaxed in training mode."""
        return discrete.one_hot(self.encoder(x), self.temperature if self.training else None)

    def code(self, z: Tensor) -> Tensor:
        """Return codes on the simplex in training, where z are their logarithms."""
        return z.exp() if self.training else z


class Hierarchical(Posterior):
    """q(z_top|x) q(z|x, z_top), for `priors.Hierarchical` (Tomczak & Welling 2018, section 4).

    `forward` draws z_top, at the Pyro site of this name, and returns N(m(x, z_top), s(x, z_top)^2).

    Args:
        event_shape: the shape of one x.
        latent_dim: the dimension of z, the lower layer, which the likelihood decodes.
        encoder: the network that maps x to features, which meet z_top in an MLP.
        top: the family of q(z_top|x), with an encoder of its own.
        top_dim: the dimension of z_top.
        features: the number of features of x, and the width of the MLP that takes them.
    """

    support = "two layers"

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        encoder: Encoder = MLP,
        top: Callable[[Sequence[int], int], Posterior] = Normal,
        top_dim: int = 8,
        features: int = 100,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        if min(top_dim, features) < 1:
            raise InputError("top_dim and features have to be at least 1")
        self.top = top(event_shape, top_dim)
        if isinstance(self.top, Hierarchical):
            raise InputError("a hierarchy has two layers: take another posterior as its top")
        self.encoder = encoder(event_shape, (features,))
        self.joint = MLP((features + top_dim,), (2, latent_dim), widths=(features,))

    def forward(self, x: Tensor) -> dist.Distribution:
        """Draw z_top, and return q(z|x, z_top)."""
        z_top = pyro.sample("z_top", self.top(x))
        features = torch.tanh(self.encoder(x))
        features = features.expand(*z_top.shape[:-1], features.shape[-1])
        z_top = self.top.code(z_top)
        loc, raw_scale = self.joint(torch.cat([features, z_top], -1)).unbind(-2)
        return dist.Normal(loc, _positive(raw_scale)).to_event(1)


def _positive(raw: Tensor) -> Tensor:
    """A scale from any number; the floor keeps densities finite, far below any real posterior."""
    return softplus(raw) + 1e-5
