"""Columns that a model should not be trained on: what is wrong with them, in one error for all."""

from collections.abc import Sequence
from typing import NamedTuple

from pyro_vae.errors import InputError

MOST = 20  # columns that one error describes
LONGEST_TEXT = 1000  # characters of a category, of a class, and of the name of a column


class OddColumn(NamedTuple):
    """A column that is to be dropped.

    Attributes:
        name: the column's name.
        problem: what is wrong, as the end of a sentence that begins with the name.
        cure: what to do about this column alone.
    """

    name: str
    problem: str
    cure: str


def refuse_odd(odd: Sequence[OddColumn], where: str) -> None:
    """Refuse columns, all at once.

    Args:
        odd: the columns.
        where: the name of the file or object, for the message.

    Raises:
        InputError: if there are any. It ends with their names, as the option `drop` takes them.
    """
    if len(odd) == 1:
        name, problem, cure = odd[0]
        raise InputError(f"column {name} of {where} {problem}: {cure}", "drop")
    if odd:
        problems = "; ".join(f"{name} {problem}" for name, problem, _ in odd[:MOST])
        names = ",".join(f'"{name}"' if "," in name else name for name, *_ in odd[:MOST])
        more = f" and {len(odd) - MOST:,} more" if len(odd) > MOST else ""
        said = f"columns of {where} cannot be used: {problems}{more}: drop {names}{more}"
        raise InputError(f"{len(odd):,} {' '.join(said.split())}", "drop")
