"""The measure that log p(x) refers to: only numbers on the same measure can be compared.

A probability and a density are on different base measures. With D pixels of L levels, a density p
on [0, 1]^D gives each image of levels the probability P(levels) = integral of p over the image's
cell, a cube of side 1 / L. By Jensen's inequality, with u uniform on [0, 1)^D,

    log P(levels) >= E_u[log p((levels + u) / L)] - D log L

(Theis, van den Oord & Bethge 2016). So a bound on the log-density, minus log L for each pixel, is
a bound on the log-probability, and both can stand in one table. Bits per dimension are -log2 P,
divided by D.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class BaseMeasure:
    """A measure on examples.

    Attributes:
        name: the measure's name in reports, and in `bounds.json` as `base_measure`.
        counts: whether the measure counts values. If it does, p(x) is a probability and has bits
            per dimension.
        shift: the number of nats that is added to the likelihood's log p(x) to obtain log p(x) on
            this measure: of an example, over all its dimensions.
    """

    name: str
    counts: bool
    shift: float = 0.0


def bits_per_dim(log_prob: float, dims: float) -> float:
    """Return -log2 P divided by the number of dimensions, from nats on a measure that counts."""
    return -log_prob / (dims * math.log(2))
