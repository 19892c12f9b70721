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
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.nn import AutoRegressiveNN
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from pyro_vae import discrete, distributions, posteriors
from pyro_vae.errors import InputError
from pyro_vae.networks import MLP, Network
from pyro_vae.observations import Support, could_show
from pyro_vae.posteriors import Latent, Posterior


class Prior(nn.Module, ABC):
    """A distribution over codes z of shape [latent_dim].

    Attributes:
        support: where its codes are, as `Posterior.support`; None where the posterior's are.
    """

    support: ClassVar[Latent | None] = "real"

    @abstractmethod
    def forward(self) -> dist.Distribution:
        """Return p(z), with batch shape [] and event shape [latent_dim]."""

    def leave_out(self, x: Tensor, support: Support) -> dist.Distribution:
        """Return p(z) for training on x: a prior made of training images leaves x itself out.

        Args:
            x: as the likelihood is shown it, shape [batch, *event].
            support: of the likelihood.

        Returns:
            A distribution with batch shape [] or [batch], and event shape [latent_dim].
        """
        return self()

    def attach(self, posterior: Posterior) -> None:
        """Meet the posterior; called once by `VAE`, for priors that are made from it."""

    def initialize(self, images: Tensor) -> None:
        """Start from the data; called once before training.

        Args:
            images: training images, shape [N, *event], intensities in [0, 1].
        """


def check_support(prior: Prior, posterior: Posterior) -> None:
    """Refuse a prior and a posterior whose codes are not in the same place.

    Raises:
        InputError: saying where they are.
    """
    if prior.support not in (posterior.support, None) or (
        prior.support is None and posterior.support == "two layers"
    ):
        raise InputError(
            f"the codes of the prior {type(prior).__name__} are {_WHERE[prior.support]}, those of "
            f"the posterior {type(posterior).__name__} {_WHERE[posterior.support]}: choose two "
            "that agree"
        )


_WHERE = {
    "real": "real vectors",
    "sphere": "on the unit sphere",
    "binary": "binary",
    "categorical": "one-hot",
    "two layers": "in two layers",
    None: "in a single layer",
}


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


class StudentT(Prior):
    """Independent Student t variables, with learned scales and degrees of freedom.

    Heavier tails than a normal's: a code far out costs less.

    Args:
        latent_dim: the dimension of z.
        df: where the degrees of freedom start.
    """

    def __init__(self, latent_dim: int, df: float = 5.0) -> None:
        super().__init__()
        if not 0 < df < math.inf:
            raise InputError(f"degrees of freedom have to be positive, and {df:g} are not")
        self.log_df = nn.Parameter(torch.full((latent_dim,), math.log(df)))
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        scale = self.log_scale.exp()
        return dist.StudentT(self.log_df.exp(), torch.zeros_like(scale), scale).to_event(1)


class Laplace(Prior):
    """Independent Laplace variables with learned scales: sparse codes.

    Args:
        latent_dim: the dimension of z.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((latent_dim,), -math.log(2) / 2))  # variance 1

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        scale = self.log_scale.exp()
        return dist.Laplace(torch.zeros_like(scale), scale).to_event(1)


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
    learned: clipped, as in the paper, black pixels would have no gradient.

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
        with torch.no_grad():
            q = posterior(self.exemplars[:1])
        if isinstance(q, dist.TransformedDistribution):
            raise InputError(
                f"an Exemplar prior is made of posterior means, and {type(posterior).__name__} has "
                "none in closed form: take --posterior Normal"
            )

    def initialize(self, images: Tensor) -> None:
        """Choose the images, each used at most once if there are enough."""
        self.exemplars.copy_(_choose(images, self.components))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return self._around(self.log_scale.new_zeros(self.components))

    def leave_out(self, x: Tensor, support: Support) -> dist.Distribution:
        """Return p(z) for each x, without the images that x can have been drawn from.

        Where that would leave none, all stay.
        """
        own = could_show(x, self.exemplars, support)
        own &= ~own.all(-1, keepdim=True)
        return self._around(torch.where(own, -math.inf, self.log_scale.new_zeros(())))

    def _around(self, logits: Tensor) -> dist.Distribution:
        loc = self.posterior(self.exemplars).mean
        normals = dist.Normal(loc, self.log_scale.exp().expand(loc.shape)).to_event(1)
        return distributions.mixture(logits, normals)


class Flow(Prior):
    """A normalising flow: z = f(u), u ~ N(0, I), with f a chain of invertible transforms.

    `affine_coupling` is Real NVP (Dinh, Sohl-Dickstein & Bengio 2017); `masked_autoregressive` is
    MAF (Papamakarios, Pavlakou & Murray 2017), slow to draw from, with a pass for each dimension;
    `spline_coupling` has rational splines on [-5, 5] (Durkan et al. 2019; linear ones, Dolatabadi
    et al. 2020). The order of the dimensions is turned round after each. As a prior: Chen et al.
    2017.

    Args:
        latent_dim: the dimension of z, two or more.
        transform: the kind of transform.
        layers: how many there are.
        hidden: the width of the two hidden layers of their networks.
    """

    def __init__(
        self,
        latent_dim: int,
        transform: Literal[
            "affine_coupling", "masked_autoregressive", "spline_coupling"
        ] = "affine_coupling",
        layers: int = 4,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        if latent_dim < 2:
            raise InputError("a Flow prior needs two latent dimensions or more")
        if min(layers, hidden) < 1:
            raise InputError("layers and hidden of a flow have to be at least 1")
        self.latent_dim = latent_dim
        self.backwards = transform == "masked_autoregressive"  # densities are what has to be fast
        widths = [max(hidden, latent_dim)] * 2
        make: dict[str, Callable[[], nn.Module]] = {
            "affine_coupling": lambda: transforms.affine_coupling(latent_dim, widths),
            "masked_autoregressive": lambda: transforms.AffineAutoregressive(
                AutoRegressiveNN(latent_dim, widths, permutation=torch.arange(latent_dim))
            ),
            "spline_coupling": lambda: transforms.spline_coupling(
                latent_dim, hidden_dims=widths, bound=5.0
            ),
        }
        self.transforms = nn.ModuleList(make[transform]() for _ in range(layers))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        weight = next(self.parameters())
        turn = transforms.Permute(torch.arange(self.latent_dim, device=weight.device).flip(0))
        layers: list[Any] = []
        layer: Any
        for layer in self.transforms:
            layer.clear_cache()  # parameters may have changed, and Pyro's cache would not know
            layers += [layer.inv if self.backwards else layer, turn]
        zeros = weight.new_zeros(self.latent_dim)
        base = dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)
        return dist.TransformedDistribution(base, layers)


class LARS(Prior):
    """Learned accept/reject sampling: N(0, I), thinned by a network (Bauer & Mnih 2019).

    z ~ N(0, I) is accepted with probability a(z), and after T - 1 rejections whatever a(z) is. The
    normalising constant Z = E[a(z)] is estimated: in training from new draws in every step, in
    evaluation mode once, from 2^18 draws. Its relative error there is at most
    sqrt((1/Z - 1) / 2^18): 0.004 in log p(z), for Z = 0.2.

    Args:
        latent_dim: the dimension of z.
        truncation: T.
        widths: of the hidden layers of the network a.
        num_samples: how many draws estimate Z in training.
    """

    log_z: Tensor

    def __init__(
        self,
        latent_dim: int,
        truncation: int = 100,
        widths: Sequence[int] = (100, 100),
        num_samples: int = 1024,
    ) -> None:
        super().__init__()
        if truncation < 1 or num_samples < 1:
            raise InputError("truncation and num_samples of LARS have to be at least 1")
        self.proposal = StandardNormal(latent_dim)
        self.network = MLP((latent_dim,), (), widths)
        self.truncation = truncation
        self.num_samples = num_samples
        self.register_buffer("log_z", torch.tensor(-math.log(2)))
        self.train()

    def train(self, mode: bool = True) -> "LARS":
        """Enter training or evaluation mode; the latter fixes Z for the parameters of now."""
        super().train(mode)
        if not mode:
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                parts = [
                    self._estimate(
                        torch.randn(2**14, *self.proposal.loc.shape, generator=generator)
                    )
                    for _ in range(16)
                ]
            self.log_z.copy_(torch.stack(parts).logsumexp(0) - math.log(16))
        return self

    def log_accept(self, z: Tensor) -> Tensor:
        """Return log a(z), of shape [...], for z of shape [..., latent_dim]."""
        return logsigmoid(self.network(z))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        base = self.proposal()
        log_z = self._estimate(base.sample((self.num_samples,))) if self.training else self.log_z
        return distributions.Resampled(base, self.log_accept, log_z, self.truncation)

    def _estimate(self, z: Tensor) -> Tensor:
        z = z.to(self.proposal.loc)
        return self.log_accept(z).logsumexp(0) - math.log(len(z))


class UniformSphere(Prior):
    """The uniform distribution on the unit sphere (Davidson et al. 2018).

    Args:
        latent_dim: of the space that the sphere is in, two or more.
    """

    support = "sphere"
    like: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 2:
            raise InputError("a sphere needs two latent dimensions or more")
        self.register_buffer("like", torch.zeros(latent_dim))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return distributions.UniformSphere(len(self.like), self.like)


class Bernoulli(Prior):
    """Independent binary codes, their probabilities learned; in training, relaxed to (0, 1).

    Args:
        latent_dim: the number of binary variables.
        temperature: of the relaxation (see `posteriors.Bernoulli`).
    """

    support = "binary"

    def __init__(self, latent_dim: int, temperature: float = 0.5) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(latent_dim))
        self.temperature = discrete.check_temperature(temperature)

    def forward(self) -> dist.Distribution:
        """Return p(z), relaxed in training mode."""
        return discrete.bernoulli(self.logits, self.temperature if self.training else None)


class Categorical(Prior):
    """Independent one-hot codes, their probabilities learned; in training, relaxed.

    Args:
        latent_dim: the number of variables times that of their categories.
        categories: of each variable; the same as the posterior's.
        temperature: of the relaxation (see `posteriors.Categorical`).
    """

    support = "categorical"

    def __init__(self, latent_dim: int, categories: int = 4, temperature: float = 0.5) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(discrete.one_hot_shape(latent_dim, categories)))
        self.temperature = discrete.check_temperature(temperature)

    def attach(self, posterior: Posterior) -> None:
        """Refuse a posterior of other categories.

        Raises:
            InputError: if they are not as many.
        """
        categories = getattr(posterior, "categories", self.logits.shape[-1])
        if categories != self.logits.shape[-1]:
            raise InputError(
                f"the prior's variables have {self.logits.shape[-1]} categories and the "
                f"posterior's {categories}: make them alike"
            )

    def forward(self) -> dist.Distribution:
        """Return p(z), relaxed in training mode."""
        return discrete.one_hot(self.logits, self.temperature if self.training else None)


class Hierarchical(Prior):
    """p(z | z_top) p(z_top): two layers of latent variables (Burda et al. 2016; Tomczak 2018).

    `forward` draws z_top, at the Pyro site of this name, and returns N(m(z_top), diag(s(z_top)^2)).
    The likelihood decodes z alone.

    Args:
        latent_dim: the dimension of z, the lower layer.
        top: the prior of z_top, of any kind that goes with the posterior's top.
        network: maps z_top to m and s.
    """

    support = "two layers"

    def __init__(
        self,
        latent_dim: int,
        top: Callable[[int], Prior] = StandardNormal,
        network: Callable[[Sequence[int], Sequence[int]], Network] = MLP,
    ) -> None:
        super().__init__()
        self._make = (latent_dim, top, network)

    def attach(self, posterior: Posterior) -> None:
        """Make the upper layer as large as the posterior's.

        Raises:
            InputError: if the priors and posteriors of the upper layer do not agree.
        """
        if not isinstance(posterior, posteriors.Hierarchical):
            raise InputError("a Hierarchical prior goes with a Hierarchical posterior")
        latent_dim, top, network = self._make
        self.top = top(posterior.top.latent_dim)
        check_support(self.top, posterior.top)
        self.top.attach(posterior.top)
        self.network = network((posterior.top.latent_dim,), (2, latent_dim))

    def initialize(self, images: Tensor) -> None:
        """Start the upper layer."""
        self.top.initialize(images)

    def forward(self) -> dist.Distribution:
        """Draw z_top, and return p(z | z_top)."""
        return self._below(self.top())

    def leave_out(self, x: Tensor, support: Support) -> dist.Distribution:
        """Do the same, with x left out of the upper layer."""
        return self._below(self.top.leave_out(x, support))

    def _below(self, top: dist.Distribution) -> dist.Distribution:
        loc, raw_scale = self.network(pyro.sample("z_top", top)).unbind(-2)
        return dist.Normal(loc, softplus(raw_scale + math.log(math.e - 1)) + 1e-5).to_event(1)


def _check_components(components: int) -> None:
    if components < 1:
        raise InputError(f"a mixture needs at least one component, and not {components}")


def _choose(images: Tensor, count: int) -> Tensor:
    """Choose images at random, each at most once more than any other."""
    order = torch.randperm(len(images)).repeat(math.ceil(count / len(images)))[:count]
    return images[order.to(images.device)]
