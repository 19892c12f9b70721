"""Fields of dataclasses of options, whose values are checked."""

from collections.abc import Callable
from dataclasses import field, fields
from typing import Any

from pyro_vae.errors import InputError

MOST = 2**53  # whole numbers up to here are exact, also as floats


def positive(default: float | None, most: float = MOST) -> Any:
    """Return a field of a dataclass whose value has to be above zero; None is allowed.

    Args:
        default: its value if none is given.
        most: the largest value.
    """
    return _field(default, lambda value: 0 < value <= most, "positive", most)


def at_least(least: int, default: int | None, most: int = MOST) -> Any:
    """Return a field of a dataclass whose value has to be `least` or more; None is allowed.

    Args:
        least: the smallest value.
        default: its value if none is given.
        most: the largest value.
    """
    return _field(default, lambda value: least <= value <= most, f"at least {least}", most)


def random_seed(default: int) -> Any:
    """Return a field of a dataclass for the seed of a random generator."""
    return _field(default, lambda value: 0 <= value < 2**32, "between 0 and 2**32 - 1")


def share(default: float | None) -> Any:
    """Return a field for a share, from 0 to below 1."""
    return _field(default, lambda value: 0 <= value < 1, "from 0 to below 1")


def _field(
    default: Any, is_allowed: Callable[[Any], bool], expected: str, most: float | None = None
) -> Any:
    metadata = {"is_allowed": is_allowed, "expected": expected, "most": most}
    return field(default=default, metadata=metadata)


def check_fields(options: Any) -> None:
    """Check the values of a dataclass whose fields were made by the functions above.

    Raises:
        InputError: naming the first value that is not allowed.
    """
    for option in fields(options):
        value = getattr(options, option.name)
        if value is None or not option.metadata or option.metadata["is_allowed"](value):
            continue
        expected, most = option.metadata["expected"], option.metadata["most"]
        if most is not None and value > most:
            expected = f"at most {most:.15g}"
        raise InputError(f"{option.name} has to be {expected}, but is {value}", option.name)
