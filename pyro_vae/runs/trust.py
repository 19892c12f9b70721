"""Which classes a file of options may name: those of this package, and no others.

A run's folder, or a file for `--config`, may come from anybody. jsonargparse imports whatever a
file names as a class, before it checks that this is a class of the right kind. So the names in a
file are checked as text, before jsonargparse sees them. A file may name the public classes of this
package. For other names the user has to say that he trusts their code.

What a user types on the command line is his own choice, and is not checked.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pyro_vae.errors import InputError
from pyro_vae.runs import bounded_yaml
from pyro_vae.runs.part_names import PARTS, part_names

# The options whose values are classes. In their values, jsonargparse looks for names of classes.
COMPONENTS = (
    *("prior", "likelihood", "posterior", "objective"),
    *("schedule", "optimizer", "average"),
)
ONLY_TYPED = ("config", "resume", "trust_code")  # options that no file may set

_WORD_OR_NUMBER = re.compile(
    r"\w*|[+-]?[\d.]+(e[+-]?\d+)?|[+-]?\.(inf|nan)", re.ASCII | re.IGNORECASE
)
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


@cache
def classes() -> frozenset[str]:
    """Return the import paths of the public classes of this package that options may name."""
    return frozenset(
        f"{parts.package}.{name}"
        for option, parts in PARTS.items()
        for name in (parts.base, *part_names(option))
    )


def read(path: Path, trust_code: bool = False) -> str:
    """Read a file of options, and check the names of classes in it. Nothing is imported.

    Args:
        path: a YAML file.
        trust_code: whether it may name classes that are not in this package.

    Returns:
        The text of the file.

    Raises:
        InputError: if it is too large, or no YAML file, or names other classes.
    """
    text = bounded_yaml.read(path)
    for option, value in bounded_yaml.load(text).items():
        name = str(option).partition(".")[0].rstrip("+")
        if name in ONLY_TYPED and value is not None:
            raise InputError(f"{path} sets {name}: give --{name} on the command line only")
    if not trust_code:
        for name in names_of_others(bounded_yaml.load(text)):
            shown = " ".join(name.split())
            shown = shown if len(shown) <= 100 else f"{shown[:100]}.."
            raise InputError(
                f"{path} names {shown}, which is not a public class of pyro_vae, so its code would "
                "be executed: if you trust it, add --trust_code (in Python trust_code=True)"
            )
    return text


def names_of_others(options: dict[Any, Any]) -> Iterator[str]:
    """Return whatever in options may name a class or function that is not in this package.

    jsonargparse takes the name of a class in many forms: as a text alone, after `class_path`, in
    YAML within a text. It imports only what has a dot. So in the value of a component, each text
    has to be a word, a number, or the name of a class of ours.

    Args:
        options: values by the names of the options.
    """
    for option, value in options.items():
        if str(option).partition(".")[0].rstrip("+") in COMPONENTS:
            for each in bounded_yaml.scalars(value):
                if isinstance(each, str) and each not in classes():
                    if not _WORD_OR_NUMBER.fullmatch(each):
                        yield each


def types_names_of_others(arguments: Iterable[str]) -> bool:
    """Return whether the user typed the name of a class that is not in this package.

    Args:
        arguments: of the command line.
    """
    option = ""
    for argument in arguments:
        value = argument
        if argument.startswith("--"):
            option, _, value = argument[2:].partition("=")
        if option.partition(".")[0] in COMPONENTS:
            if any(name not in classes() for name in _IMPORT_PATH.findall(value)):
                return True
    return False
