"""The constants and the data of a description: plain tensors in float64, drawn without Pyro."""

from dataclasses import dataclass, replace

import torch
from descriptions import Description
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Examples as a program sees them, n of them.

    Attributes:
        x: normal values, [n, features].
        observed: which of them are observed, [n, features].
        drawn: which latent scalars of a layer count, [n, latent_width].
        y: the covariate, [n].
        offset: what is added to the prior mean of the first layer, [n, latent_width]. With no
            layers it is not used.
        symbol: the coin or the word, [n].
        angle: the observed angle, [n].
    """

    x: Tensor
    observed: Tensor
    drawn: Tensor
    y: Tensor
    offset: Tensor
    symbol: Tensor
    angle: Tensor


@dataclass(frozen=True)
class Constants:
    """The constants of a program, by the letters of the formulas in `closed_forms`.

    Attributes:
        prior_mean: [classes or 1, latent_width].
        prior_scale: [latent_width].
        step: the matrix between two layers, [latent_width, latent_width].
        step_scale: [latent_width].
        group: the matrix from the global vector to the first layer, [global_width, latent_width].
        global_scale: [global_width].
        loading: the matrix from the last layer to x, [latent_width, features].
        bias: [features].
        noise: the standard deviation of x, [features].
        class_x, global_x: to x, where there are no layers.
        class_logits: [classes or 1].
        emission: logits of the symbols, [classes or 1, symbols].
        table: covariates of the examples, [examples].
        covariate: how covariates enter the offset, [latent_width].
    """

    prior_mean: Tensor
    prior_scale: Tensor
    step: Tensor
    step_scale: Tensor
    group: Tensor
    global_scale: Tensor
    loading: Tensor
    bias: Tensor
    noise: Tensor
    class_x: Tensor
    global_x: Tensor
    class_logits: Tensor
    emission: Tensor
    table: Tensor
    covariate: Tensor
    prior_concentration: float = 1.0
    angle_concentration: float = 2.0

    @property
    def symbol_log_probs(self) -> Tensor:
        """Log-probabilities of the symbols given the class, [classes or 1, symbols]."""
        return self.emission.log_softmax(-1)


SYMBOLS = {None: 1, "coin": 2, "words": 3}


def make(d: Description) -> tuple[Constants, Rows]:
    """Draw the constants, and data from the model."""
    generator = torch.Generator().manual_seed(d.seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def scale(*shape: int) -> Tensor:
        return 0.6 + 0.6 * torch.rand(*shape, generator=generator, dtype=torch.float64)

    width, features, classes = d.latent_width, d.features, max(d.classes, 1)
    constants = Constants(
        prior_mean=normal(classes, width),
        prior_scale=scale(width),
        step=torch.diag(0.6 * normal(width)) if d.in_features else 0.6 * normal(width, width),
        step_scale=scale(width),
        group=0.7 * normal(d.global_width, width),
        global_scale=scale(d.global_width),
        loading=torch.diag(normal(features)) if d.in_features else 0.7 * normal(width, features),
        bias=normal(features),
        noise=scale(features),
        class_x=normal(classes, features),
        global_x=normal(d.global_width, features),
        class_logits=0.5 * normal(classes),
        emission=normal(classes, SYMBOLS[d.emission]),
        table=2 * normal(d.examples) * _only_one(d),
        covariate=normal(width),
    )
    return constants, _data(d, constants, normal, generator)


def _data(d: Description, constants: Constants, normal, generator: torch.Generator) -> Rows:  # noqa: ANN001
    n, c = d.examples, constants
    kinds = torch.multinomial(c.class_logits.softmax(-1), n, replacement=True, generator=generator)
    symbol = torch.multinomial(
        c.symbol_log_probs[kinds].exp(), 1, replacement=True, generator=generator
    )[:, 0]
    u = c.global_scale * normal(d.global_width)
    y = c.table if d.covariates else torch.zeros(n, dtype=torch.float64)
    y = _rounded(d, y)
    offset = y[:, None] * c.covariate
    if d.layers:
        z = c.prior_mean[kinds] + offset + u @ c.group + c.prior_scale * normal(n, d.latent_width)
        for _ in range(1, d.layers):
            z = z @ c.step + c.step_scale * normal(n, d.latent_width)
        x = z @ position_matrix(d) @ c.loading
    else:
        x = c.class_x[kinds] + u @ c.global_x
    x = x + c.bias + c.noise * normal(n, d.features)
    x = _rounded(d, x)
    observed, drawn = _masks(d, generator)
    if d.batch_statistics == "model" and d.layers:
        offset = offset + batch_statistic(x, observed)
    angle = (torch.pi * normal(n)).remainder(2 * torch.pi) - torch.pi
    return Rows(
        x=x,
        observed=observed,
        drawn=drawn,
        y=y,
        offset=offset,
        symbol=symbol,
        angle=_rounded(d, angle),
    )


def _rounded(d: Description, values: Tensor) -> Tensor:
    """Round data to the type in which the programs get them."""
    if d.dtype.startswith("bfloat16"):
        return values.bfloat16().double()
    return values.float().double() if d.dtype == "float32" else values


def batch_statistic(x: Tensor, observed: Tensor) -> Tensor:
    """What a program computes from its batch, if it has batch statistics: a scalar."""
    return 2 * x.where(observed, 0.0).mean()


def _only_one(d: Description) -> Tensor:
    """Return ones, or the unit vector of the last example but one."""
    if d.covariates != "one":
        return torch.ones(d.examples)
    return (torch.arange(d.examples) == max(0, d.examples - 2)).double()


def position_matrix(d: Description) -> Tensor:
    """The matrix that the model multiplies z by, if it counts its dimensions from the left."""
    eye = torch.eye(d.latent_width, dtype=torch.float64)
    if d.position == "cumsum":
        return eye.cumsum(1)
    if d.position == "centre":
        return eye - 1 / d.latent_width + 0.5 * eye
    return eye


def _masks(d: Description, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which values are observed, and which latent scalars are drawn."""
    shape = (d.examples, d.features)
    if d.mask is None:
        observed = torch.ones(shape, dtype=torch.bool)
    elif d.mask_from == "lengths":
        lengths = torch.randint(d.features + 1, (d.examples, 1), generator=generator)
        lengths[0] = d.features - 1
        observed = torch.arange(d.features) < lengths
    else:
        observed = torch.rand(shape, generator=generator) < 0.6
        observed[0, 0] = False
    if d.mask in ("both sides", "model only", "guide only") and not d.in_features:
        observed = observed[:, :1].expand(shape)  # an example is masked, or it is not
        if d.mask_from == "lengths":
            observed = observed.clone()
            observed[0] = False
    elif d.mask and d.observation in ("event", "factor"):
        observed = observed[:, :1].expand(shape)
    drawn = torch.ones(d.examples, d.latent_width, dtype=torch.bool)
    if d.mask in ("both sides", "model only"):
        drawn = observed if d.in_features else observed[:, :1].expand(drawn.shape)
    return observed, drawn


def with_outside(d: Description, rows: Rows) -> Rows:
    """Put a value outside the support into the last example, if the description says so."""
    if d.outside == "nan":
        x = rows.x.clone()
        x[-1, -1] = torch.nan
        return replace(rows, x=x)
    if d.outside == "coin":
        symbol = rows.symbol.clone()
        symbol[-1] = 3
        return replace(rows, symbol=symbol)
    return rows
