"""Reweighted wake-sleep."""

from typing import Literal

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.errors import InputError
from pyro_vae.objectives.objective import Objective
from pyro_vae.programs.traces import Program, log_prob_per_example


class RWS(Objective):
    """Reweighted wake-sleep (Bornschein & Bengio 2015): two objectives, one for each program.

    The model maximises IWAE_K. The guide minimises KL(p(z|x) || q(z|x)), in the wake phase for the
    data, with draws of q weighed by w_k / sum_j w_j (equation 7), which is biased in the order of
    1/K; in the sleep phase for x and z that the model draws, without bias (equation 5). No gradient
    goes through z, so discrete codes will do, and K is free to grow: the guide's signal grows with
    it (Le et al. 2019). Models are chosen by IWAE_K, which is the loss that is reported too.

    Args:
        num_particles: K, two at least, but in the sleep phase.
        guide: the phase that trains it, or the mean of both. In the sleep phase the model has to
            draw, as `model(size=n)`, and to return x.

    Raises:
        InputError: if K is too small; in the first step, if the model does not draw.
    """

    def __init__(
        self, num_particles: int = 10, guide: Literal["wake", "sleep", "both"] = "wake"
    ) -> None:
        super().__init__(num_particles)
        if guide != "sleep" and num_particles < 2:
            raise InputError(f"the wake phase needs two particles or more, not {num_particles}")
        self.guide = guide

    def differentiable_loss(self, model: Program, guide: Program, x: Tensor) -> Tensor:
        """Return -IWAE_K, summed over the examples, with the gradients of both objectives."""
        draws = self.draw(model, guide, x, path=False)
        log_w = draws.log_w.detach()
        w = log_w.softmax(0)
        share = {"wake": 1.0, "both": 0.5, "sleep": 0.0}[self.guide]
        gain = draws.surrogate(w, None, share * w if share else None)
        if share < 1:
            gain = gain + (1 - share) * _sleep(model, guide, len(x)).sum()
        return gain.detach() - gain - bounds.iwae(log_w).sum()


def _sleep(model: Program, guide: Program, size: int) -> Tensor:
    """Return log q(z|x) for x and z drawn from the model, shape [size]."""
    try:
        with torch.no_grad():
            dream = poutine.trace(model).get_trace(size=size)
    except TypeError as error:
        raise InputError(
            "the sleep phase draws from the model, as model(size=n), which this one does not "
            "offer: take the wake phase"
        ) from error
    asleep = poutine.trace(poutine.replay(guide, trace=dream))
    return log_prob_per_example(asleep.get_trace(dream.nodes["_RETURN"]["value"]), "data", 0)
