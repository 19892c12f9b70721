"""Counts: Poisson, negative binomial and multinomial, with or without known totals.

In many tables of counts the total of a row says how much was sampled, and not what was sampled: the
library size of a cell, or the length of a text. With `total="known"` each row's total n is taken as
given, and the means are n times a softmax of the decoder's outputs (as in scVI, Lopez et al. 2018).
Then log p(x) is a bound on the log-probability of a row, given its total. It is not comparable
with log p(x) of the row and its total, which is lower.

A multinomial has this conditional probability. Poisson and negative binomial distributions with
these means give all rows probabilities, also those with another sum: divided by the probability of
the sum n they would be conditional, and higher. So bounds stay lower bounds.
"""

import copy
from abc import abstractmethod
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.errors import InputError
from pyro_vae.kinds import Counts, Kind
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood, Shape
from pyro_vae.networks import MLP

Total = Literal["free", "known"]
ROWS = 5000  # so many training examples set the first values of parameters
LARGEST_LOG_MEAN = 20.0  # counts are at most 2^24 = exp(16.6)
FASTER = 10.0  # the dispersion of a column has further to go than a weight of the decoder
LEAST = 1e-30  # stands for a total of zero, and for a share of it


class _CountValues(Likelihood):
    """Counts whose means are exp of the decoder's first output, or shares of a total."""

    kinds = (Counts,)
    kind: Counts
    typical_total: Tensor

    def __init__(
        self, latent_dim: int, x: Kind | Shape, decoder: Decoder, total: Total, _outputs: int
    ) -> None:
        super().__init__(latent_dim, x, decoder, _outputs=_outputs)
        self.total: Total = total
        if total == "known":
            self.kind = copy.copy(self.kind)
            self.kind.total_is_known = True
            self.register_buffer("typical_total", torch.tensor(float(self.event_shape.numel())))

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z); where totals are known, for the mean total of the training examples."""
        total = self.typical_total.expand(z.shape[:-1]) if self.total == "known" else None
        return self.with_total(z, total)

    def given(self, z: Tensor, x: Tensor) -> dist.Distribution:
        """Return p(x|z), or p(x|z, n) for the totals n of x; see `Likelihood.given`."""
        if self.total == "free":
            return super().given(z, x)
        return self.with_total(z, x.flatten(-len(self.event_shape)).sum(-1))

    @abstractmethod
    def with_total(self, z: Tensor, total: Tensor | None) -> dist.Distribution:
        """Return p(x|z, n).

        Args:
            z: codes, shape [..., latent_dim].
            total: n for each code, shape [...] or one that is broadcast to it; None if it is free.
        """

    def log_means(self, outputs: Tensor, total: Tensor | None) -> Tensor:
        """Return the logarithms of the means of all counts.

        Args:
            outputs: the decoder's outputs, shape [..., *event_shape].
            total: n, as in `with_total`.
        """
        if total is None:
            return outputs.clamp(max=LARGEST_LOG_MEAN)
        dims = len(self.event_shape)
        shares = outputs.flatten(-dims).log_softmax(-1).view(outputs.shape)
        return shares + total.clamp(min=LEAST).log().view(*total.shape, *[1] * dims)

    def initialize(self, images: Tensor) -> None:
        """Set the means, and what else there is, from the moments of each column."""
        self.start(self.counts(images[:: -(-len(images) // ROWS)]))  # which may be in an order

    def start(self, x: Tensor) -> Tensor:
        """Set the means, or the shares of the total, to those of training examples.

        Args:
            x: counts, shape [N, *event_shape].

        Returns:
            The means of x, shape [N, *event_shape], or [1, *event_shape] if all have the same.
        """
        mean = x.mean(0).clamp(min=0.5 / len(x))  # a column may be zero in all these examples
        self.decoder_bias[0] = mean.log()
        if self.total == "free":
            return mean.unsqueeze(0)
        totals = x.flatten(1).sum(1)
        self.typical_total.copy_(totals.mean().round())
        return totals.view(-1, *[1] * mean.dim()) * (mean / mean.sum())

    def counts(self, features: Tensor) -> Tensor:
        """Return the counts that have these features."""
        loc, scale = self.kind.loc.to(features), self.kind.scale.to(features)
        return (features * scale + loc).expm1().round().clamp(min=0)


class Poisson(_CountValues):
    """Independent Poisson counts: the variance of a count is its mean.

    Args:
        decoder: the network that maps z to the logarithms of the means, or to the logits of their
            shares, and with `zero_inflation` to the log-odds of additional zeros.
        total: `free`, or `known`: the total of each row is taken as given, and log p(x) is that of
            a row, given its total.
        zero_inflation: whether each count may be an additional zero.
    """

    def __init__(
        self,
        latent_dim: int,
        x: Kind | Shape,
        decoder: Decoder = MLP,
        total: Total = "free",
        zero_inflation: bool = False,
    ) -> None:
        super().__init__(latent_dim, x, decoder, total, 2 if zero_inflation else 1)

    def with_total(self, z: Tensor, total: Tensor | None) -> dist.Distribution:
        """Return p(x|z, n); see the base class."""
        outputs, *zeros = self.decode(z)
        return self.independent(
            _inflated(distributions.Poisson(self.log_means(outputs, total)), zeros)
        )

    def start(self, x: Tensor) -> Tensor:
        """Set the means and, if there are any, the additional zeros."""
        means = super().start(x)
        if self.outputs == 2:
            zeros, _ = _moments(x, means, has_dispersion=False)
            self.decoder_bias[1] = zeros.logit()
            self.decoder_bias[0] -= torch.log1p(-zeros)
        return means


class NegativeBinomial(_CountValues):
    """Independent counts whose variance is m + m^2 / t, for a mean m and an inverse dispersion t.

    Args:
        decoder: the network that maps z to log m, or to the logits of the shares of the total; with
            `dispersion="per_example"` also to log t; with `zero_inflation` also to the log-odds of
            additional zeros.
        dispersion: `shared`: one t is learned. `per_column`: one for each column, or pixel.
            `per_example`: the decoder computes it.
        total: `free`, or `known`: the total of each row is taken as given, and log p(x) is that of
            a row, given its total.
        zero_inflation: whether each count may be an additional zero.
    """

    def __init__(
        self,
        latent_dim: int,
        x: Kind | Shape,
        decoder: Decoder = MLP,
        dispersion: Literal["shared", "per_column", "per_example"] = "per_column",
        total: Total = "free",
        zero_inflation: bool = False,
    ) -> None:
        outputs = 1 + (dispersion == "per_example") + zero_inflation
        super().__init__(latent_dim, x, decoder, total, outputs)
        self.dispersion, self.zero_inflation = dispersion, zero_inflation
        if dispersion != "per_example":
            shape = self.event_shape if dispersion == "per_column" else ()
            self.slow_log_theta = nn.Parameter(torch.zeros(shape))

    @property
    def log_theta(self) -> Tensor:
        """The learned log t, shape [] or `event_shape`.

        At first t is that of the data, and at last that of the data given z: log t may have to
        rise by several units. Adam moves a parameter by about the learning rate in a step, so the
        parameter is log t / 10.
        """
        return FASTER * self.slow_log_theta

    def with_total(self, z: Tensor, total: Tensor | None) -> dist.Distribution:
        """Return p(x|z, n); see the base class."""
        outputs, *others = self.decode(z)
        log_theta = others.pop(0) if self.dispersion == "per_example" else self.log_theta
        # The distribution is accurate from 1e-4 to 1e8; beyond, it does not change.
        log_theta = log_theta.clamp(-9, 18)
        counts = distributions.NegativeBinomial(self.log_means(outputs, total), log_theta)
        return self.independent(_inflated(counts, others))

    def start(self, x: Tensor) -> Tensor:
        """Set the means, the dispersions and, if there are any, the additional zeros."""
        means = super().start(x)
        zeros, dispersion = _moments(x, means, has_zeros=self.zero_inflation)
        log_theta = -dispersion.clamp(1e-4, 1e2).log()
        if self.dispersion == "per_example":
            self.decoder_bias[1] = log_theta
        elif self.dispersion == "per_column":
            self.slow_log_theta.data.copy_(log_theta / FASTER)
        else:
            weight = means.square().mean(0)
            pooled = (dispersion * weight).sum() / weight.sum()
            self.slow_log_theta.data.copy_(-pooled.clamp(1e-4, 1e2).log() / FASTER)
        if self.zero_inflation:
            self.decoder_bias[-1] = zeros.logit()
            self.decoder_bias[0] -= torch.log1p(-zeros)
        return means


class Multinomial(_CountValues):
    """Rows of counts with known totals: each of n draws is one of the columns.

    log p(x) is the log-probability of a row, given its total n.

    Args:
        decoder: the network that maps z to the logits of the columns.

    Raises:
        InputError: if x is no vector.
    """

    def __init__(self, latent_dim: int, x: Kind | Shape, decoder: Decoder = MLP) -> None:
        super().__init__(latent_dim, x, decoder, "known", 1)
        if len(self.event_shape) != 1:
            raise InputError(
                "a Multinomial models the rows of a table, and these examples have the shape "
                f"{list(self.event_shape)}: choose Poisson or NegativeBinomial",
                "likelihood",
            )

    def with_total(self, z: Tensor, total: Tensor | None) -> dist.Distribution:
        """Return p(x|z, n); see the base class."""
        assert total is not None
        return distributions.Multinomial(total, self.decoder(z))


def _inflated(counts: dist.TorchDistribution, logits: list[Tensor]) -> dist.Distribution:
    """Return the counts, with additional zeros if there is a tensor of log-odds."""
    return distributions.ZeroInflated(counts, logits[0]) if logits else counts


def _moments(
    x: Tensor, means: Tensor, has_zeros: bool = True, has_dispersion: bool = True
) -> tuple[Tensor, Tensor]:
    """Return estimates for each column, by its moments and its share of zeros.

    With the probability g of an additional zero and the mean b = m / (1 - g) of the other counts,
    the variance is (1 - g) (b + d b^2 + g b^2), and the probability of zero g + (1 - g) p_0.

    Args:
        x: counts, shape [N, *event_shape].
        means: the means m of x, shape [N or 1, *event_shape].
        has_zeros: whether there are additional zeros; else g is 0.
        has_dispersion: whether the other counts are negative binomial; else d is 0.

    Returns:
        g, and the dispersion d = 1 / t, which may be negative, both of shape `event_shape`.
    """
    variance = (x - means).square().mean(0)
    empty = (x == 0).to(x).mean(0)
    # A dispersion and additional zeros explain the same zeros; a quarter is left to the latter,
    # because the log-odds of a probability near 0 take long to learn.
    least = (empty / 4 if has_dispersion else empty.new_zeros(())).clamp(min=1e-3)
    zeros = least.expand_as(variance) if has_zeros else torch.zeros_like(variance)
    dispersion = torch.zeros_like(variance)
    for _ in range(50 if has_zeros else 1):
        base = means / (1 - zeros)
        if has_dispersion:
            excess = variance / (1 - zeros) - base.mean(0)
            dispersion = excess / base.square().mean(0).clamp(min=LEAST) - zeros
        d = dispersion.clamp(min=1e-6)
        zero_of_base = (-torch.log1p(base * d) / d).exp().mean(0)
        if has_zeros:
            rest = (1 - zero_of_base).clamp(min=1e-6)
            zeros = torch.maximum((empty - zero_of_base) / rest, least).clamp(max=0.99)
    return zeros, dispersion
