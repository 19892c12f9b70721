"""Which programs have a latent code for each example, so that it can be diagnosed."""

from typing import Any

from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.pair import Pair
from pyro_vae.programs.traces import Program, Site, sample_sites


def latent_sites(trace: Any) -> list[tuple[str, Site]]:
    """Return the sites of a guide that are sites of the model too."""
    return [(n, site) for n, site in sample_sites(trace) if not site["infer"].get("is_auxiliary")]


def look_at_codes(
    model: Program, guide: Program, arguments: Arguments, plate: str | None, most_at_once: int
) -> Pair:
    """Look at a model and a guide whose latent sites are codes of single examples.

    Args:
        model: a Pyro program.
        guide: a Pyro program, the model's guide.
        arguments: what both are called with, for all examples.
        plate: the name of the plate of the examples; by default it is found.
        most_at_once: the largest number of examples that are run at once by choice.

    Raises:
        InputError: if a latent site is no code, or no bound follows from the programs.
    """
    pair = look_at(model, guide, arguments, plate=plate, most_at_once=most_at_once)
    if pair.summed_out:
        name = min(pair.summed_out)
        raise InputError(
            f"a code can be diagnosed if the guide draws all of it, and it has no site '{name}'",
            "guide",
        )
    return pair


def check_codes(sites: list[tuple[str, Site]], plate: str | None) -> None:
    """Check that the latent sites of a guide are codes of single examples.

    Args:
        sites: the sites, with their names.
        plate: the name of the plate of the examples, which all of them are in; None if there is
            none.

    Raises:
        InputError: if there is no such plate, or some values are masked.
    """
    if plate is None:
        raise InputError(
            "a code can be diagnosed if each example has its own, and here some latent site is "
            "outside the plate of the examples",
            "guide",
        )
    for name, site in sites:
        if site["mask"] is not None and site["mask"] is not True:
            raise InputError(
                f"site '{name}' is masked, and codes of different lengths cannot be compared",
                "guide",
            )
