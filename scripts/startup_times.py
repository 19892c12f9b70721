"""Measure how long imports, help texts and the report of a run take, in turn.

    python scripts/startup_times.py --run runs/NAME --rounds 5

Prints medians over the rounds: seconds of CPU, which other work on the machine hardly changes, and
seconds by the clock.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from pyro_vae.runs.commands import VERBS


def commands(run: str | None) -> dict[str, list[str]]:
    """Return what is measured, by name.

    Args:
        run: the folder of a run, for its report; None leaves the report out.
    """
    python, code = sys.executable, "-c"
    module = [python, "-m", "pyro_vae"]
    return {
        "import pyro": [python, code, "import pyro"],
        "import pyro_vae": [python, code, "import pyro_vae"],
        "from pyro_vae import VAE": [python, code, "from pyro_vae import VAE"],
        **{f"pyro-vae {verb} --help": [*module, verb, "--help"] for verb in VERBS},
        **({"pyro-vae report": [*module, "report", run]} if run else {}),
    }


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command, and return its seconds of CPU and by the clock."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - start


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", help="the folder of a run, whose report is made again")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    measured = commands(options.run)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
    for _ in range(options.rounds):
        for name, command in measured.items():
            taken[name].append(measure(command))
    print(f"{'':30}{'CPU, s':>8}{'clock, s':>10}")
    for name, times in taken.items():
        cpu, clock = (statistics.median(each) for each in zip(*times, strict=True))
        print(f"{name:30}{cpu:8.2f}{clock:10.2f}")


if __name__ == "__main__":
    main()
