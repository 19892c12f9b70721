"""Log-weights: the tensor from which every bound on log p(x) is computed.

    log_w[k, i] = log p(x_i, z_ki) - log q(z_ki | x_i),    z_ki ~ q(z | x_i)

They are computed from the traces of any Pyro model and guide. The function is for users, who want
the tensor as a whole; `evaluate` streams the log-weights through `streaming.Stream` instead.
"""

from typing import Any

from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.traces import Program


def log_weights(
    model: Program,
    guide: Program,
    x: Any,
    num_samples: int,
    *,
    plate: str | None = None,
    vectorize: bool | None = None,
) -> Tensor:
    """Draw from the guide, and compute the log-weight of each draw for each example.

    Args:
        model: a Pyro program; its observed sites are the data.
        guide: a Pyro program with a site for each latent site of the model. It may have other sites
            only if they are marked as auxiliary, as in Pyro's autoguides: noise of which the latent
            sites are an invertible function.
        x: the data, which both programs are called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`.
        num_samples: K, the number of draws for each example.
        plate: the name of the plate of the examples; by default it is found.
        vectorize: whether to make all draws at once, in an outermost plate; by default if the
            programs give the same log-probabilities then. One draw at a time is slower.

    Returns:
        Log-weights in nats, shape [num_samples, batch], differentiable in the parameters. A scale
        that all sites have, such as that of a subsampled plate, is ignored: with it the result
        would not be a bound on the log p(x_i) of each example. Masks count. If some site is outside
        the plate of the examples, batch is one: the log-weights are those of all data together.

    Raises:
        InputError: if num_samples < 1, or no bound follows from the programs.
    """
    if num_samples < 1:
        raise InputError(f"num_samples has to be at least 1, but is {num_samples}", "num_samples")
    arguments = Arguments.of(x)
    pair = look_at(model, guide, arguments, plate=plate, vectorize=vectorize)
    draws = pair.draw(arguments, num_samples)
    return draws.log_p() - draws.log_q()
