"""YAML files that may come from anybody: their size is checked before they are put together."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from pyro_vae.errors import InputError

MOST_BYTES = 1_000_000  # of a file
MOST_LEVELS = 10  # of lists and mappings in each other; each part in a part triples the time
MOST_ITEMS = 20_000  # keys and values in a file
MOST_IN_A_LIST = 100  # jsonargparse copies a list once for each of its items
MOST_CHARACTERS = 100_000  # of one value
LARGEST = 10**100  # number

_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")
)
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# YAML 1.1 reads 1:30 as 90, to base 60, and 010 as 8.
_OTHER_BASE = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[-+]?0[0-7_]+")


def read(path: Path) -> str:
    """Read a YAML file.

    Returns:
        The text of the file. `load` and jsonargparse take little time and memory for it.

    Raises:
        InputError: if it is not a YAML file, or too large, too deep, or uses aliases or tags.
    """
    if not path.is_file():  # reading a pipe would wait for ever
        raise InputError(f"{path} is not a file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InputError(f"{path} is not a file of options: it has more than {MOST_BYTES} bytes")
    try:
        text = content.decode()
        _check_size(text, str(path), inside_file=True)
        values = list(scalars(load(text)))
    except InputError:
        raise
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not a YAML file: {reason}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a YAML file: it is not text in UTF-8") from error
    except (ValueError, ArithmeticError) as error:
        raise InputError(f"{path} has a number that is too large") from error
    for value in values:
        _check_scalar(value, str(path))
    return text


def load(text: str) -> dict[Any, Any]:
    """Return what a YAML text says, as jsonargparse reads it.

    Returns:
        Its mapping; an empty one if the text holds something else.
    """
    content = get_loader("yaml")(text)
    return content if isinstance(content, dict) else {}


def _is_to_other_base(event: yaml.Event) -> bool:
    plain = isinstance(event, yaml.ScalarEvent) and not event.style
    return plain and _OTHER_BASE.fullmatch(event.value) is not None


def check_typed(text: str) -> None:
    """Check a value of the command line that may be YAML.

    Raises:
        InputError: if it is a list or a mapping with a number to another base than ten.
    """
    try:
        numbers = [
            event.value for event in yaml.parse(text, Loader=_PARSER) if _is_to_other_base(event)
        ]
    except yaml.YAMLError:
        return  # it is a text
    if numbers and not _OTHER_BASE.fullmatch(text.strip()):
        raise InputError(
            f"{text[:100]} has the number {numbers[0][:100]}, which YAML reads in another base: "
            "write it in decimals"
        )


def number_to_other_base(text: str) -> int | float | None:
    """Return the number that YAML reads in a text to another base than ten; None if it has none."""
    if not _OTHER_BASE.fullmatch(text.strip()):
        return None
    number = get_loader("yaml")(text)
    return number if isinstance(number, int | float) else None


def scalars(value: Any) -> Iterator[Any]:
    """Return the values in lists and mappings, at any depth; of a mapping not the keys."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from scalars(each)
    else:
        yield value


def _check_scalar(value: Any, source: str) -> None:
    """Check a value. jsonargparse may read a text as YAML again."""
    if isinstance(value, str):
        try:
            _check_size(value, source)
            value = get_loader("yaml")(value)
        except yaml.YAMLError:
            return  # then jsonargparse leaves it as it is
        except (ValueError, ArithmeticError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{source} has a number that is too large") from error
    if isinstance(value, int | float) and LARGEST < abs(value) < float("inf"):
        raise InputError(f"{source} has a number that is too large")


def _check_size(text: str, source: str, inside_file: bool = False) -> None:
    """Check a YAML text, item by item, before it is put together.

    Args:
        text: the text of a file, or of a value in it.
        source: the file, for messages.
        inside_file: whether it is the text of the file.

    Raises:
        InputError: if it is too large or too deep, or uses aliases or tags.
        yaml.YAMLError: if it is no YAML.
    """
    counts: list[int] = []  # the items of each list or mapping that is open
    total = 0
    has_anchor = False
    for event in yaml.parse(text, Loader=_PARSER):
        has_anchor |= getattr(event, "anchor", None) is not None
        if isinstance(event, yaml.CollectionEndEvent):
            counts.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        total += 1
        if counts:
            counts[-1] += 1
        if isinstance(event, yaml.AliasEvent):
            if has_anchor:  # without one it is no YAML, but maybe a text such as "*.csv"
                raise InputError(f"{source} repeats parts by YAML aliases: write them out")
            continue
        if event.tag not in (None, "!") and event.tag not in _TAGS:
            raise InputError(f"{source} has the YAML tag {event.tag[:100]}: leave it out")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MOST_CHARACTERS:
            raise InputError(f"{source} has a value of more than {MOST_CHARACTERS} characters")
        if (inside_file or counts) and _is_to_other_base(event):
            raise InputError(
                f"{source} has the number {event.value[:100]}, which YAML reads in another base: "
                "write it in decimals, or a text in quotes"
            )
        too_long = bool(counts) and counts[-1] > MOST_IN_A_LIST
        if isinstance(event, yaml.CollectionStartEvent):
            # A mapping is limited by the total only.
            counts.append(-MOST_ITEMS if isinstance(event, yaml.MappingStartEvent) else 0)
        if too_long or total > MOST_ITEMS or len(counts) > MOST_LEVELS:
            raise InputError(
                f"{source} is not a file of options: it has more than {MOST_ITEMS} values, a list "
                f"of more than {MOST_IN_A_LIST}, or more than {MOST_LEVELS} levels"
            )
