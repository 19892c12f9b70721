"""The latent spaces that codes z can lie in, and the check that prior and posterior share one."""

from typing import Literal, Protocol

from pyro_vae.errors import InputError

Latent = Literal["real", "sphere", "binary", "categorical", "layers"]

_DESCRIPTIONS: dict[Latent | None, str] = {
    "real": "real vectors",
    "sphere": "on the unit sphere",
    "binary": "binary",
    "categorical": "one-hot",
    "layers": "in several layers",
    None: "in a single layer",
}


class HasSupport(Protocol):
    """What `check_support` uses of a prior and of a posterior."""

    @property
    def support(self) -> Latent | None:
        """The latent space of the codes.

        None is for priors whose codes lie in the latent space of the posterior. This can be any
        latent space with a single layer.
        """


def check_support(prior: HasSupport, posterior: HasSupport) -> None:
    """Refuse a prior and a posterior that have different latent spaces.

    Raises:
        InputError: with the latent space of each.
    """
    if prior.support is None:
        agree = posterior.support != "layers"
    else:
        agree = prior.support == posterior.support
    if not agree:
        raise InputError(
            "prior and posterior have different latent spaces: the codes of the prior "
            f"{type(prior).__name__} are {_DESCRIPTIONS[prior.support]}, and those of the "
            f"posterior {type(posterior).__name__} are {_DESCRIPTIONS[posterior.support]}: "
            "choose two that agree",
            "prior",
        )
