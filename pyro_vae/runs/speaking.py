"""What commands say beside their results, on stderr: notes, and progress where a person sees it.

The option `--quiet` of every verb turns both off. Errors are always printed.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

_quiet = False


def add_quiet(to: "ArgumentParser") -> None:
    """Add the option `--quiet` to a parser."""
    to.add_argument(
        "--quiet", action="store_true", help="Print results and errors only: no notes, no progress."
    )


def be_quiet(quiet: bool) -> None:
    """Print no notes and no progress in this process; or print them again."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Return whether notes and progress are left out."""
    return _quiet


def shows_progress() -> bool:
    """Return whether progress is shown: on a terminal, unless commands are to be quiet."""
    return not _quiet and sys.stderr.isatty()


def note(text: str) -> None:
    """Print what is no result and no error, unless commands are to be quiet."""
    if not _quiet:
        print(text, file=sys.stderr)
