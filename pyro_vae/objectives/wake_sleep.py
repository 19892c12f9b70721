"""Reweighted wake-sleep."""

import inspect
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.poutine.messenger import unwrap
from torch import Tensor, nn

from pyro_vae import bounds
from pyro_vae.errors import InputError
from pyro_vae.objectives.objective import Objective
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.traces import Program, log_prob_per_example


class RWS(Objective):
    """Reweighted wake-sleep (Bornschein & Bengio 2015): two objectives, one for each program.

    The model maximises IWAE_K. The guide minimises KL(p(z|x) || q(z|x)). In the wake phase, x are
    the data, and draws of q have the weights w_k / sum_j w_j (equation 7), with a bias of the order
    of 1/K. In the sleep phase, the model draws x and z (equation 5), without bias. No gradient goes
    through z, so discrete codes can be trained. A large K does no harm: the signal of the guide's
    gradient grows with K (Le et al. 2019). Models are chosen by IWAE_K, which is also the reported
    loss.

    Args:
        num_particles: number K of draws of z for each x; at least two, except in the sleep phase.
        guide: phase that trains the guide; `both` takes the mean of the two. For the sleep phase
            the model has to draw when it is called as `model(size=n)`, and to return x, with which
            the guide is called.

    Raises:
        InputError: if K is too small; in the first step, if the model cannot be called as
            `model(size=n)`.
    """

    def __init__(
        self,
        num_particles: int = 10,
        guide: Literal["wake", "sleep", "both"] = "wake",
        **pyro_options: Any,
    ) -> None:
        super().__init__(num_particles, pyro_options)
        if guide != "sleep" and num_particles < 2:
            raise InputError(
                f"the wake phase needs two particles or more, and num_particles is {num_particles}",
                "num_particles",
            )
        self.guide = guide

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return -IWAE_K, summed over the examples, with the gradients of both objectives."""
        arguments = Arguments(*args, **kwargs)
        draws = self.draw(model, guide, arguments, path=False)
        log_w = draws.log_w.detach()
        w = log_w.softmax(0)
        wake_share = {"wake": 1.0, "both": 0.5, "sleep": 0.0}[self.guide]
        gain = draws.surrogate(w, None, wake_share * w if wake_share else None)
        if wake_share < 1:
            size = len(arguments) if draws.pair.plate is None else log_w.shape[1]
            log_q = _sleep_log_q(model, guide, size, draws.pair.plate)
            gain = gain + (1 - wake_share) * log_q.sum()
        return draws.scaled(gain.detach() - gain - bounds.iwae(log_w).sum())


def _sleep_log_q(model: Program, guide: Program, size: int, plate: str | None) -> Tensor:
    """Return log q(z|x) for x and z drawn from the model, shape [size], or [1] without a plate."""
    if not _takes_size(model):
        raise InputError(
            "the sleep phase draws from the model by model(size=n), and this model has no argument "
            "size: use the wake phase",
            "guide",
        )
    with torch.no_grad():
        drawn = poutine.trace(model).get_trace(size=size)
    guide_trace = poutine.trace(poutine.replay(guide, trace=drawn)).get_trace(
        drawn.nodes["_RETURN"]["value"]
    )
    return log_prob_per_example(guide_trace, plate, 0)


def _takes_size(model: Program) -> bool:
    """Say whether the model can be called as `model(size=n)`, by its signature.

    An error inside such a call is the model's own, and is not caught.
    """
    program = unwrap(model)  # removes Pyro's handlers, which accept any arguments
    called = program.forward if isinstance(program, nn.Module) else program
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # unknown: the call itself will tell
        return True
    try:
        signature.bind(size=1)
    except TypeError:
        return False
    return True
