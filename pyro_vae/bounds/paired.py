"""Two or more models, compared on the same examples.

Examples differ by far more than models do, and an example that is difficult for one model is
difficult for the other. So the mean of the paired differences has a much smaller error than the
difference of two means on different examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.bounds.estimates import Estimate, said, said_interval
from pyro_vae.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        bounds: the bound of each model, in nats.
        differences: the bound of each model minus that of the first model, paired by example.
    """

    bounds: dict[str, Estimate]
    differences: dict[str, Estimate]

    def __str__(self) -> str:
        first = next(iter(self.bounds))
        width = max(map(len, self.bounds))
        header = f"{'nats':{width}} {'mean':>10} {'se':>8}   {'difference':>10} {'se':>8}"
        lines = [f"{header} {'95 % interval':>22} {'MC error':>9}"]
        for name, bound in self.bounds.items():
            line = f"{name:{width}} {bound.mean:10.3f} {said(bound.se):>8}"
            if name != first:
                difference = self.differences[name]
                line += f"   {difference.mean:+10.3f} {said(difference.se):>8}"
                line += f" {said_interval(difference.ci95):>22} {said(difference.mc_se, '.4f'):>9}"
            lines.append(line)
        return "\n".join(lines)


def compare(values: Mapping[str, Tensor | Estimate]) -> Comparison:
    """Compare models by their bounds on log p(x) of the same examples.

    Args:
        values: log p(x_i) or a bound on it, in nats, shape [N], by the name of the model. All
            models have the same N examples in the same order, and the same base measure. An
            `Estimate` also has the Monte Carlo variances. The first model is the one with which
            the others are compared.

    Raises:
        InputError: if there are fewer than two models, or their numbers of examples differ.
    """
    if len(values) < 2:
        raise InputError("a comparison takes two models or more", "values")
    bounds = {name: as_estimate(value) for name, value in values.items()}
    if len({len(bound.values) for bound in bounds.values()}) > 1:
        raise InputError("models can only be compared on the same examples", "values")
    first = next(iter(bounds))
    differences = {name: bound - bounds[first] for name, bound in bounds.items() if name != first}
    return Comparison(bounds, differences)


def as_estimate(values: Tensor | Estimate) -> Estimate:
    """Return values, shape [N], as an estimate whose Monte Carlo variances are unknown.

    An estimate is returned as it is.
    """
    if isinstance(values, Estimate):
        return values
    return Estimate(values.double(), torch.full_like(values, torch.nan, dtype=torch.float64))
