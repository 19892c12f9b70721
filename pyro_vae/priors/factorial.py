"""Priors with independent dimensions, and the uniform prior on the sphere."""

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
    """N(m, diag(s^2)) with m and s learned; their first values are 0 and 1.

    If the decoder can undo any affine map of z, this is no richer than N(0, I), but the posterior
    is free to have another scale.

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

    The tails are heavier than those of a normal: a code far from the centre costs less.

    Args:
        latent_dim: the dimension of z.
        df: the first value of the degrees of freedom.
    """

    def __init__(self, latent_dim: int, df: float = 5.0) -> None:
        super().__init__()
        if not 1e-3 <= df <= 1e6:
            raise InputError(f"degrees of freedom have to be in [1e-3, 1e6], but are {df:g}", "df")
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

    The decoder sees sqrt(d) z, whose entries have variance 1, as those of N(0, I). In many
    dimensions the entries of z itself are so small that training would not use them.

    Args:
        latent_dim: the dimension of the space around the sphere, two or more.
    """

    support = "sphere"
    like: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 2:
            raise InputError("a sphere needs two latent dimensions or more", "latent_dim")
        self.register_buffer("like", torch.zeros(latent_dim))

    def forward(self) -> dist.Distribution:
        """Return p(z)."""
        return distributions.UniformSphere(len(self.like), self.like)

    def code(self, z: Tensor) -> Tensor:
        """Return sqrt(d) z, whose entries have variance one."""
        return z * len(self.like) ** 0.5


class Bernoulli(Prior):
    """Independent binary codes with learned probabilities; in training, relaxed to (0, 1).

    Args:
        latent_dim: the number of binary variables.
        temperature: the temperature of the relaxation (see `posteriors.Bernoulli`).
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
        """Return z; in training, where z are logits, the relaxed codes in (0, 1)."""
        return z.sigmoid() if self.training else z


class Categorical(Prior):
    """Independent one-hot codes with learned probabilities; in training, relaxed.

    Args:
        latent_dim: the number of variables times the number of their categories.
        categories: the number of categories of each variable, the same as the posterior's.
        temperature: the temperature of the relaxation (see `posteriors.Categorical`).
    """

    support = "categorical"

    def __init__(self, latent_dim: int, categories: int = 4, temperature: float = 0.5) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(relaxed.one_hot_shape(latent_dim, categories)))
        self.temperature = relaxed.check_temperature(temperature)

    def build(self, posterior: Posterior) -> None:
        """Refuse a posterior with another number of categories.

        Raises:
            InputError: with both numbers.
        """
        categories = getattr(posterior, "categories", self.logits.shape[-1])
        if categories != self.logits.shape[-1]:
            raise InputError(
                f"the prior's variables have {self.logits.shape[-1]} categories and the "
                f"posterior's {categories}: make them alike",
                "categories",
            )

    def forward(self) -> dist.Distribution:
        """Return p(z), relaxed in training mode."""
        return relaxed.one_hot(self.logits, self.temperature if self.training else None)

    def code(self, z: Tensor) -> Tensor:
        """Return z; in training, where z are logarithms, the relaxed codes on the simplex."""
        return z.exp() if self.training else z
