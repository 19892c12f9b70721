"""Priors p(z).

The prior is what the posterior is pulled towards in training (it regularises), what z is drawn
from to make new images (it generates), and what makes the way from one code to another pass
through codes that mean something (it interpolates). At the optimum it is the aggregated posterior
q(z) = E_x q(z|x); the further from that, the lower the ELBO (Hoffman & Johnson 2016).

To add one, subclass `Prior`: the constructor takes the latent dimension and then the options of the
command line, `forward` returns the distribution of one z.
"""

import math
from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.posteriors import Posterior


class Prior(nn.Module, ABC):
    """A distribution over codes z of shape [latent_dim]."""

    @abstractmethod
    def forward(self) -> dist.Distribution:
        """Return p(z), with batch shape [] and event shape [latent_dim]."""

    def attach(self, posterior: Posterior) -> None:
        """Meet the posterior; called once by `VAE`, for priors that are made from it."""

    def initialize(self, images: Tensor) -> None:
        """Start from the data; called once before training.

        Args:
            images: training images, shape [N, *event], intensities in [0, 1].
        """


class StandardNormal(Prior):
    """N(0, I).

    Args:
        latent_dim: the dimension of z.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return dist.Normal(self.loc, self.scale).to_event(1)


class LearnedNormal(Prior):
    """N(m, diag(s^2)) with m and s learned, from m = 0 and s = 1.

    With a decoder that can undo any affine map of z this is no richer than N(0, I); it frees the
    posterior of the scale.

    Args:
        latent_dim: the dimension of z.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return dist.Normal(self.loc, self.log_scale.exp()).to_event(1)


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
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)


class Vamp(Prior):
    """The VampPrior: the posterior averaged over learned pseudo-inputs u_k.

    p(z) = 1/K sum_k q(z | u_k) (Tomczak & Welling 2018). The u_k start as training
    images, chosen at random, and stay in (0, 1) as the sigmoids of what is learned: clipped, as in
    the paper, black pixels would have no gradient.

    Args:
        latent_dim: the dimension of z.
        components: K, the number of pseudo-inputs.
    """

    def __init__(self, latent_dim: int, components: int = 500) -> None:
        super().__init__()
        _check_components(components)
        self.components = components

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
        count = self.components
        order = torch.randperm(len(images)).repeat(math.ceil(count / len(images)))[:count]
        self.logits.data.copy_(images[order.to(images.device)].clamp(0.01, 0.99).logit())

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        components = self.posterior(self.pseudo_inputs)
        weights = dist.Categorical(logits=components.mean.new_zeros(self.components))
        return dist.MixtureSameFamily(weights, components)


def _check_components(components: int) -> None:
    if components < 1:
        raise InputError(f"a mixture needs at least one component, and not {components}")
