"""What a VAE makes of single codes: moments of q(z|x), what is typical of p(x|z), and draws."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Incomplete, Kind, Levels, Pixels
from pyro_vae.likelihoods import Likelihood
from pyro_vae.vae import VAE


def moments(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return mean and deviation of q(z|x) in closed form, [N, latent_dim]; None if there is none.

    Args:
        vae: the VAE.
        x: examples as the likelihood sees them, shape [N, *event].
    """
    if vae.posterior.support == "layers":
        return None
    q = vae.posterior(vae.likelihood.kind.features(x))
    try:
        return q.mean, q.stddev
    except (NotImplementedError, AttributeError):
        return None


def typical(vae: VAE, z: Tensor, like: Tensor) -> Tensor:
    """Return what is typical of p(x|z) for each code, as x, shape [N, *event].

    Args:
        vae: the VAE.
        z: codes as the likelihood gets them, shape [N, latent_dim].
        like: examples with the conditions, shape [N, *event].

    Raises:
        InputError: if the likelihood gives no mean, and its values are no pixels.
    """
    likelihood, kind = vae.likelihood.under(like), vae.likelihood.kind
    if not isinstance(kind, Conditional):
        return typical_of_x(likelihood, kind, z)
    try:
        return likelihood.typical(z)
    except NotImplementedError:
        return kind.packed(_picture(likelihood, kind.of, z), kind.parted(like)[1])


def typical_of_x(likelihood: Likelihood, kind: Kind, z: Tensor) -> Tensor:
    """Return what is typical of a likelihood without conditions for each code, as x.

    Args:
        likelihood: p(x|z).
        kind: what x is.
        z: codes as the likelihood gets them, shape [N, codes].

    Raises:
        InputError: if the likelihood gives no mean, and its values are no pixels.
    """
    try:
        return likelihood.typical(z)
    except NotImplementedError:
        return _picture(likelihood, kind, z)


def _picture(likelihood: Likelihood, kind: Kind, z: Tensor) -> Tensor:
    """Return the picture of a likelihood whose mean has no closed form, as x."""
    whole = kind.whole if isinstance(kind, Incomplete) else kind
    if not isinstance(whole, Pixels):
        raise InputError(
            "the mean of this likelihood has no closed form, so it gives no reconstructions"
        )
    return likelihood.picture(z) * (whole.largest if isinstance(whole, Levels) else 1)


def draw_examples(vae: VAE, like: Tensor, temperature: float) -> Tensor:
    """Draw an example from the model for each row, shape [N, *event].

    Args:
        vae: the VAE.
        like: examples with the conditions, shape [N, *event]; without conditions [N, 0].
        temperature: the factor of the deviations of p(z) from its mean.

    Raises:
        InputError: if the temperature is not 1, and p(z) is no normal.
    """
    prior, likelihood = vae.prior, vae.likelihood
    if isinstance(likelihood.kind, Conditional):
        prior, likelihood = prior.under(like, likelihood.kind), likelihood.under(like)
    with pyro.plate("data", len(like)):
        p = prior()
        if temperature != 1:
            p = _cooled(p, temperature, vae.posterior.support != "layers")
        z = pyro.sample("z", p)
        x: Tensor = pyro.sample("x", likelihood(prior.code(z)))
    return x


def _cooled(p: dist.Distribution, temperature: float, is_whole: bool) -> dist.Distribution:
    """Return a normal p(z) with deviations that are multiplied.

    Args:
        p: p(z).
        temperature: the factor.
        is_whole: whether p is all of the prior, and has no layer above it.
    """
    base = p
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    if not isinstance(base, torch.distributions.Normal) or not is_whole:
        raise InputError(
            "a temperature other than 1 needs a prior of independent normals: leave it out, or "
            "train with another prior",
            "temperature",
        )
    return dist.Normal(base.loc, base.scale * temperature).to_event(1)
