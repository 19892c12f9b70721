"""How much memory there is, and data that do not fit into it."""

import math
import sys
from pathlib import Path

import torch

from pyro_vae.errors import InputError

SMALLER = "take fewer rows or columns, or save the examples as a .npy file, which is read in parts"


def free_memory(device: torch.device | None = None) -> float:
    """Return how many bytes can still be allocated; infinity if nobody says.

    On a CPU it is the least that the machine, the control groups (containers), and the limits of
    the process leave.

    Args:
        device: where; by default a CPU.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_of_machine(), *_of_groups(), _of_process())


def in_words(num_bytes: float) -> str:
    """Return a number of bytes in GiB or in a larger unit, such as `1.5 GiB`."""
    size = num_bytes / 2**30
    for unit in ("GiB", "TiB", "PiB"):
        if size < 1000:
            return f"{size:.1f} {unit}" if size >= 0.1 else f"{size:.1g} {unit}"
        size /= 1024
    return f"{size:.1e} EiB"


def check_fits(
    what: str, num_bytes: float, parameter: str | None = None, advice: str = SMALLER
) -> None:
    """Refuse data before they are read, if they need more memory than there is.

    Args:
        what: the data and the verb, such as `x.npz holds`.
        num_bytes: the size of the data in memory.
        parameter: see `InputError`.
        advice: what to do.

    Raises:
        InputError: if they do not fit.
    """
    there = free_memory()
    if num_bytes > there:
        raise InputError(
            f"{what} {in_words(num_bytes)} of numbers, and {in_words(there)} of memory are free: "
            f"{advice}",
            parameter,
        )


def _of_machine() -> float:
    file = Path("/proc/meminfo")
    if not file.exists():
        return math.inf
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    words = lines.get("MemAvailable", "").split()
    return 1024 * float(words[0]) if words else math.inf


def _of_groups() -> list[float]:
    """Return what the control groups that this process sees as its own leave, version 2 and 1.

    Files that are held in memory can be dropped from it.
    """
    found = [math.inf]
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            root = Path(folder)
            words = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
            files = sum(float(words.get(f"{each}_file", 0)) for each in ("active", "inactive"))
            most = float((root / limit).read_text())
            found.append(most - float((root / used).read_text()) + files)
        except (OSError, ValueError):  # there is none, or its limit is the word max
            continue
    return found


def _of_process() -> float:
    """Return what the limit on the size of the process, as by `ulimit -v`, leaves."""
    file = Path("/proc/self/statm")
    if sys.platform == "win32" or not file.exists():
        return math.inf
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    return limit - int(file.read_text().split()[0]) * resource.getpagesize()
