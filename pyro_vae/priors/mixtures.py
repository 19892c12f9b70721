"""Priors that are mixtures, of free components or of what the encoder makes of images."""

import math
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind
from pyro_vae.posteriors import Posterior
from pyro_vae.priors.prior import Prior


class Mixture(Prior):
    """sum_k w_k N(m_k, diag(s_k^2)) with weights, means and scales learned.

    Args:
        latent_dim: the dimension of z.
        components: how many normals are mixed.
    """

    def __init__(self, latent_dim: int, components: int = 10) -> None:
        super().__init__()
        _check_components(components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latent_dim))  # apart, to break the symmetry
        self.log_scale = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        components = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return distributions.mixture(self.logits, components)


class Vamp(Prior):
    """The VampPrior: the posterior averaged over learned pseudo-inputs u_k.

    p(z) = sum_k w_k q(z | u_k) (Tomczak & Welling 2018), w_k = 1/K unless they are learned. The u_k
    start as training images, chosen at random, and stay in (0, 1) as the sigmoids of what is
    learned: clipped, as in the paper, black pixels would have no gradient. With a flow as the
    posterior it is slow: a density takes a pass for each dimension, for each pseudo-input.

    Args:
        latent_dim: the dimension of z.
        components: K, the number of pseudo-inputs.
        start: the pseudo-inputs, as training images or as noise.
        learn_weights: whether the w_k are learned.
    """

    support = None
    weights: Tensor

    def __init__(
        self,
        latent_dim: int,
        components: int = 500,
        start: Literal["images", "noise"] = "images",
        learn_weights: bool = False,
    ) -> None:
        super().__init__()
        _check_components(components)
        self.components = components
        self.start = start
        if learn_weights:
            self.weights = nn.Parameter(torch.zeros(components))
        else:
            self.register_buffer("weights", torch.zeros(components))

    def attach(self, posterior: Posterior) -> None:
        """Keep the posterior, and make pseudo-inputs for it."""
        self.posterior = posterior
        self.logits = nn.Parameter(torch.randn(self.components, *posterior.event_shape))

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, shape [components, *event_shape]."""
        return self.logits.sigmoid()

    def initialize(self, images: Tensor) -> None:
        """Start the pseudo-inputs as images, each used at most once if there are enough."""
        if self.start == "images":
            chosen = _choose(images, self.components)
            self.logits.data.copy_(chosen.clamp(0.01, 0.99).logit())

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return distributions.mixture(self.weights, self.posterior(self.pseudo_inputs))

    def code(self, z: Tensor) -> Tensor:
        """Return what the posterior's codes are."""
        return self.posterior.code(z)


class Exemplar(Prior):
    """Normals around the codes of training images x_k (Norouzi, Fleet & Norouzi 2020).

    p(z) = 1/K sum_k N(z | m(x_k), s^2 I), m the posterior's mean, and s learned. In training an
    image is not compared with its own code: without that, the prior learns s = 0 by heart. (The
    paper takes all training images, and approximates the sum by the nearest codes.)

    Args:
        latent_dim: the dimension of z.
        components: K, the number of training images, chosen at random, two or more.
    """

    exemplars: Tensor

    def __init__(self, latent_dim: int, components: int = 500) -> None:
        super().__init__()
        if components < 2:
            raise InputError("an Exemplar prior needs two components or more: one may be left out")
        self.components = components
        self.log_scale = nn.Parameter(torch.zeros(()))

    def attach(self, posterior: Posterior) -> None:
        """Keep the posterior, and make room for the images.

        Raises:
            InputError: if the posterior's mean is not known.
        """
        self.posterior = posterior
        self.register_buffer("exemplars", torch.rand(self.components, *posterior.event_shape))
        try:
            _ = posterior(self.exemplars[:1]).mean
        except NotImplementedError as error:
            raise InputError(
                f"an Exemplar prior is made of posterior means, and {type(posterior).__name__} has "
                "none in closed form: take one that has, as Normal"
            ) from error

    def initialize(self, images: Tensor) -> None:
        """Choose the images, each used at most once if there are enough."""
        self.exemplars.copy_(_choose(images, self.components))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return self._around(self.log_scale.new_zeros(self.components))

    def leave_out(self, x: Tensor, kind: Kind) -> dist.Distribution:
        """Return p(z) for each x, without the images that x can have been drawn from.

        Where that would leave none, all stay.
        """
        own = kind.could_show(x, self.exemplars)
        own &= ~own.all(-1, keepdim=True)
        return self._around(torch.where(own, -math.inf, self.log_scale.new_zeros(())))

    def _around(self, logits: Tensor) -> dist.Distribution:
        loc = self.posterior(self.exemplars).mean
        normals = dist.Normal(loc, self.log_scale.exp().expand(loc.shape)).to_event(1)
        return distributions.mixture(logits, normals)


def _check_components(components: int) -> None:
    if not 1 <= components <= 10**7:
        raise InputError(
            f"a mixture needs at least one component, and ten million at most, not {components}"
        )


def _choose(images: Tensor, count: int) -> Tensor:
    """Choose images at random, each at most once more than any other."""
    order = torch.randperm(len(images)).repeat(math.ceil(count / len(images)))[:count]
    return images[order.to(images.device)]
