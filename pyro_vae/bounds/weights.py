"""Log-weights: the tensor from which every bound on log p(x) is computed.

    log_w[k, i] = log p(x_i, z_ki) - log q(z_ki | x_i),    z_ki ~ q(z | x_i)

They are computed from the traces of any Pyro model and guide that share a data plate.
"""

from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.traces import PARTICLES, Program, log_prob_per_example, plate_nesting, traces


def log_weights(
    model: Program,
    guide: Program,
    x: Any,
    num_samples: int,
    *,
    plate: str = "data",
    vectorize: bool = True,
    max_plate_nesting: int | None = None,
) -> Tensor:
    """Draw from the guide, and compute the log-weight of each draw for each example.

    Args:
        model: a Pyro program, called as `model(x)`; its observed sites are the data.
        guide: a Pyro program, called as `guide(x)`, with a site for each latent site of the model.
            It may have other sites only if they are marked as auxiliary, as in Pyro's autoguides:
            noise of which the latent sites are a function.
        x: the data. Every sample site of both programs has to be in the data plate.
        num_samples: K, the number of draws for each example.
        plate: the name of the data plate.
        vectorize: whether to draw all samples at once, in an outermost plate. Programs that do not
            broadcast over a dimension to the left of their own need False, which is slower.
        max_plate_nesting: the number of dimensions of the programs' plates. By default both
            programs are run once to determine it.

    Returns:
        Log-weights in nats, shape [num_samples, batch], differentiable in the parameters. Scales,
        such as that of a subsampled plate, are ignored: with them the result would not be a bound
        on the log p(x_i) of each example. Masks count.

    Raises:
        InputError: if num_samples < 1.
        ValueError: if a site is not in the data plate, or model and guide do not match.
    """
    if num_samples < 1:
        raise InputError(
            f"num_samples has to be at least 1, and {num_samples} is not", "num_samples"
        )
    if not vectorize:
        draws = [_log_weight(model, guide, x, plate, 0) for _ in range(num_samples)]
        return torch.stack(draws)
    if max_plate_nesting is None:
        max_plate_nesting = plate_nesting(model, guide, x)
    particles = pyro.plate(PARTICLES, num_samples, dim=-1 - max_plate_nesting)
    return _log_weight(particles(model), particles(guide), x, plate, max_plate_nesting + 1)


def _log_weight(model: Program, guide: Program, x: Any, plate: str, batch_dims: int) -> Tensor:
    model_trace, guide_trace = traces(model, guide, x)
    return log_prob_per_example(model_trace, plate, batch_dims) - log_prob_per_example(
        guide_trace, plate, batch_dims
    )
