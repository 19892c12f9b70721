"""Time training or evaluation, in turn with that of other libraries, and print the paired ratios.

In some rounds the bare matrix products take more than 1.25 times their shortest time, at the start
or the end: then the machine was busy with something else. Such rounds are not in the printed
numbers; the file has all rounds.

`pip install -e ".[benchmark]"` installs the other libraries. Those that are missing are left out.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import contenders
import torch
from torch import Tensor

from pyro_vae.runs import malloc

Run = Callable[[], Any]
CURVES = {  # one size is changed at a time: batch size, K, pixels, units of a layer, latent_dim
    "batch": [25, 100, 400, 1600],
    "K": [1, 5, 50],
    "pixels": [196, 784, 3136],
    "hidden": [50, 200, 800],
    "latent": [10, 50, 250],
}


def main() -> None:
    """Run the benchmark that the command line names, and print and save its times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "work",
        choices=["training", "evaluation", "curves", "memory"],
        nargs="?",
        default="training",
        help="curves: time per step of pyro_vae by size; memory: peak of evaluation by K",
    )
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[100, 512])
    parser.add_argument(
        "--draws", type=int, help="K; by default 1 in training (IWAE if larger), 5000 in evaluation"
    )
    parser.add_argument("--batches", type=int, default=60, help="number of batches in an epoch")
    parser.add_argument("--images", type=int, default=1000, help="number of images to evaluate")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--only", nargs="+", help="names of contenders; ours and bare_products always run"
    )
    parser.add_argument("--out", type=Path, help="a JSON file for all times")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    malloc.keep_freed()  # as in svi_train.py and evaluate.py; all contenders profit from it
    about = f"{platform.processor()}, {chosen.threads} threads, torch {torch.__version__}"
    report = {"machine": about, "options": vars(chosen) | {"out": str(chosen.out)}}
    report |= {
        "training": _training,
        "evaluation": _evaluation,
        "curves": _curves,
        "memory": _memory,
    }[chosen.work](chosen)
    if chosen.out:
        chosen.out.write_text(json.dumps(report, indent=1))


def _training(chosen: argparse.Namespace) -> dict[str, Any]:
    found, draws = {}, chosen.draws or 1
    for batch in chosen.batch_sizes:
        images = _images(batch * chosen.batches)
        made = [
            (contender, partial(contender, images, batch, draws), len(images))
            for contender in contenders.TRAINERS
        ]
        print(
            f"\ntraining, batch {batch}, K = {draws}: images per second; time over ours, in pairs"
        )
        found[f"batch {batch}"] = _race(made, chosen)
    return found


def _evaluation(chosen: argparse.Namespace) -> dict[str, Any]:
    draws, made = chosen.draws or 5000, []
    for contender in contenders.EVALUATORS:
        count = max(1, chosen.images // contenders.SLOWER.get(contender, 1))
        made.append((contender, partial(contender, _images(count), draws), count * draws))
    print(f"\nIWAE_{draws} of {chosen.images} images: draws per second; time over ours, in pairs")
    return _race(made, chosen)


def _curves(chosen: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    usual = {"batch": 100, "K": 1} | dict(
        zip(("pixels", "hidden", "latent"), contenders.SIZES, strict=True)
    )
    for name, values in CURVES.items():
        found[name] = {}
        for value in values:
            size = usual | {name: value}
            sizes = size["pixels"], size["hidden"], size["latent"]
            images = _images(size["batch"] * 10, size["pixels"])
            runs = [
                make(images, size["batch"], size["K"], sizes=sizes)
                for make in (contenders.ours, contenders.bare_products)
            ]
            for run in runs:
                run()
            ours, bare = (
                statistics.median(times) * 100
                for times in zip(*[map(_time, runs) for _ in range(chosen.rounds)], strict=True)
            )
            found[name][value] = {"ours": ours, "products": bare}
            print(f"{name} {value:5}: {ours:8.2f} ms per step, {ours / bare:.1f} x its products")
    return found


def _memory(chosen: argparse.Namespace) -> dict[str, Any]:
    """Evaluate with few and with many draws, each in a new process, and print its peak memory."""
    found: dict[str, Any] = {}
    for draws in (100, 100_000):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[f"K = {draws}"] = peak = pool.apply(_peak, (draws,))
        print(f"K = {draws}: peak memory {peak:.1f} MiB")
    return found


def _peak(draws: int) -> float:
    malloc.keep_freed()
    contenders.ours_evaluates(_images(20), draws)()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _race(
    contestants: Sequence[tuple[Callable[..., Any], Callable[[], Run], int]],
    chosen: argparse.Namespace,
) -> dict[str, list[float]]:
    """Let contenders run in turn, and return the microseconds per unit of work in each round.

    Args:
        contestants: each with a function that builds it, and the units of work in one of its runs.
        chosen: the command line.
    """
    runs = {}
    for contender, make, units in contestants:
        name = contender.__name__
        always = contender in (contestants[0][0], contestants[-1][0])
        if chosen.only and name not in chosen.only and not always:
            continue
        try:
            runs[name] = make(), units
        except (ImportError, NotImplementedError) as error:
            print(f"{name} is left out: {error or 'it does not do this'}")
    for run, _ in runs.values():
        run()  # one-time work, such as compiling
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(chosen.rounds):
        for name, (run, units) in runs.items():
            times[name].append(_time(run) / units * 1e6)
    # The last contender, bare products, shows when the machine was busy, before or after a round.
    bare = times[contestants[-1][0].__name__]
    slow = [value > 1.25 * min(bare) for value in bare]
    ended = [i for i in range(chosen.rounds) if not slow[i]]
    calm = [i for i in ended if not (i and slow[i - 1])] or ended
    print(f"in {len(calm)} of {chosen.rounds} rounds the machine was not busy:")
    ours = next(iter(times.values()))
    for name, values in times.items():
        ratios = [values[i] / ours[i] for i in calm]
        speed = 1e6 / statistics.median(values[i] for i in calm)
        print(
            f"{name:22} {speed:9.0f}  {statistics.median(ratios):6.2f} x"
            f"  [{min(ratios):.2f}, {max(ratios):.2f}]"
        )
    return times


def _time(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _images(count: int, pixels: int = contenders.PIXELS) -> Tensor:
    """Return images in which a fifth of the pixels is not black, as in MNIST."""
    torch.manual_seed(0)
    grey = torch.randint(1, 256, (count, pixels), dtype=torch.uint8)
    return grey * (torch.rand(grey.shape) < 0.2)


if __name__ == "__main__":
    main()
