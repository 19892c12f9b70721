"""Steps that several processes take together: each computes its share of the rows of a batch.

The loss is summed over the examples, so the gradients of the shares add up to that of the batch,
whatever the sizes of the shares. They are added up before they are clipped and used: all processes
have the same parameters after each step, and the same state of the optimiser.
"""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
from torch import Tensor

from pyro_vae.data import Rows
from pyro_vae.errors import InputError
from pyro_vae.kinds.random_bits import starting_at
from pyro_vae.programs import ranks
from pyro_vae.programs.compiling import tensors_in
from pyro_vae.programs.ranks import Share
from pyro_vae.programs.whole_batch_noise import Dims, WholeBatchNoise, find_dims, own_stream
from pyro_vae.training.engine import Engine, Observe


class SharedNoise:
    """The noise of shares of batches, such that together they have the noise of the whole batch.

    If that cannot be had, each process has a random stream of its own: see `whole_batch_noise`.
    """

    def __init__(self) -> None:
        self._dims: dict[Hashable, Dims | None] = {}

    def look(self, key: Hashable, run: Callable[[Tensor], object], x: Tensor) -> None:
        """Find out what a step draws, unless that is known.

        Args:
            key: what the draws depend on, beside the number of rows.
            run: a function that runs a step on stored examples, without lasting effects.
            x: this process's share of a batch.
        """
        if (key, len(x)) not in self._dims:
            self._dims[key, len(x)] = find_dims(run, x)

    @contextlib.contextmanager
    def drawn(self, key: Hashable, share: Share | None) -> Iterator[None]:
        """Return a context for the operations of a step; for a whole batch it has no effect."""
        if share is None:
            yield
            return
        dims = self._dims[key, share.last - share.first]
        with ranks.computing(share), starting_at(share.first):
            if dims is None:
                yield
                return
            with WholeBatchNoise(dims, share) as noise:
                yield
            noise.finish()

    def stream(
        self, key: Hashable, share: Share | None, like: Tensor
    ) -> contextlib.AbstractContextManager[None]:
        """Return a context in which a step is taken, around the one of `drawn`.

        Args:
            key: as in `look`.
            share: as in `drawn`.
            like: a tensor on the device where the noise is drawn.
        """
        if share is None or self._dims[key, share.last - share.first] is not None:
            return contextlib.nullcontext()
        return own_stream(like, ranks.number())


def add_up_gradients(loss: float, trained: Sequence[Tensor], share: Share) -> float:
    """Add up the gradients of all processes, in place, and return the loss of the whole batch.

    Args:
        loss: the loss of this process's share.
        trained: the parameters. Those without a gradient have none in any process.
        share: which rows of the batch this process has.
    """
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    like = gradients[0] if gradients else torch.zeros(())
    total = like.new_full((1,), loss)
    if not share.counts:
        for each in (*gradients, total):
            each.zero_()
    ranks.add_up([*gradients, total])
    return total.item()


def take_step(engine: Engine, train: Tensor | Rows, places: Tensor, observe: Observe) -> float:
    """Take a step on the examples at some places, each process on its share of them.

    Args:
        engine: the engine.
        train: stored training examples, shape [N, *event].
        places: the indices of the examples of the batch, the same in all processes.
        observe: see `Engine.step`.

    Returns:
        The loss, summed over the whole batch.
    """
    share = ranks.share_of(len(places))
    return step_on(engine, train.index_select(0, own_part(places, share)), observe, share)


def step_on(engine: Engine, x: Tensor, observe: Observe, share: Share | None) -> float:
    """Take a step on a share of a batch, or, if it is None, on a batch."""
    return engine.step(x, observe) if share is None else engine.step(x, observe, share)


def own_part(places: Tensor, share: Share | None) -> Tensor:
    """Return the part of a batch that this process has."""
    return places if share is None else places[share.first : share.last]


def check_batch_size(batch_size: int) -> None:
    """Refuse batches with fewer examples than there are processes.

    Raises:
        InputError: if the batch is so small.
    """
    if batch_size < ranks.size():
        raise InputError(
            f"a batch of {batch_size} cannot be shared by {ranks.size()} processes: choose a "
            "larger one, or start fewer processes",
            "batch_size",
        )


def start_alike(engine: Engine, num_epochs: int, num_steps: int) -> None:
    """Give all processes the parameters, the buffers and the optimiser's state of the first.

    Args:
        engine: the engine.
        num_epochs: the number of epochs that this process has found in a checkpoint.
        num_steps: the number of steps of the next epoch in it.

    Raises:
        InputError: if the processes have not found the same checkpoint.
    """
    if ranks.size() == 1:
        return
    found = ranks.gathered(f"{num_epochs} epochs and {num_steps} steps")
    if len(set(found)) > 1:
        raise InputError(
            f"the first process has found a checkpoint of {found[0]}, and others have found one of "
            f"{', '.join(sorted(set(found[1:])))}: the folder has to be on a file system that all "
            "machines share"
        )
    ranks.copy_from_first(tensors_in(engine.state_dict()))


def copy_buffers(engine: Engine) -> None:
    """Give all processes the buffers of the first: running means are those of its own rows."""
    if ranks.size() > 1:
        buffers = [*engine.model.buffers(), *engine.guide.buffers()]
        ranks.copy_from_first(list(dict.fromkeys(buffers)))
