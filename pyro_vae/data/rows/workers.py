"""Work that threads do ahead of its use, whose results come in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

NUM_WORKERS = os.cpu_count() or 1


def map_ahead(
    function: Callable[[In], Out], items: Iterable[In], workers: int = 1, ahead: int = 1
) -> Iterator[Out]:
    """Yield a function's results for some items, in their order, whatever the number of workers.

    While a result is used, the next ones are worked on. An error comes where its result would.

    Args:
        function: what is done; threads call it at the same time.
        items: its arguments.
        workers: the number of threads.
        ahead: how many results there may be that are not used yet: they take memory.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Out]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
