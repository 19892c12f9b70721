"""Priors of independent codes, and the uniform one on the sphere."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.distributions import relaxed
from pyro_vae.errors import InputError
from pyro_vae.posteriors import Posterior
from pyro_vae.priors.prior import Prior


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
        if not 1e-3 <= df <= 1e6:
            raise InputError(f"degrees of freedom have to be in [1e-3, 1e6], and {df:g} are not")
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


class UniformSphere(Prior):
    """The uniform distribution on the unit sphere (Davidson et al. 2018).

    The decoder is shown sqrt(d) z, whose entries have the variance of those of N(0, I): as they
    are, they would be too small in many dimensions for training to find a use for them.

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

    def code(self, z: Tensor) -> Tensor:
        """Return codes of variance one."""
        return z * len(self.like) ** 0.5


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
        self.temperature = relaxed.check_temperature(temperature)

    def forward(self) -> dist.Distribution:
        """Return p(z), relaxed in training mode."""
        return relaxed.bernoulli(self.logits, self.temperature if self.training else None)

    def code(self, z: Tensor) -> Tensor:
        """Return codes in (0, 1) in training, where z are their logits."""
        return z.sigmoid() if self.training else z


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
        self.logits = nn.Parameter(torch.zeros(relaxed.one_hot_shape(latent_dim, categories)))
        self.temperature = relaxed.check_temperature(temperature)

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
        return relaxed.one_hot(self.logits, self.temperature if self.training else None)

    def code(self, z: Tensor) -> Tensor:
        """Return codes on the simplex in training, where z are their logarithms."""
        return z.exp() if self.training else z
