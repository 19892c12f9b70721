"""Where training may be interrupted: between two steps, and how it is told that it should be."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae import checkpoint

SIZES = ("batch_size", "steps", "examples")  # of a place


@dataclass
class Place:
    """A place in an epoch, between two of its steps: all that the rest of the epoch depends on.

    Attributes:
        batch_size: the number of examples in a step of this epoch.
        order: the random state from which the order of the examples is drawn; see `rng_state`.
        noise: the random state from which the next step draws; None before the first step.
        steps: the number of steps of this epoch that are done.
        examples: the number of examples in them.
        loss: the sum of the objective over these examples, in nats.
        callbacks: the states of the callbacks after the last step of the epoch, by their classes'
            names; None before that step.
        is_whole: whether engine and callbacks are at this place now; not within a step.
    """

    batch_size: int
    order: list[Tensor]
    noise: list[Tensor] | None = None
    steps: int = 0
    examples: int = 0
    loss: float = 0.0
    callbacks: dict[str, dict[str, Any]] | None = None
    is_whole: bool = False

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Place":
        """Return the place that `state_dict` returned.

        Raises:
            KeyError, TypeError, ValueError: if the state is no such.
        """
        for name in ("order", "noise"):
            random_state = checkpoint.typed(state, name, list, None)
            if name == "order" or random_state is not None:
                torch.Generator().set_state(random_state[0])  # raises an error unless it fits
        sizes = {name: checkpoint.typed(state, name, int) for name in SIZES}
        if not all(0 <= size < 2**40 for size in sizes.values()) or sizes["batch_size"] == 0:
            raise ValueError(f"the sizes {sizes} are not those of a place in an epoch")
        loss = checkpoint.typed(state, "loss", float)
        return cls(**sizes, order=state["order"], noise=state["noise"], loss=loss)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        names = ("batch_size", "order", "noise", "steps", "examples", "loss")
        return {name: getattr(self, name) for name in names}


@contextlib.contextmanager
def signals_wait() -> Iterator[Sequence[int]]:
    """Let SIGINT and SIGTERM wait until the end of a block, where their handlers are called.

    The second signal is handled at once. Only signals that have handlers wait: by default SIGTERM
    has none, and ends the process. Threads other than the main one are not interrupted anyway.

    Yields:
        The numbers of the signals that wait, a list that grows.
    """
    came: list[signal.Signals] = []
    handlers: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in known.items() if callable(handler)}

    def wait(number: int, frame: Any) -> None:
        came.append(signal.Signals(number))
        if len(came) > 1:
            handlers[came[-1]](number, frame)

    try:
        for number in handlers:
            signal.signal(number, wait)
        yield came
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            handlers[came[0]](came[0], None)
