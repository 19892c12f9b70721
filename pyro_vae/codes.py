"""Where codes live, and whether those of a prior and of a posterior agree."""

from typing import Any, Literal

from pyro_vae.errors import InputError

Latent = Literal["real", "sphere", "binary", "categorical", "two layers"]


def check_support(prior: Any, posterior: Any) -> None:
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
