"""Weighted draws from p(z|x), to estimate what follows from x.

With z_k ~ q(z|x) and w_k = p(x, z_k) / q(z_k|x), or with the ends and the weights of annealed
chains, E[f(z) | x] is estimated by sum_k w_k f(z_k) / sum_k w_k (self-normalised importance
sampling; Neal 2001, equation 12, for chains). The estimate is consistent, and not unbiased.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.bounds.annealing_moves import Chains
from pyro_vae.bounds.annealing_settings import Settings
from pyro_vae.bounds.batches import Results, in_batches
from pyro_vae.bounds.densities import prior_of
from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at
from pyro_vae.programs.traces import Program

Use = Callable[[Tensor, poutine.Trace, Arguments], Results]


def weighted_draws(
    model: Program,
    guide: Program,
    x: Any,
    use: Use,
    *,
    num_samples: int,
    settings: Settings | None = None,
    plate: str | None = None,
    seed: int = 0,
    batch_size: int = 50,
    work_name: str = "weighted draws",
    keep: Path | None = None,
    depends_on: Iterable[Any] = (),
    progress: bool = False,
) -> Results:
    """Draw codes of each example with their weights, and use them batch by batch.

    Args:
        model: a Pyro program.
        guide: a Pyro program.
        x: the data, which both programs are called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`.
        use: a function of the log-weights in nats, `float64`, shape [K, batch]; of the model's
            trace with K draws in an outermost dimension; and of the batch. It returns tensors whose
            first dimension is that of the examples.
        num_samples: K. With `settings` it is their number of chains, and this one is not used.
        settings: the settings of annealed chains, whose ends are drawn; by default draws are from
            the guide.
        plate: the name of the plate of the examples; by default it is found.
        seed: the seed of all noise; the global random state is restored.
        batch_size: the number of examples at once.
        work_name: the name of the work, which is part of the seed.
        keep: a file for the results so far; see `in_batches`.
        depends_on: what `use` depends on.
        progress: whether to show a progress bar.

    Returns:
        What `use` returned, for all examples.

    Raises:
        InputError: if num_samples < 1, no bound follows from the programs, or they have to run once
            for each draw.
    """
    if settings is None and num_samples < 1:
        raise InputError(f"num_samples has to be at least 1, but is {num_samples}", "num_samples")
    arguments = Arguments.of(x)
    start = guide if settings is None or settings.start == "posterior" else prior_of(model)
    pair = look_at(model, start, arguments, plate=plate, batch_size=batch_size)
    if not pair.vectorize or pair.plate is None:
        raise InputError(
            "weighted draws need programs that give the same log-probabilities for many draws at "
            "once, with all sites in the plate of the examples"
        )
    first = arguments.take(slice(pair.batch_size))
    chains = None if settings is None else Chains(pair, first, settings, len(arguments))

    @torch.no_grad()
    def work(batch: Arguments, advance: Callable[[int], Any]) -> Results:
        if chains is None:
            draws = pair.draw(batch, num_samples)
            log_w = (draws.log_p() - draws.log_q()).double()
            advance(log_w.numel())
        else:
            moves = chains.pilot(batch, advance)
            u = chains.densities.draw(chains.settings.chains, batch)
            log_w, _, u = chains.run(u, batch, moves, advance)
            draws, _ = chains.densities.draws_at(u, batch)
        ((trace, _),) = draws.runs
        return use(log_w, trace, batch)

    return in_batches(
        work,
        arguments,
        work_name=work_name,
        batch_size=pair.batch_size,
        seed=seed,
        units=num_samples if chains is None else chains.units,
        unit="draw" if chains is None else "move",
        progress=progress,
        keep=keep,
        depends_on=[model, guide, settings, num_samples, *depends_on],
    )
