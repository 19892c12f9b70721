"""The names of the classes that options take, from the sources: importing them takes seconds."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Parts(NamedTuple):
    """Where the classes for an option are.

    Attributes:
        place: a package, or a file in it.
        base: the name of their base class.
        others: names that are imported from the same place, and are no such classes.
    """

    place: str
    base: str
    others: frozenset[str] = frozenset()

    @property
    def package(self) -> str:
        """The package that names them: the classes are public there."""
        return ".".join(self.place.split(".")[:2])


PARTS = {
    "prior": Parts("pyro_vae.priors", "Prior"),
    "likelihood": Parts("pyro_vae.likelihoods", "Likelihood", frozenset({"Decoder", "Shape"})),
    "posterior": Parts("pyro_vae.posteriors", "Posterior", frozenset({"Encoder"})),
    "objective": Parts("pyro_vae.objectives", "Objective"),
    "schedule": Parts("pyro_vae.training.schedules", "Schedule", frozenset({"BatchDoubling"})),
    "optimizer": Parts("pyro_vae.training.optimizers", "Optimizer"),
    "average": Parts("pyro_vae.training.averaging", "Averaging"),
    "network": Parts("pyro_vae.networks", "Network", frozenset({"GatedPixelCNN", "LocalFeatures"})),
}


def part_names(option: str) -> list[str]:
    """Return the names of the classes that an option takes: those that their package imports."""
    parts = PARTS[option]
    imported = {
        name.name
        for node in source(parts.package).body
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{parts.place}.")
        for name in node.names
    }
    return sorted(imported - parts.others - {parts.base})


@cache
def source(module: str) -> ast.Module:
    """Return the source of a module of this package. Its package is imported; it is not."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
