"""Log-weights that arrive in chunks, reduced to estimates in memory that does not grow with K.

Only running sums and the largest weights of each example are stored. At the rungs k < K of the
ladder, the Monte Carlo variance of IWAE_k is estimated from the spread between disjoint groups of k
draws. At the top rung there is a single group, so there, and for the gap IWAE_K - ELBO, the
variance is that of the first-order terms (the delta method): draw k changes

    the logarithm of the mean weight by  a_k / K,    a_k = w_k / mean(w) - 1,
    the ELBO by                          b_k / K,    b_k = log w_k - ELBO,

and the gap by the difference of the two. A single draw has no spread: its variance is NaN.

These variances are too small if a few draws have nearly all the weight. Beside them there is a
limit from the jackknife and from the spread of log w: see `known_errors`. The variance between
groups needs none: it is unbiased for all weights, and only the number of groups matters.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae.bounds.khat import pareto_k, tail_length
from pyro_vae.bounds.known_errors import tail_factor, upper_spread, variance_limit


class Rung:
    """Running mean and variance of IWAE_k over disjoint groups of k draws.

    Args:
        size: k, the number of draws in a group.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.groups = 0
        self.num_partial = 0  # draws in the group that is not complete yet
        self.partial: Tensor | None = None  # the log-sum-exp of those draws
        self.sum: Tensor | float = 0.0
        self.sum_of_squares: Tensor | float = 0.0

    def add(self, log_w: Tensor) -> None:
        """Add more draws, shape [chunk, batch]."""
        while len(log_w):
            if self.num_partial == 0 and len(log_w) >= self.size:
                complete = len(log_w) // self.size
                groups = log_w[: complete * self.size].reshape(complete, self.size, -1).logsumexp(1)
                log_w = log_w[complete * self.size :]
            else:
                first = log_w[: self.size - self.num_partial]
                log_w = log_w[self.size - self.num_partial :]
                total = first.logsumexp(0)
                self.partial = total if self.partial is None else self.partial.logaddexp(total)
                self.num_partial += len(first)
                if self.num_partial < self.size:
                    continue
                groups = self.partial[None]
                self.num_partial, self.partial = 0, None
            bounds = groups - math.log(self.size)
            self.groups += len(bounds)
            self.sum = self.sum + bounds.sum(0)
            self.sum_of_squares = self.sum_of_squares + bounds.square().sum(0)

    def mean(self) -> Tensor:
        """Return the mean over the complete groups, shape [batch]."""
        return torch.as_tensor(self.sum) / self.groups

    def mc_variance(self) -> Tensor:
        """Return the variance of the mean, estimated from at least two groups, shape [batch]."""
        spread = self.sum_of_squares - self.groups * self.mean().square()
        return spread.clamp(min=0) / (self.groups - 1) / self.groups


class Stream:
    """Reduces log-weights, [chunk, batch] at a time, to the estimates of `Bounds`.

    The Pareto k-hat is fitted to the largest weights, which are stored. The jackknife needs the
    share of each large weight, and of the small weights only the sum and the sum of squares.

    Args:
        rungs: the sizes k at which IWAE_k is estimated, ascending; the last is K.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self.rungs = [Rung(k) for k in rungs]
        self.elbo = Rung(1)
        self.num_samples = num_samples = rungs[-1]
        self.log_sum = self.log_sum_of_squares = torch.tensor(-math.inf)  # of w, and of w^2
        self.tilted: Tensor | float = 0.0  # the mean of log w under the normalised weights
        self.num_largest = max(tail_length(num_samples) + 1, 200)
        self.largest: Tensor | None = None

    def add(self, log_w: Tensor) -> None:
        """Add more draws, shape [chunk, batch]."""
        for rung in [self.elbo, *self.rungs]:
            rung.add(log_w)
        chunk = log_w.logsumexp(0).clamp(min=torch.finfo(log_w.dtype).min)
        share = (log_w - chunk).exp()
        tilted = torch.where(share > 0, share * log_w, 0.0).sum(0)  # weights may be zero
        total = torch.logaddexp(self.log_sum.to(chunk), chunk)
        share = (chunk - total).exp()
        self.tilted = (1 - share) * self.tilted + share * tilted
        self.log_sum = total
        squares = (2 * log_w).logsumexp(0)
        self.log_sum_of_squares = torch.logaddexp(self.log_sum_of_squares.to(squares), squares)
        both = log_w if self.largest is None else torch.cat([self.largest, log_w])
        self.largest = both.topk(min(self.num_largest, len(both)), dim=0).values

    def ess(self) -> Tensor:
        """Return the effective sample size; 0 for examples whose weights are all zero."""
        return (2 * self.log_sum - self.log_sum_of_squares).exp().nan_to_num(0.0)

    def jackknife(self) -> Tensor:
        """Return the jackknife estimate of order 1.

        With the shares p_k of the weights in their sum S it is

            log S - K log K + (K - 1) log(K - 1) - (K - 1) / K sum_k log(1 - p_k).

        Weights that are not stored have p <= 1/200. For them -log(1 - p) is replaced by
        p + p^2 / 2: the error is the sum of p^3 / 3, at most 1e-5 nats. If a single weight is not
        zero, the estimate is infinite.
        """
        k = self.num_samples
        share = (self._largest() - self.log_sum).exp()
        squares = (self.log_sum_of_squares - 2 * self.log_sum).exp()
        not_stored = (1 - share.sum(0)).clamp(min=0)
        not_stored = not_stored + (squares - share.square().sum(0)).clamp(min=0) / 2
        terms = not_stored - self._log_rest(share).sum(0)
        return self.log_sum - k * math.log(k) + (k - 1) * (math.log(k - 1) + terms / k)

    def jackknife_variances(self) -> tuple[Tensor, Tensor]:
        """Return the jackknife variances of IWAE_K and of the gap, each of shape [batch].

        Without draw k, the logarithm of the mean weight changes by a constant plus
        l_k = log(1 - p_k), and the ELBO by -b_k / (K - 1). Hence they are (K - 1) / K times

            sum_k (l_k - mean(l))^2    and    sum_k (l_k - mean(l) + b_k / (K - 1))^2.

        For weights that are not stored, l is replaced by -p - p^2 / 2 in sums of l, by -p in sums
        of l^2 and l b.
        """
        k, largest, elbo = self.num_samples, self._largest(), self.elbo.mean()
        share = (largest - self.log_sum).exp()
        logs = self._log_rest(share)
        p2 = (self.log_sum_of_squares - 2 * self.log_sum).exp()
        p2 = (p2 - share.square().sum(0)).clamp(min=0)  # of those that are not stored
        not_stored = (1 - share.sum(0)).clamp(min=0)
        total = logs.sum(0) - not_stored - p2 / 2
        p3 = torch.zeros_like(p2)  # at least that, and nearly that if these weights are similar
        if k > len(largest):
            p3 = torch.where(not_stored > 1e-9, p2.square() / not_stored, p3)
        squares = (logs.square().sum(0) + p2 + p3 - total.square() / k).clamp(min=0)
        products = torch.where(share > 0, (logs + share) * (largest - elbo), 0.0).sum(0)
        products = products - (self.tilted - elbo)
        bb = self.elbo.sum_of_squares - k * elbo.square()
        gap = squares + 2 * products / (k - 1) + bb / (k - 1) ** 2
        return squares * (k - 1) / k, gap.clamp(min=0) * (k - 1) / k

    def results(self) -> dict[str, Tensor]:
        """Return the estimates, their Monte Carlo variances, ESS and k-hat, each of shape [batch].

        The variance of an estimate has the estimate's name, followed by `_variance`. The limit of
        the variance has the name, followed by `_limit`.
        """
        count, elbo, top = self.num_samples, self.elbo.mean(), self.rungs[-1].mean()
        results = {"elbo": elbo, "gap": top - elbo, "ess": self.ess()}
        results |= {f"iwae_{rung.size}": rung.mean() for rung in self.rungs}
        results["khat"] = pareto_k(self._largest().T, count)
        if count == 1:
            unknown = torch.full_like(elbo, math.nan)
            names = ("elbo", "gap", "iwae_1", "jackknife")
            results |= {f"{n}_{of}": unknown for n in names for of in ("variance", "limit")}
            return {**results, "jackknife": unknown}
        # Sums of a_k^2, a_k b_k and b_k^2 over all draws.
        aa = (count**2 / self.ess() - count).clamp(min=0)
        ab = count * (self.tilted - elbo)
        bb = self.elbo.sum_of_squares - count * elbo.square()
        of_iwae, of_gap = self.jackknife_variances()
        factor = tail_factor(bb / (count - 1), results["khat"], count)
        if tail_length(count) < 5:
            factor = upper_spread(self._largest())
        first_order = aa / count**2
        limit = variance_limit(first_order, of_iwae, factor)
        for rung in self.rungs:
            variance = rung.mc_variance() if rung.groups > 1 else aa / count / rung.size
            results[f"iwae_{rung.size}_variance"] = variance
            scaled = variance if rung.groups > 1 else limit * count / rung.size
            results[f"iwae_{rung.size}_limit"] = scaled
        results["elbo_limit"] = results["elbo_variance"] = self.elbo.mc_variance()
        variance = (aa - 2 * ab + bb).clamp(min=0) / count**2
        results["gap_variance"] = variance
        results["gap_limit"] = variance_limit(variance, of_gap, factor)
        results["jackknife"] = self.jackknife()
        results["jackknife_variance"] = results[f"iwae_{count}_variance"]
        # In simulations the jackknife's variance was up to 2.8 times that of IWAE_K.
        results["jackknife_limit"] = first_order + 3 * (limit - first_order)
        return results

    def _log_rest(self, share: Tensor) -> Tensor:
        """Return log(1 - p) for the shares of the stored weights.

        The largest share may be 1 up to rounding: then the other weights are added up.
        """
        logs = torch.log1p(-share.clamp(max=1))
        if len(share) > 1:
            logs[0] = torch.maximum(logs[0], self._largest()[1:].logsumexp(0) - self.log_sum)
        return logs

    def _largest(self) -> Tensor:
        assert self.largest is not None, "draws have to be added before results are read"
        return self.largest
