"""The thermodynamic variational objective."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pyro_vae.errors import InputError, check_range
from pyro_vae.objectives.objective import Objective
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.traces import Program


class TVO(Objective):
    """A left Riemann sum of the thermodynamic integral (Masrani, Le & Wood 2019, equation 10).

        log p(x) = integral_0^1 E_(pi_t)[log w] dt,    pi_t  proportional to  q^(1-t) p^t

    The integrand grows with t, so the left sum, sum_j (t_(j+1) - t_j) E_(pi_t_j)[log w], is a
    lower bound on log p(x); with one term it is the ELBO. The expectations are estimated with
    weights w^t, normalised over K draws. The estimate of the sum is therefore biased, and
    consistent in K; models are chosen by IWAE_K.

    The gradient is the paper's, by covariances (equation 13), for model and guide alike. It does
    not go through z, so discrete codes can be trained. It is self-normalised, with a bias of the
    order of 1/K.

    Args:
        num_particles: number K of draws of z for each x, at least two.
        terms: number of terms of the sum; the first t_j is 0, the others are evenly spaced in their
            logarithms.
        first: smallest t_j above 0.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self, num_particles: int = 20, terms: int = 5, first: float = 0.05, **pyro_options: Any
    ) -> None:
        super().__init__(num_particles, pyro_options)
        if num_particles < 2:
            raise InputError(
                f"the TVO needs two particles or more, and num_particles is {num_particles}",
                "num_particles",
            )
        check_range("terms", terms, 1, 1000)
        check_range("first", first, 1e-6, 0.9999)
        exponents = torch.linspace(1 if terms > 1 else 0, 0, terms, dtype=torch.float64)
        self.points = [0.0, *(first**exponents).tolist()]

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the negative of the sum, summed over the examples."""
        draws = self.draw(model, guide, Arguments(*args, **kwargs), path=False)
        log_w = draws.log_w.detach()
        model_weights, score_weights = torch.zeros_like(log_w), torch.zeros_like(log_w)
        value = log_w.new_zeros(())
        for t, following in pairwise(self.points):
            w = (t * log_w).softmax(0)
            mean = (w * log_w).sum(0)
            covariance = w * (log_w - mean)
            step = following - t
            value = value + step * mean.sum()
            model_weights = model_weights + step * (w + t * covariance)
            score_weights = score_weights + step * ((1 - t) * covariance - w)
        gain = draws.surrogate(model_weights, None, score_weights)
        return draws.scaled(gain.detach() - gain - value)
