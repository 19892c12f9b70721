"""Parts of a model that are named by their class, or given."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from pyro_vae.errors import InputError
from pyro_vae.networks import MLP


def part(
    argument: str, named: Any, module: ModuleType, **widths: Sequence[int]
) -> Callable[..., Any]:
    """Return what makes a part of the model, with networks of these widths.

    Args:
        argument: the name of the argument that names the part.
        named: the name of a class, a class, or any other callable that makes the part.
        module: the module with the classes that have names.
        widths: the widths of the network, by the name of the part's argument for it.

    Raises:
        InputError: if there is no such class.
    """
    found = getattr(module, named, None) if isinstance(named, str) else named
    if not callable(found) or (isinstance(named, str) and named not in module.__all__):
        raise InputError(
            f"{argument} has to be a class or the name of one in {module.__name__}, but is {named}",
            argument,
        )
    given = getattr(found, "keywords", {})  # of a partial function
    networks = {
        name: partial(MLP, widths=sizes)
        for name, sizes in widths.items()
        if name in inspect.signature(found).parameters and name not in given
    }
    return partial(found, **networks) if networks else found
