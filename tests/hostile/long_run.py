"""Hostile input for an hour: `python tests/hostile/long_run.py --minutes 60`.

It prints how many inputs of each kind were accepted, refused, or something else, and exits with 1
if something else happened: a traceback, a hang, more than 2 GiB, code that was executed, files that
were left behind. `--only data --first 7 --inputs 1` repeats one of them.
"""

import argparse
import ctypes
import faulthandler
import gc
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parent))
SECONDS = 30  # of a processor, for one input
HANG = 5 * SECONDS  # of a clock: other processes may use the processor, too
MEMORY = 2 * 2**30  # bytes that are free, beyond what a process has before the first input


class Slow(BaseException):
    """An input took too long."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise Slow("".join(traceback.format_stack(frame, 6)))


def _work(pipe: Connection, folder: str) -> None:
    """Make the attempts whose names and numbers come through a pipe, in a process of their own."""
    import torch

    torch.set_num_threads(1)
    faulthandler.enable(os.dup(2))  # says where a process died, of a memory error
    sys.stderr = open(os.devnull, "w")
    import attempts

    from pyro_vae.data import free_memory
    from pyro_vae.runs import memory

    workshop = attempts.Workshop(Path(folder))
    # What is to be refused is refused before it takes 1.5 GiB; what is there besides takes some
    # more. The limit of the process protects the machine: threads and mapped files need addresses.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * MEMORY, resource.RLIM_INFINITY))
    base = 0

    def free(*_: object) -> float:
        return 0.75 * MEMORY - _bytes_of("VmRSS") + base

    free_memory.free_memory = memory.free_memory = free
    signal.signal(signal.SIGPROF, _stop)
    gc.collect()
    gc.freeze()  # what is there already is not looked through for each input
    pipe.send("ready")
    while True:
        name, number = pipe.recv()
        begin = time.monotonic()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        base = _bytes_of("VmRSS")
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            what, ended = attempts.ATTEMPTS[name](number, workshop)
        except Slow as slow:
            what, ended = name, f"failure: slow {str(slow)[-600:]!r}"
        except BaseException as error:
            what, ended = name, f"failure: of the attempt itself {error!r:.300}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        peak = _bytes_of("VmHWM") - base
        if peak > MEMORY:
            ended = f"failure: too much memory, died with {peak / 2**30:.1f} GiB"
        pipe.send((what, ended, time.monotonic() - begin, peak))


def _bytes_of(name: str) -> int:
    """Return the memory of this process: what it has now (`VmRSS`), or its peak (`VmHWM`)."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024


class _Worker:
    """A process that makes attempts; another one takes its place if it dies or hangs."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, self.folder.name), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def attempt(self, name: str, number: int) -> tuple[str, str, float, int]:
        self.pipe.send((name, number))
        if not self.pipe.poll(HANG):
            return name, "failure: hang", HANG, 0
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join(10)
            return name, f"failure: died with {self.process.exitcode}", 0.0, 0

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.folder.cleanup()


def main() -> None:
    """Make attempts until the time is over, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--inputs", type=int, default=10**9)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", choices=["data", "options", "configs", "runs"])
    parser.add_argument("--show", type=int, default=200, help="failures to print in full")
    options = parser.parse_args()
    # Configs are quick and options slow: about the same time for each.
    names = [options.only] if options.only else ["data", "configs", "data", "runs", "options"]
    counts: dict[str, Counter[str]] = {}
    failures, slowest, most, begin = Counter[str](), (0.0, ""), 0, time.monotonic()
    worker = _Worker()
    for number in range(options.first, options.first + options.inputs):
        if time.monotonic() - begin > 60 * options.minutes:
            break
        name = names[number % len(names)]
        what, ended, seconds, peak = worker.attempt(name, number)
        kind = ended.partition(":")[0]
        counts.setdefault(what, Counter())[kind] += 1
        slowest, most = max(slowest, (seconds, f"{name} {number}")), max(most, peak)
        if kind not in ("accepted", "refused", "diverged", "refused by the command line"):
            place = ended.partition(" of --")[0]
            failures[place] += 1
            if failures[place] <= 2 and sum(failures.values()) <= options.show:
                print(f"{name} {number} ({what}): {ended}", flush=True)
        if kind == "failure" and ("hang" in ended or "died" in ended):
            worker.close()
            worker = _Worker()
    worker.close()
    total = Counter[str]()
    for what, found in sorted(counts.items()):
        total.update(found)
        print(f"{what:34}", ", ".join(f"{n} {kind}" for kind, n in found.most_common()))
    print(f"{sum(total.values())} inputs:", ", ".join(f"{n} {k}" for k, n in total.most_common()))
    print(f"{time.monotonic() - begin:.0f} s; slowest {slowest[0]:.1f} s ({slowest[1]});", end=" ")
    print(f"at most {most / 2**30:.2f} GiB more in a process")
    for place, n in failures.most_common():
        print(f"{n:5} {place}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
