"""Numbers for people: errors to two digits, and values to match.

All functions take what JSON files hold: None stands for a number that is unknown.
"""

import math
from collections.abc import Sequence

UNKNOWN = "unknown"
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
MOST_DECIMALS = 6


def plain(text: str) -> str:
    """Return a text for a terminal, with signs of a keyboard for minus and space."""
    return text.replace(MINUS, "-").replace(SPACE, " ")


def value(number: float | None, error: float | None = None) -> str:
    """Return a number as text, with as many decimals as two digits of its error have.

    Args:
        number: the number.
        error: its standard error. If it is unknown or zero, the number has three digits or more.
    """
    if number is None or not math.isfinite(number):
        return UNKNOWN
    if error is not None and _is_positive(error):
        return _fixed(number, _decimals(error, 2))
    return _fixed(number, max(0, _decimals(number, 3)))


def error(number: float | None) -> str:
    """Return a standard error as text, to two digits."""
    if number is None or not math.isfinite(number):
        return UNKNOWN
    if number == 0:
        return "0"
    least = 10.0**-MOST_DECIMALS
    return f"< {least:f}" if 0 < number < least else _fixed(number, _decimals(number, 2))


def with_error(number: float | None, its_error: float | None) -> str:
    """Return a number and its standard error, as in `1.234 ± 0.056`."""
    if number is None or not _is_positive(its_error):
        return value(number)
    return f"{value(number, its_error)}{SPACE}±{SPACE}{error(its_error)}"


def interval(ends: Sequence[float | None] | None, its_error: float | None) -> str:
    """Return an interval as text; its ends have the decimals of two digits of the error.

    If the error is unknown or zero, both have the decimals of three digits of the larger end.
    """
    low, high = ends or (None, None)
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return UNKNOWN
    if its_error is not None and _is_positive(its_error):
        return f"{value(low, its_error)} to {value(high, its_error)}"
    decimals = max(0, _decimals(max(abs(low), abs(high)), 3))
    return f"{_fixed(low, decimals)} to {_fixed(high, decimals)}"


def not_negative(number: float | None) -> float | None:
    """Return a quantity that is zero or more, of which an estimate may be below zero by noise."""
    return None if number is None else max(0.0, number)


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share in percent."""
    return UNKNOWN if share is None else f"{share:.{digits}%}".replace("%", f"{SPACE}%")


def p_value(number: float | None) -> str:
    """Return a p-value; very small ones are not told apart."""
    if number is None:
        return UNKNOWN
    return "< 0.0001" if number < 1e-4 else f"{number:.2g}"


def count(number: int, noun: str) -> str:
    """Return a count with its noun, as in `1 example` and `1,000 examples`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _is_positive(number: float | None) -> bool:
    return number is not None and math.isfinite(number) and number > 0


def _decimals(scale: float, digits: int) -> int:
    """Return the number of decimals with which a number has some digits; below 0 for tens."""
    if scale == 0:
        return 0
    # Rounding can add a digit: 0.0996 is 0.10 to two digits.
    exponent = int(f"{abs(scale):.{digits - 1}e}".partition("e")[2])
    return min(MOST_DECIMALS, digits - 1 - exponent)


def _fixed(number: float, decimals: int) -> str:
    text = f"{round(number, decimals):,.{max(0, decimals)}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)
