"""What a user may have meant by a name that does not exist."""

import difflib
from collections.abc import Iterable


def similar(typed: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like what was typed, whatever its case; None if none is.

    A name that begins with what was typed is like it, too.
    """
    by_lower = {name.lower(): name for name in sorted(names)}
    lower = typed.lower()
    close = difflib.get_close_matches(lower, by_lower, n=1)
    close += [name for name in by_lower if lower and name.startswith(lower)]
    return by_lower[close[0]] if close else None


def did_you_mean(name: str | None) -> str:
    """Return the end of a message that suggests a name; "" if there is none."""
    return f": did you mean {name}?" if name else ""
