"""Wrong estimators, each of which has to make a test fail.

The checks are tests of other files, which run there without a mutation, with the same seed.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import test_annealing
import test_bounds
import torch
from conftest import LinearGaussian
from torch import Tensor

from pyro_vae.bounds import (
    annealing,
    annealing_moves,
    annealing_results,
    estimates,
    importance,
    streaming,
)
from pyro_vae.programs import pair

Mutate = Callable[[pytest.MonkeyPatch], None]


def reduce_by(wrong: Callable[[Tensor, int], Tensor]) -> Mutate:
    """Replace the reduction of each rung of the ladder by `wrong(log-sum of the weights, K)`."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        class Rung(streaming.Rung):
            def mean(self) -> Tensor:
                right = torch.as_tensor(self.sum) / self.groups
                return right if self.size == 1 else wrong(right + math.log(self.size), self.size)

        patch.setattr(streaming, "Rung", Rung)

    return mutate


def weight_by_softmax(patch: pytest.MonkeyPatch) -> None:
    """Report softmax-weighted log-weights as the bound."""
    results = streaming.Stream.results

    def wrong(self: Any) -> dict[str, Tensor]:
        right = results(self)
        return {**right, f"iwae_{self.num_samples}": torch.as_tensor(self.tilted)}

    patch.setattr(streaming.Stream, "results", wrong)


def forget_a_latent(patch: pytest.MonkeyPatch) -> None:
    """Leave log p(z) and log q(z|x) of one dimension out, as if its KL were forgotten."""

    def wrong(programs: pair.Pair, batch: Any, count: int) -> Tensor:
        draws = programs.draw(batch, count)
        first = [
            trace.nodes["z"]["fn"].base_dist.log_prob(trace.nodes["z"]["value"])[..., 0]
            for trace in draws.runs[0]
        ]
        return draws.log_p() - draws.log_q() - (first[0] - first[1])

    patch.setattr(importance, "_log_w", wrong)


def share_noise(patch: pytest.MonkeyPatch) -> None:
    """Draw one noise for all examples of a batch."""
    patch.setattr("pyro.distributions.Normal.rsample", lambda self, shape=(): _shared(self, shape))


def _shared(normal: Any, shape: Any) -> Tensor:
    loc = normal.loc.expand(normal._extended_shape(shape))
    return loc + normal.scale * torch.randn_like(loc[..., :1, :])


def data_error_for_monte_carlo(patch: pytest.MonkeyPatch) -> None:
    """Report the spread over examples as the Monte Carlo error."""
    patch.setattr(estimates.Estimate, "mc_se", property(lambda self: self.se))


def check_ladder() -> None:
    torch.manual_seed(0)
    test_bounds.test_linear_gaussian_ladder(LinearGaussian())


def check_rungs() -> None:
    torch.manual_seed(0)
    test_bounds.test_evaluate_is_the_plain_reduction_of_the_same_weights()


def check_errors() -> None:
    torch.manual_seed(0)
    test_bounds.test_monte_carlo_error_of_the_gap(LinearGaussian())


def check_annealing() -> None:
    torch.manual_seed(0)
    test_annealing.test_linear_gaussian("posterior", "sigmoid")


def annealing_without_log_c(patch: pytest.MonkeyPatch) -> None:
    right = annealing_results.lower_bound
    patch.setattr(
        annealing_results,
        "lower_bound",
        lambda log_w: estimates.Estimate(
            right(log_w).values + math.log(len(log_w)), right(log_w).mc_variance
        ),
    )


def weights_after_the_move(patch: pytest.MonkeyPatch) -> None:
    """Weigh z_t, which was already moved at f_t, in the place of z_(t-1)."""

    class Chains(annealing_moves.Chains):
        def run(self, u: Tensor, x: Tensor, moves: Any, *_: Any, **__: Any) -> Any:
            point = self.densities.point(u, x)
            log_w = torch.zeros_like(point.log_p, dtype=torch.float64)
            for t in range(1, len(self.betas)):
                step = moves.steps[min(t, len(moves.steps) - 1), 0]
                point, _ = self.move(point, x, self.betas[t], step, moves.scale)
                width = self.betas[t] - self.betas[t - 1]
                log_w += width * (point.log_p - point.log_q).double()
            return log_w, torch.ones_like(log_w[0]), point.u

    patch.setattr(annealing, "Chains", Chains)


def moves_without_rejection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "rand_like", torch.zeros_like)


@pytest.mark.parametrize(
    ("mutate", "check"),
    [
        (reduce_by(lambda total, k: total), check_ladder),
        (reduce_by(lambda total, k: total - math.log(k - 1)), check_rungs),
        (reduce_by(lambda total, k: total - math.log(k + 0.05 * k)), check_ladder),
        (weight_by_softmax, check_ladder),
        (forget_a_latent, check_ladder),
        (share_noise, check_errors),
        (data_error_for_monte_carlo, check_ladder),
        (annealing_without_log_c, check_annealing),
        (weights_after_the_move, check_annealing),
        (moves_without_rejection, check_annealing),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_wrong_estimator_is_caught(mutate: Mutate, check: Callable[[], None]) -> None:
    """`test_annealing` has one more: HMC that adapts in the run that counts."""
    with pytest.MonkeyPatch.context() as patch:
        mutate(patch)
        with pytest.raises(AssertionError):
            check()
