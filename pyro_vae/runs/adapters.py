"""Temporary: gives the results of `bounds` and `diagnostics` the methods that runs use.

It goes away once `Bounds`, `Annealed`, `Bidirectional` and `Corrected` have `rows`, `verdict`,
`bound` and `conditions`, and predictive checks have `__str__` and `to_dict`.
"""

from typing import Any, Protocol

from pyro_vae.bounds import Annealed, Bidirectional, Bounds, Corrected, Estimate
from pyro_vae.diagnostics import predictive


class Result(Protocol):
    """What an estimator of log p(x) returns.

    Attributes:
        verdict: full sentences on how far to rely on it; "" if there is nothing to say.
        bound: by which runs are compared; None if they are not compared by this result.
        conditions: what has to be equal in two runs for their bounds to be comparable.
    """

    @property
    def verdict(self) -> str: ...  # noqa: D102

    @property
    def bound(self) -> Estimate | None: ...  # noqa: D102

    @property
    def conditions(self) -> dict[str, Any]: ...  # noqa: D102

    def rows(self) -> list[tuple[str, Estimate]]:
        """Return the lines of a table."""

    def to_dict(self) -> dict[str, Any]:
        """Return what `bounds.json` holds of it."""


class _Bounds(Bounds):
    @property
    def bound(self) -> Estimate:
        return self.iwae[self.num_samples]

    @property
    def conditions(self) -> dict[str, Any]:
        return {"num_samples": self.num_samples}

    def rows(self) -> list[tuple[str, Estimate]]:
        rows = [("ELBO", self.elbo)]
        rows += [(f"IWAE_{k}", estimate) for k, estimate in self.iwae.items() if k > 1]
        rows += [(f"IWAE_{self.num_samples} - ELBO", self.gap)]
        if self.num_samples > 1:
            rows += [(f"JVI_{self.num_samples} (no bound)", self.jackknife)]
        return rows


class _Annealed(Annealed):
    @property
    def bound(self) -> Estimate:
        return self.lower

    @property
    def conditions(self) -> dict[str, Any]:
        return dict(vars(self.settings))

    @property
    def verdict(self) -> str:
        chains = self.settings.chains
        sentences = [
            f"With 95 % confidence the mean over these images is above {self.certified():.3f}, by "
            "Markov's inequality alone.",
            f"The effective number of chains is {self.ess.median():.1f} (median) and "
            f"{self.ess.min():.1f} (minimum) of {chains}; {self.acceptance.mean():.0%} of moves "
            "are accepted.",
        ]
        if self.upper_flaw:
            sentences.append(
                f"Do not rely on the upper bound: {self.upper_flaw}. Use more temperatures or "
                "chains."
            )
        if self.chain_flaw:
            sentences.append(f"The bounds may be loose: {self.chain_flaw}. Use more temperatures.")
        return "\n".join(sentences)

    def rows(self) -> list[tuple[str, Estimate]]:
        return [("AIS, lower", self.lower), ("AIS, upper", self.upper)]


class _Bidirectional(Bidirectional):
    @property
    def bound(self) -> None:
        return None

    @property
    def conditions(self) -> dict[str, Any]:
        return dict(vars(self.forward.settings))

    @property
    def verdict(self) -> str:
        return (
            f"On {len(self.gap.values)} images drawn from the model the bounds are "
            f"{self.gap.mean:.3f} nats apart (se {self.gap.se:.3f}), by chains both ways."
        )

    def rows(self) -> list[tuple[str, Estimate]]:
        return []


class _Corrected(Corrected):
    @property
    def bound(self) -> None:
        return None

    @property
    def conditions(self) -> dict[str, Any]:
        return {}

    @property
    def verdict(self) -> str:
        return (
            f"The mean over all {len(self.cheap.values)} images, from their IWAE and the mean "
            f"difference on {len(self.chosen)} of them, is {self.mean:.3f} (se {self.se:.3f}, of "
            f"which for the subset {self.subset_se:.3f})."
        )

    def rows(self) -> list[tuple[str, Estimate]]:
        return []


_ADAPTERS: dict[type, Any] = {
    Bounds: _Bounds,
    Annealed: _Annealed,
    Bidirectional: _Bidirectional,
    Corrected: _Corrected,
}


def adapted(result: Any) -> Any:
    """Return a result with the methods of `Result`."""
    if hasattr(result, "rows"):
        return result
    return _ADAPTERS[type(result)](**vars(result))


class _Checks(dict[str, predictive.Check]):
    def __str__(self) -> str:
        return predictive.report(self)

    def to_dict(self) -> dict[str, Any]:
        return {
            name: {"difference": c.difference, "se": c.se, "p_value": c.p_value}
            for name, c in self.items()
        }


def adapted_checks(checks: Any) -> Any:
    """Return predictive checks with `__str__` and `to_dict`."""
    return checks if hasattr(checks, "to_dict") else _Checks(checks)
