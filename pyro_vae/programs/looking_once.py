"""Programs that are run on one chunk of rows after another are looked at once.

`look_at` checks programs on all examples that it is given, up to a number; of later examples it
checks the values. Within `looked_at_once` the examples of later calls are such later examples.
"""

import contextlib
from collections.abc import Hashable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace

from torch import nn

from pyro_vae.errors import InputError
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.pair import Pair
from pyro_vae.programs.program_state import state_hash
from pyro_vae.programs.traces import Program


@dataclass
class Seen:
    """What was found when programs were looked at.

    Attributes:
        key: what has to be the same: the programs and their parameters, their options, and the
            types and shapes of an example.
        pair: what was found; None before the first look.
        count: the number of examples.
    """

    key: Hashable = None
    pair: Pair | None = None
    count: int = 0

    def find(self, key: Hashable, arguments: Arguments) -> Pair | None:
        """Return what holds for other examples; None if it has to be found."""
        if key != self.key or self.pair is None or len(arguments) > self.count:
            return None
        return replace(self.pair, batch_size=min(self.pair.batch_size, len(arguments)))

    def remember(self, key: Hashable, pair: Pair, count: int, size: int) -> None:
        """Remember what was found, if the examples may be taken in batches of the given size."""
        if pair.plate is not None and pair.batch_size <= size:
            self.key, self.pair, self.count = key, pair, count


_SEEN: ContextVar[Seen | None] = ContextVar("seen", default=None)


@contextlib.contextmanager
def looked_at_once() -> Iterator[None]:
    """Let later calls of `look_at` use what an earlier one found about the same programs.

    Only modules are the same in two calls, and only with the same parameters.
    """
    token = _SEEN.set(Seen())
    try:
        yield
    finally:
        _SEEN.reset(token)


def seen(
    model: Program, guide: Program, arguments: Arguments, *options: Hashable
) -> tuple[Seen, Hashable]:
    """Return what was found before, and the key under which it holds for a call of `look_at`."""
    found = _SEEN.get()
    if found is None or not (isinstance(model, nn.Module) and isinstance(guide, nn.Module)):
        return Seen(), None
    examples = tuple((each.dtype, each.shape[1:]) for each in arguments.tensors())
    try:
        state = state_hash([model, guide])
    except InputError:  # a part cannot be read
        return Seen(), None
    return found, (model, guide, state, examples, *options)
