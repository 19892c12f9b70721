"""The noise of a whole batch, drawn by a process that has some of its rows only.

Each process draws the noise of all rows, and takes that of its own. All processes have the same
random stream, so together they have the noise that a single process would have.

Which dimension of a draw is that of the rows is found by running the programs twice, with b and
b + 1 rows: it is the dimension whose size is b and b + 1. This works for draws that take as many
random numbers whatever their values are: normal, uniform, exponential, Bernoulli and categorical
ones. Gamma, Poisson and binomial draws, and Python loops that reject draws, do not: then each
process has a random stream of its own.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.compiling import TorchDispatchMode
from pyro_vae.programs.random_streams import preserve_rng_state, stream_seed
from pyro_vae.programs.ranks import Share

# The names of operations that draw. The values of the first argument are not used by `FILLS` and
# `LIKE`; `BY_ELEMENT` take parameters of each element.
FILLS = frozenset(
    f"aten::{name}_"
    for name in ("normal", "uniform", "exponential", "random", "log_normal", "cauchy", "geometric")
)
SIZED = frozenset({"aten::rand", "aten::randn", "aten::randint"})
LIKE = frozenset({"aten::rand_like", "aten::randn_like", "aten::randint_like"})
BY_ELEMENT = frozenset(
    {"aten::bernoulli", "aten::bernoulli_", "aten::normal", "aten::multinomial"}
    | {"aten::native_dropout"}
)

Dims = list[int | None]  # of each draw: the dimension of the rows, if there is one
Drawn = list[tuple[str, torch.Size]]  # the operation, and the shape of its result


class _OnDraws(TorchDispatchMode):
    """Calls `_draw` for each operation that draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self._draws: dict[Any, bool] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        draws = self._draws.get(func)
        if draws is None:
            draws = self._draws[func] = torch.Tag.nondeterministic_seeded in func.tags
        kwargs = kwargs or {}
        return self._draw(func, args, kwargs) if draws else func(*args, **kwargs)

    def _draw(self, func: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError


class _Record(_OnDraws):
    """Remembers what is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: Drawn = []

    def _draw(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        first = result if isinstance(result, Tensor) else result[0]
        self.drawn.append((func._schema.name, first.shape))
        return result


class WholeBatchNoise(_OnDraws):
    """Draws the noise of all rows of a batch, and returns that of some of them.

    Args:
        dims: what `find_dims` returned.
        share: which rows.

    Raises:
        InputError: if the programs draw something else than when they were looked at.
    """

    def __init__(self, dims: Dims, share: Share) -> None:
        super().__init__()
        self.dims, self.share, self.number = dims, share, 0

    def _draw(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.number == len(self.dims):
            raise _varies()
        dim = self.dims[self.number]
        self.number += 1
        if dim is None:
            return func(*args, **kwargs)
        name, first, rows = func._schema.name, args[0], self.share.last - self.share.first
        if name in SIZED:
            place = [argument.name for argument in func._schema.arguments].index("size")
            wider = self._wider(args[place], dim)
            whole = func(*args[:place], wider, *args[place + 1 :], **kwargs)
            return whole.narrow(dim, self.share.first, rows).contiguous()
        if name in FILLS or name in LIKE:
            whole = func(first.new_empty(self._wider(first.shape, dim)), *args[1:], **kwargs)
        else:
            shape = first.shape if isinstance(first, Tensor) else args[1].shape
            at = torch.arange(self.share.whole, device=self._device(args))
            at = (at - self.share.first) % rows  # rows of others are replaced by own ones
            whole = func(*(self._widened(each, shape, dim, at) for each in args), **kwargs)
        if not isinstance(whole, Tensor):
            return tuple(each.narrow(dim, self.share.first, rows).contiguous() for each in whole)
        own = whole.narrow(dim, self.share.first, rows)
        return first.copy_(own) if name.endswith("_") else own.contiguous()

    def finish(self) -> None:
        """Check that all was drawn that was expected."""
        if self.number != len(self.dims):
            raise _varies()

    def _wider(self, shape: Sequence[int], dim: int) -> list[int]:
        rows = self.share.last - self.share.first
        if shape[dim] != rows:
            raise _varies()
        return [self.share.whole if place == dim else n for place, n in enumerate(shape)]

    def _widened(self, each: Any, shape: torch.Size, dim: int, at: Tensor) -> Any:
        if not isinstance(each, Tensor):
            return each
        return each.expand(torch.broadcast_shapes(each.shape, shape)).index_select(dim, at)

    def _device(self, args: Sequence[Any]) -> torch.device:
        return next(each.device for each in args if isinstance(each, Tensor))


def find_dims(run: Callable[[Tensor], Any], x: Tensor) -> Dims | None:
    """Return the dimension of the rows in each draw that a function makes.

    Args:
        run: a function of a batch of any size, without lasting effects. It is called twice.
        x: a batch.

    Returns:
        None if the noise of a whole batch cannot be drawn by each process.
    """
    rows = len(x)
    more = torch.cat([x, x[:1]])
    found: list[Drawn] = []
    for number, batch in enumerate((x, more)):
        with preserve_rng_state(x):
            torch.manual_seed(number)  # with other values, loops that reject draws differ
            record = _Record()
            with record:
                run(batch)
        found.append(record.drawn)
    if len(found[0]) != len(found[1]):
        return None
    dims: Dims = []
    for (name, shape), (other_name, other) in zip(*found, strict=True):
        if name != other_name or len(shape) != len(other):
            return None
        differ = [dim for dim, (n, m) in enumerate(zip(shape, other, strict=True)) if n != m]
        if not differ:
            dims.append(None)
            continue
        (dim, *rest) = differ
        known = name in FILLS | SIZED | LIKE | BY_ELEMENT
        if rest or not known or (shape[dim], other[dim]) != (rows, rows + 1):
            return None
        dims.append(dim)
    return dims


@contextlib.contextmanager
def own_stream(x: Tensor, rank: int) -> Iterator[None]:
    """Let one process draw from a stream of its own; the common stream advances by one number.

    Args:
        x: a tensor on the device where the noise is drawn.
        rank: the number of the process.
    """
    common = int(torch.randint(2**62, (), device=x.device))
    with preserve_rng_state(x):
        torch.manual_seed(stream_seed(common, rank))
        yield


def _varies() -> InputError:
    return InputError(
        "the programs do not draw the same kinds of random numbers in each step, so several "
        "processes cannot share a batch: train with one process"
    )
