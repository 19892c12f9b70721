"""Whether the data that a program observes are in the supports of their distributions.

Pyro's own check reads every value several times, so it is made for the first batch only. This one
costs less than one percent of a training step, and is made for every batch.
"""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyro_vae.errors import InputError

# If the smallest and the largest value are in one of these sets, all values between them are.
_CONVEX = (
    type(constraints.real),
    constraints.interval,
    constraints.half_open_interval,
    constraints.greater_than,
    constraints.greater_than_eq,
    constraints.less_than,
)


class ObservedValues(Messenger):
    """Checks the observed sites of the programs that run in this context.

    Masked values are checked too, as in Pyro: outside the support their gradients are not finite.

    Args:
        refuse: whether to raise an error at the first site with a value outside its support. If it
            is false, `inside` collects the results, as in a compiled function, which cannot raise.

    Attributes:
        inside: for each observed site, a boolean tensor, which is true if all values are inside.
        sentences: for each observed site, what to say if they are not.

    Raises:
        InputError: if `refuse` is true, and a value is outside the support.
    """

    def __init__(self, *, refuse: bool = True) -> None:
        super().__init__()
        self.refuse = refuse
        self.inside: list[Tensor] = []
        self.sentences: list[str] = []

    def __enter__(self) -> "ObservedValues":
        self.inside, self.sentences = [], []
        super().__enter__()
        return self

    def _pyro_post_sample(self, site: Any) -> None:
        computed = site["infer"].get("_deterministic") or poutine.util.site_is_subsample(site)
        if not site["is_observed"] or computed:
            return
        try:
            support = site["fn"].support
        except NotImplementedError:  # the distribution does not say what its support is
            return
        inside = all_inside(support, site["value"])
        sentence = _sentence(site["name"], site["fn"], support)
        if self.refuse and not inside:
            raise InputError(sentence)
        self.inside.append(inside)
        self.sentences.append(sentence)


def all_inside(support: constraints.Constraint, values: Tensor) -> Tensor:
    """Return whether all values are in a support, as a boolean tensor without dimensions.

    This is `support.check(values).all()`, in a faster way for the most common supports: PyTorch is
    slow in comparing floating-point numbers, and in reducing booleans.
    """
    base = support
    while isinstance(base, constraints.independent):
        base = base.base_constraint
    if values.is_floating_point() and values.numel():
        if base is constraints.boolean:
            return (values * values - values).abs().sum() == 0
        if isinstance(base, _CONVEX) and not any(
            isinstance(bound, Tensor) and bound.numel() > 1 for bound in vars(base).values()
        ):
            return base.check(torch.stack(torch.aminmax(values))).all()
    return support.check(values).all()


def _sentence(name: str, distribution: Distribution, support: constraints.Constraint) -> str:
    while hasattr(distribution, "base_dist") and isinstance(support, constraints.independent):
        distribution, support = distribution.base_dist, support.base_constraint
    text = " ".join(str(support).split())[:80]
    return (
        f"site '{name}' observes values outside the support of its distribution, which is "
        f"{text} for {type(distribution).__name__}: change the data, or the distribution"
    )
