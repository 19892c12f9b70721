"""The mean of a quantity over examples, with its standard error over examples."""

import math

from torch import Tensor

from pyro_vae.bounds.estimates import with_error


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of values, shape [N]."""
    return (values.double().std() / len(values) ** 0.5).item()


def mean_and_error(values: Tensor) -> dict[str, float | None]:
    """Return the mean and its standard error, for a JSON file: None where one is not finite."""
    numbers = {"mean": values.mean().item(), "se": standard_error(values)}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def mean_as_text(values: Tensor) -> str:
    """Return the mean and its standard error to two digits, for a report: `1.234 ± 0.056`."""
    return with_error(values.mean().item(), standard_error(values))


def amount_as_text(values: Tensor) -> str:
    """Return the same of a quantity that is zero or more, of which estimates may be below it.

    An unknown mean stays unknown.
    """
    return with_error(max(values.mean().item(), 0.0), standard_error(values))
