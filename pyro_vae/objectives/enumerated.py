"""The ELBO of programs with sites that are marked for enumeration.

Sites of the model are summed out, and the expectation over sites of the guide is a sum over all
their values, or a mean over several local samples. `pyro.infer.TraceEnum_ELBO` does both.
"""

import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.pair import Pair


def enumerated_loss(
    pair: Pair,
    arguments: Arguments,
    num_particles: int,
    plates: float,
    *,
    differentiable: bool,
) -> Tensor:
    """Return the negative ELBO in nats, summed over the examples.

    Args:
        pair: the programs.
        arguments: what both are called with.
        num_particles: the number of draws of the sites that are not enumerated.
        plates: the number of dimensions for plates, if it is finite; at least those that the
            programs have are reserved.
        differentiable: whether the gradient is needed.
    """
    elbo = TraceEnum_ELBO(
        num_particles=num_particles,
        max_plate_nesting=max(pair.nesting, int(plates) if plates < float("inf") else 0),
        vectorize_particles=pair.vectorize and num_particles > 1,
        strict_enumeration_warning=False,
    )
    programs, given = (pair.model, pair.guide), arguments.unmarked()
    if differentiable:
        try:
            return elbo.differentiable_loss(*programs, *given.args, **given.kwargs)
        except ValueError:  # nothing depends on parameters; `loss` raises all other errors again
            pass
    return torch.tensor(elbo.loss(*programs, *given.args, **given.kwargs))
