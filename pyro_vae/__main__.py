"""`python -m pyro_vae` is the command `pyro-vae`."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; see `pyro_vae.runs.commands.main`.

    Args:
        arguments: a verb and its own arguments; by default those of this process.
    """
    signals = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, _end) for number in signals}
    from pyro_vae.runs.commands import main as run

    for number, handler in before.items():
        signal.signal(number, handler)
    run(arguments)


def _end(number: int, frame: Any) -> None:
    """End a command that is interrupted while it is imported: in one line, as it does later."""
    os.write(2, b"\ninterrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    # Python puts the current folder first on the path. Modules in it may be a stranger's.
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]
    main()
