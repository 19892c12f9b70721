"""The mean of a quantity over examples, with its standard error over examples."""

import math

from torch import Tensor


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of values, shape [N]."""
    return (values.double().std() / len(values) ** 0.5).item()


def mean_and_error(values: Tensor) -> dict[str, float | None]:
    """Return the mean and its standard error, for a JSON file: None where one is not finite."""
    numbers = {"mean": values.mean().item(), "se": standard_error(values)}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def mean_as_text(values: Tensor) -> str:
    """Return the mean and its standard error, for a report: `1.23 ± 0.04`."""
    mean = round(values.mean().item(), 2) + 0.0  # 0.00, not -0.00
    return f"{mean:.2f} ± {standard_error(values):.2f}"


def amount_as_text(values: Tensor) -> str:
    """Return the same of a quantity that is zero or more, of which estimates may be below it.

    An unknown mean stays NaN.
    """
    return f"{max(values.mean().item(), 0.0):.2f} ± {standard_error(values):.2f}"
