"""Time an epoch of training against others', in turn, and report the paired ratios.

Peers come with `pip install -e ".[benchmark]"`; those that are not installed are left out.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import contenders
import torch


def main() -> None:
    """Build the contenders, let them run in turn, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[100, 512])
    parser.add_argument("--draws", type=int, default=1, help="K; above 1 IWAE is trained")
    parser.add_argument("--batches", type=int, default=60, help="in an epoch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu counts this process's own seconds, which busy neighbours disturb less: for one "
        "thread, and not for contenders with workers",
    )
    parser.add_argument("--only", nargs="+", help="names of contenders")
    parser.add_argument("--out", type=Path, help="a JSON file")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    about = f"{platform.processor()}, {chosen.threads} threads, torch {torch.__version__}"
    clock = time.perf_counter if chosen.clock == "wall" else time.process_time
    report = {"clock": chosen.clock, "machine": about, "draws": chosen.draws, "seconds": {}}
    for batch in chosen.batch_sizes:
        times = _race(batch, chosen.draws, chosen.batches, chosen.rounds, chosen.only, clock)
        report["seconds"][batch] = times
        print(f"\nbatch {batch}, K = {chosen.draws}: images a second; time over ours, in pairs")
        for name, values in times.items():
            rate = batch * chosen.batches / statistics.median(values)
            ratios = [one / other for one, other in zip(values, times["ours"], strict=True)]
            middle = statistics.median(ratios)
            print(f"{name:14} {rate:9.0f}  {middle:6.2f} x  [{min(ratios):.2f}, {max(ratios):.2f}]")
    if chosen.out:
        chosen.out.write_text(json.dumps(report, indent=1))


def _race(
    batch: int,
    draws: int,
    batches: int,
    rounds: int,
    only: list[str] | None,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Return the seconds that an epoch takes each contender, in each round."""
    torch.manual_seed(0)
    grey = torch.randint(1, 256, (batch * batches, contenders.PIXELS), dtype=torch.uint8)
    images = grey * (torch.rand(grey.shape) < 0.2)  # a fifth is not black, as of MNIST
    epochs = {}
    for make in contenders.CONTENDERS:
        if only and make.__name__ not in ["ours", *only]:
            continue
        try:
            epochs[make.__name__] = make(images, batch, draws)
        except (ImportError, NotImplementedError) as error:
            print(f"{make.__name__} is left out: {error or 'it does not do this'}")
    for run in epochs.values():
        run()  # whatever is done once
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, run in epochs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return times


if __name__ == "__main__":
    main()
