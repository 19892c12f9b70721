"""The measure that log p(x) refers to: only numbers on the same measure can be compared.

A probability and a density are on different base measures. With D pixels, a density p on [0, 1]^D
gives each image of levels the probability P(levels) = integral of p over the image's cell, a cube
of side 1/256. By Jensen's inequality, with u uniform on [0, 1)^D,

    log P(levels) >= E_u[log p((levels + u) / 256)] - D log 256

(Theis, van den Oord & Bethge 2016). So a bound on the log-density, minus log 256 for each pixel, is
a bound on the log-probability, and both can stand in one table. Bits per dimension are -log2 P,
divided by D.
"""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class BaseMeasure:
    """A measure on examples.

    Attributes:
        name: the measure's name in reports, and in `bounds.json` as `base_measure`.
        counts: whether the measure counts values. If it does, p(x) is a probability and has bits
            per dimension.
        log_cell: the number of nats for each dimension that is added to the likelihood's log p(x)
            to obtain log p(x) on this measure.
    """

    name: str
    counts: bool
    log_cell: float = 0.0

    def log_prob(self, log_prob: Tensor, dims: int) -> Tensor:
        """Return log p(x), or a bound on it, on this measure.

        Args:
            log_prob: log p(x) as the likelihood computes it, in nats.
            dims: D, the number of values in an example.

        Returns:
            Nats, of the same shape. If `log_cell` is not zero, this is a lower bound, as explained
            at the top of this file.
        """
        return log_prob + dims * self.log_cell


def bits_per_dim(log_prob: float, dims: int) -> float:
    """Return -log2 P divided by the number of dimensions, from nats on a measure that counts."""
    return -log_prob / (dims * math.log(2))
