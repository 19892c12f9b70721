"""On what measure log p(x) is: only numbers on one measure can be compared.

A probability and a density are on different base measures. With D pixels, a density p on [0, 1]^D
gives each image of levels the probability P(levels) = integral of p over its cell, of side 1/256.
By Jensen's inequality, with u uniform on [0, 1)^D,

    log P(levels) >= E_u[log p((levels + u) / 256)] - D log 256

(Theis, van den Oord & Bethge 2016). So a bound on the density, minus log 256 for each pixel, is a
bound on the probability, and the two can stand in one table. Bits per dimension are -log2 P for
each pixel.
"""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class BaseMeasure:
    """A measure on examples.

    Attributes:
        name: in reports, and in `bounds.json` as `base_measure`.
        counts: whether it counts values, so that p(x) is a probability and has bits per dimension.
        log_cell: nats for each dimension, to be added to the likelihood's log p(x) to obtain its
            logarithm on this measure.
    """

    name: str
    counts: bool
    log_cell: float = 0.0

    def log_prob(self, log_prob: Tensor, dims: int) -> Tensor:
        """Return log p(x), or a bound on it, on this measure.

        Args:
            log_prob: as the likelihood gives it, in nats.
            dims: D, the number of values in an example.

        Returns:
            Nats, of the same shape. Where `log_cell` is not zero, a lower bound, as above.
        """
        return log_prob + dims * self.log_cell


def bits_per_dim(log_prob: float, dims: int) -> float:
    """Return -log2 P for each dimension, from nats on a measure that counts."""
    return -log_prob / (dims * math.log(2))
