"""Priors that are mixtures, of free components or of the posteriors of images."""

import math
from typing import Any, Literal

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
        components: the number of normals in the mixture.
    """

    def __init__(self, latent_dim: int, components: int = 10) -> None:
        super().__init__()
        _check_components(components)
        self.logits = nn.Parameter(torch.zeros(components))
        # The means differ from the beginning, because equal components would stay equal.
        self.loc = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        components = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return distributions.mixture(self.logits, components)


class Vamp(Prior):
    """The VampPrior: the posterior, averaged over learned pseudo-inputs u_k.

    p(z) = sum_k w_k q(z | u_k) (Tomczak & Welling 2018), w_k = 1/K unless they are learned. The
    pseudo-inputs are sigmoids of what is learned, so they stay in (0, 1). (The paper clips them;
    then a black pixel has no gradient.) The data therefore need features in [0, 1], as pixels have.
    If the posterior is a flow, this prior is slow: each density takes one pass for each dimension
    and each pseudo-input.

    Args:
        latent_dim: the dimension of z.
        components: K, the number of pseudo-inputs.
        start: the first values of the pseudo-inputs, training images chosen at random or noise.
        learn_weights: whether the w_k are learned.
    """

    support = None
    built_parts = ("posterior", "pseudo_input_logits", "pseudo_inputs")
    weight_logits: Tensor

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
            self.weight_logits = nn.Parameter(torch.zeros(components))
        else:
            self.register_buffer("weight_logits", torch.zeros(components))
        self.register_load_state_dict_pre_hook(_rename_old_keys)

    def build(self, posterior: Posterior) -> None:
        """Keep the posterior, and make pseudo-inputs of the shape of its inputs."""
        self.posterior = posterior
        self.pseudo_input_logits = nn.Parameter(
            torch.randn(self.components, *posterior.event_shape)
        )

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, shape [components, *event_shape]."""
        return self.pseudo_input_logits.sigmoid()

    def initialize(self, images: Tensor) -> None:
        """Set the pseudo-inputs to images, each used at most once if there are enough.

        Raises:
            InputError: if the features of the data are not in [0, 1].
        """
        low, high = images.min().item(), images.max().item()
        if not (low >= 0 and high <= 1):
            raise InputError(
                f"a Vamp prior has pseudo-inputs in (0, 1), and the features of the data are from "
                f"{low:g} to {high:g}: choose another prior, Exemplar or Mixture for example",
                "prior",
            )
        if self.start == "images":
            pseudo_inputs = _draw_images(images, self.components)
            self.pseudo_input_logits.data.copy_(pseudo_inputs.clamp(0.01, 0.99).logit())

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return distributions.mixture(self.weight_logits, self.posterior(self.pseudo_inputs))

    def code(self, z: Tensor) -> Tensor:
        """Return the input of the decoder for z, as the posterior defines it."""
        return self.posterior.code(z)


def _rename_old_keys(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Accept the names that the tensors of `Vamp` have in older checkpoints."""
    for old, new in (("weights", "weight_logits"), ("logits", "pseudo_input_logits")):
        if prefix + old in state:
            state[prefix + new] = state.pop(prefix + old)


class Exemplar(Prior):
    """Normals around the codes of training images x_k (Norouzi, Fleet & Norouzi 2020).

    p(z) = 1/K sum_k N(z | m(x_k), s^2 I), where m is the posterior's mean and s is learned. In
    training an image is not compared with its own code: otherwise the prior would memorise the
    images, with s = 0. (The paper uses all training images, and approximates the sum by the nearest
    codes.) The data may be of any kind.

    Args:
        latent_dim: the dimension of z.
        components: K, the number of training images, chosen at random, two or more.
    """

    built_parts = ("posterior", "exemplars")
    exemplars: Tensor

    def __init__(self, latent_dim: int, components: int = 500) -> None:
        super().__init__()
        if components < 2:
            raise InputError(
                "an Exemplar prior needs two components or more: one may be left out", "components"
            )
        self.components = components
        self.log_scale = nn.Parameter(torch.zeros(()))

    def build(self, posterior: Posterior) -> None:
        """Keep the posterior, and make a buffer of noise, which `initialize` replaces by images.

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
                "none in closed form: choose a posterior that has one, Normal for example",
                "posterior",
            ) from error

    def initialize(self, images: Tensor) -> None:
        """Choose the images, each used at most once if there are enough."""
        self.exemplars.copy_(_draw_images(images, self.components))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return self._around_codes(self.log_scale.new_zeros(self.components))

    def leave_out(self, x: Tensor, kind: Kind) -> dist.Distribution:
        """Return p(z) for each x, without the images that x can have been drawn from.

        If no image would be left, all of them stay.
        """
        own = kind.could_show(x, self.exemplars)
        own &= ~own.all(-1, keepdim=True)
        return self._around_codes(torch.where(own, -math.inf, self.log_scale.new_zeros(())))

    def _around_codes(self, logits: Tensor) -> dist.Distribution:
        loc = self.posterior(self.exemplars).mean
        normals = dist.Normal(loc, self.log_scale.exp().expand(loc.shape)).to_event(1)
        return distributions.mixture(logits, normals)


def _check_components(components: int) -> None:
    if not 1 <= components <= 10**7:
        raise InputError(
            f"a mixture needs at least one component, and ten million at most, not {components}",
            "components",
        )


def _draw_images(images: Tensor, count: int) -> Tensor:
    """Draw images at random. The numbers of draws of any two images differ by one at most."""
    order = torch.randperm(len(images)).repeat(math.ceil(count / len(images)))[:count]
    return images[order.to(images.device)]
