"""What every estimator returns, so that reports, files and comparisons can loop over results."""

from typing import Any, Protocol, runtime_checkable

from pyro_vae.bounds.estimates import Estimate, Summary


@runtime_checkable
class Result(Protocol):
    """The result of an estimator: all that tables, `bounds.json` and comparisons need of it.

    A class needs no base class for this: it is a result if it has these members.
    """

    def rows(self) -> list[tuple[str, Summary]]:
        """Return the lines of the printed table: a name of at most 20 characters, and a mean."""
        ...

    @property
    def verdict(self) -> str:
        """How far the result can be trusted, in full sentences; empty if nothing is to be said."""
        ...

    @property
    def bound(self) -> Estimate | None:
        """The bound on log p(x) of each example by which runs are compared; None if there is none.

        It must be a bound for the examples that were given, in their order.
        """
        ...

    @property
    def conditions(self) -> dict[str, Any]:
        """What has to be equal in two runs for their bounds to be comparable, by name."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of the result: numbers in nats, None if not finite."""
        ...
