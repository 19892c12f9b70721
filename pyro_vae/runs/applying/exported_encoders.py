"""What an exported encoder takes and gives, for each family of q(z|x).

Most encoders give the parameters of q(z|x), from which z is drawn. A flow has no such parameters:
its encoder takes noise u and gives a draw z, with its log-density. A posterior that draws two
layers from the top down has two encoders: of q(z_top|x), and of q(z|x, z_top). Of BottomUp, which
draws z first, there is that of q(z|x).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions.transforms import ReshapeTransform

from pyro_vae.distributions import PowerSpherical
from pyro_vae.errors import InputError
from pyro_vae.posteriors import BottomUp, Posterior


class _Family(NamedTuple):
    """What an encoder gives of a family of distributions.

    Attributes:
        gives: the distribution's tensors that the encoder gives.
        outputs: what each of them is, in words.
        draw: how z is drawn, in words.
    """

    gives: Callable[[Any], tuple[Tensor, ...]]
    outputs: tuple[str, ...]
    draw: str


_U = "with u from N(0, I)"
_FAMILIES: dict[type, _Family] = {
    torch.distributions.Normal: _Family(
        lambda q: (q.mean, q.stddev),
        ("mean of q(z|x)", "standard deviation of q(z|x)"),
        f"z = mean + standard deviation * u, {_U}",
    ),
    torch.distributions.MultivariateNormal: _Family(
        lambda q: (q.loc, q.scale_tril),
        ("mean of q(z|x)", "L, a lower triangular matrix; the covariance of q(z|x) is L L'"),
        f"z = mean + L u, {_U}",
    ),
    torch.distributions.LowRankMultivariateNormal: _Family(
        lambda q: (q.loc, q.cov_factor, q.cov_diag),
        (
            "mean of q(z|x)",
            "F, with a row for each dimension of z",
            "d; the covariance of q(z|x) is F F' + diag(d)",
        ),
        "z = mean + F u + sqrt(d) * v, with u and v from N(0, I)",
    ),
    PowerSpherical: _Family(
        lambda q: (q.loc, q.concentration),
        ("direction of q(z|x), a unit vector", "concentration of q(z|x), a number"),
        "the power spherical distribution of De Cao and Aziz (2020), arXiv:2006.04437",
    ),
    torch.distributions.Bernoulli: _Family(
        lambda q: (q.probs,),
        ("probabilities that z is 1",),
        "each z is 0 or 1, independently",
    ),
    torch.distributions.OneHotCategorical: _Family(
        lambda q: (q.probs,),
        ("probabilities of the categories, a row for each variable",),
        "one-hot vectors of the variables, one behind another",
    ),
}


class _Parameters(nn.Module):
    """Features -> the parameters of q(z|x)."""

    def __init__(self, posterior: Posterior, family: _Family) -> None:
        super().__init__()
        self.posterior, self.family = posterior, family

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return self.family.gives(_plain(self.posterior(features)))


class _Below(nn.Module):
    """Features and z_top -> the parameters of q(z|x, z_top)."""

    def __init__(self, posterior: Posterior, family: _Family) -> None:
        super().__init__()
        self.posterior, self.family = posterior, family

    def forward(self, features: Tensor, z_top: Tensor) -> tuple[Tensor, ...]:
        q = poutine.condition(self.posterior, {"z_top": z_top})(features)
        return self.family.gives(_plain(q))


class _Draw(nn.Module):
    """Features and noise -> a draw from a flow, and its log-density."""

    def __init__(self, posterior: Posterior) -> None:
        super().__init__()
        self.posterior = posterior

    def forward(self, features: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        q = self.posterior(features)
        flow = _plain(q)
        base = _plain(flow.base_dist)
        z = base.mean + base.stddev * u
        for transform in flow.transforms:
            z = transform(z)
        return z, q.log_prob(z)


@dataclass(frozen=True)
class EncoderProgram:
    """An encoder to export.

    Attributes:
        module: the encoder.
        inputs: examples of its inputs.
        about: what `model.json` says of it.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    about: dict[str, Any]


def encoder_programs(posterior: Posterior, rows: int) -> dict[str, EncoderProgram]:
    """Return the encoders of a posterior by their names: `encoder`, and `top_encoder` if there is.

    Args:
        posterior: q(z|x), in evaluation mode.
        rows: the number of rows of the examples.

    Raises:
        InputError: if an encoder does not describe the posterior.
    """
    features = torch.zeros(rows, *posterior.event_shape)
    if not posterior.upper_dims or isinstance(posterior, BottomUp):
        return {"encoder": _single(posterior, features)}
    if len(posterior.upper_dims) > 1:
        raise InputError("an encoder of more than two layers cannot be exported")
    top = posterior.top
    z_top = torch.zeros(rows, top.latent_dim)
    q = _run(lambda: poutine.condition(posterior, {"z_top": z_top})(features))
    family = _family(posterior, q)
    outputs = [each.replace("q(z|x)", "q(z|x, z_top)") for each in family.outputs]
    about = _about(posterior, ["features", "z_top"], outputs, family.draw)
    above = _single(top, features)
    above.about.update(
        outputs=[each.replace("q(z|x)", "q(z_top|x)") for each in above.about["outputs"]]
    )
    below = EncoderProgram(_Below(posterior, family), (features, z_top), about)
    return {"top_encoder": above, "encoder": below}


def _single(posterior: Posterior, features: Tensor) -> EncoderProgram:
    q = _run(lambda: posterior(features))
    if _is_flow(q):
        u = torch.zeros(len(features), posterior.latent_dim)
        outputs = ["z, a draw from q(z|x)", "log q(z|x) of it, in nats"]
        inputs = ["features", "u, noise from N(0, I)"]
        about = _about(posterior, inputs, outputs, "z is the first output")
        return EncoderProgram(_Draw(posterior), (features, u), about)
    family = _family(posterior, q)
    about = _about(posterior, ["features"], list(family.outputs), family.draw)
    return EncoderProgram(_Parameters(posterior, family), (features,), about)


def _about(
    posterior: Posterior, inputs: list[str], outputs: list[str], draw: str
) -> dict[str, Any]:
    return {
        "posterior": type(posterior).__name__,
        "inputs": inputs,
        "outputs": outputs,
        "draw": draw,
        "latent_dim": posterior.latent_dim,
    }


def _run(make: Callable[[], Any]) -> Any:
    with torch.no_grad(), pyro.validation_enabled(False):
        return make()


def _is_flow(q: Any) -> bool:
    """Return whether q transforms normal noise."""
    flow = _plain(q)
    if not isinstance(flow, torch.distributions.TransformedDistribution):
        return False
    return isinstance(_plain(flow.base_dist), torch.distributions.Normal)


def _plain(q: Any) -> Any:
    """Return the distribution whose dimensions q rearranges, or q itself."""
    while isinstance(q, torch.distributions.Independent) or (
        isinstance(q, torch.distributions.TransformedDistribution)
        and all(isinstance(each, ReshapeTransform) for each in q.transforms)
    ):
        q = q.base_dist
    return q


def _family(posterior: Posterior, q: Any) -> _Family:
    """Return the family of a distribution.

    Raises:
        InputError: if there is none.
    """
    base = _plain(q)
    for kind, family in _FAMILIES.items():
        if isinstance(base, kind):
            return family
    names = ", ".join(kind.__name__ for kind in _FAMILIES)
    raise InputError(
        f"the encoder of {type(posterior).__name__} cannot be exported, because its distribution "
        f"is {type(base).__name__}: those that can are {names}, and flows from a Normal"
    )
