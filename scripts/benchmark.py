"""Time training or evaluation, in turn with that of other libraries, and print the paired ratios.

The first run of each is not timed: it compiles. Later runs of `bounds.evaluate` and `bounds.anneal`
load the compiled code, which is in their times. `curves` and `memory` measure this package alone.

In the other works, matrix products of a fixed size are timed after each round. In some rounds they
take more than 1.25 times their shortest time, before or after the round: then the machine was busy
with something else. Such rounds are not in the printed numbers, and others are added for them; the
file has all rounds.

`pip install -e ".[benchmark]"` installs the other libraries. Those that are missing are left out.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import contenders
import other_libraries
import record
import torch
from torch import Tensor

from pyro_vae.runs import malloc

Run = Callable[[], Any]
Contestants = dict[str, tuple[Callable[[], Run], int]]  # what makes a run, and its units of work
MOST_ROUNDS = 3  # times as many as are wanted, on a busy machine
ALL: tuple[dict[str, Any], ...] = (  # the options of what `all` measures
    {"work": "training", "batch_sizes": [100, 512], "batches": 40},
    {"work": "training", "batch_sizes": [100], "batches": 10, "draws": 50},
    {"work": "training", "batch_sizes": [100], "batches": 5, "architecture": "conv"},
    {"work": "training", "batch_sizes": [100], "batches": 3, "architecture": "residual"},
    {"work": "training", "batch_sizes": [100], "batches": 2, "architecture": "pixelcnn"},
    {"work": "evaluation", "images": 200},
    {"work": "annealing", "images": 100},
)
CURVES = {  # one size is changed at a time: batch size, K, pixels, units of a layer, latent_dim
    "batch": [25, 100, 400, 1600],
    "K": [1, 5, 50],
    "pixels": [196, 784, 3136],
    "hidden": [50, 200, 800],
    "latent": [10, 50, 250],
}
TRAINERS = (
    contenders.ours,
    contenders.ours_bf16,
    contenders.pyro_svi,
    contenders.pyro_loader,
    contenders.plain_torch,
    contenders.torch_compiled,
    other_libraries.pythae,
    other_libraries.numpyro,
)
PRODUCTS = (contenders.products, contenders.products_onednn, other_libraries.products_xla)


def main() -> None:
    """Run the benchmark that the command line names, and print and save its times."""
    parser = argparse.ArgumentParser(description=__doc__)
    works = ["training", "evaluation", "annealing", "curves", "memory", "all"]
    parser.add_argument(
        "work",
        choices=works,
        nargs="?",
        default="training",
        help="curves: time per step of pyro_vae by size; memory: peak of evaluation by K; all: the "
        "first three, with all architectures",
    )
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[100, 512])
    parser.add_argument("--architecture", choices=list(contenders.ARCHITECTURES), default="mlp")
    parser.add_argument(
        "--draws",
        type=int,
        help="K; by default 1 in training (IWAE if larger), 5000 in evaluation; temperatures of "
        "annealing, by default 20",
    )
    parser.add_argument("--batches", type=int, default=60, help="number of batches in an epoch")
    parser.add_argument("--images", type=int, default=1000, help="number of images to evaluate")
    parser.add_argument("--rounds", type=int, default=7, help="number of calm rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", help="names of contenders; ours always runs")
    parser.add_argument("--out", type=Path, help="a JSON file for all times; and NAME.md, a table")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    malloc.keep_freed()  # as in svi_train.py and evaluate.py; all contenders profit from it
    about = f"{record.processor()}, {chosen.threads} threads, torch {torch.__version__}"
    if chosen.work == "curves":
        found = _curves(chosen.rounds)
    elif chosen.work == "memory":
        found = _memory()
    else:
        wanted = ALL if chosen.work == "all" else ({},)
        found = {}
        for options in wanted:
            for title, unit, contestants in _races(argparse.Namespace(**vars(chosen) | options)):
                found[title] = _race(title, unit, contestants, chosen)
    if chosen.out:
        times = {"machine": about, "times": found}
        chosen.out.write_text(json.dumps(times, indent=1))
        if chosen.work not in ("curves", "memory"):
            lines = [f"# {about}", *(line for title in found for line in found[title]["table"])]
            chosen.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _races(chosen: argparse.Namespace) -> Iterator[tuple[str, str, Contestants]]:
    """Yield what is measured, the unit of its work, and the contestants."""
    if chosen.work == "training":
        yield from _training(chosen)
    elif chosen.work == "evaluation":
        yield _evaluation(chosen)
    else:
        yield _annealing(chosen)


def _training(chosen: argparse.Namespace) -> Iterator[tuple[str, str, Contestants]]:
    draws = chosen.draws or 1
    for batch in chosen.batch_sizes:
        images = _images(batch * chosen.batches)
        made: Contestants = {
            trainer.__name__: (
                partial(trainer, images, batch, draws, chosen.architecture),
                len(images),
            )
            for trainer in TRAINERS
        }
        if chosen.architecture == "mlp":
            factors = contenders.products_of_training(batch, draws)
            for products in PRODUCTS:
                made[products.__name__] = partial(products, factors, chosen.batches), len(images)
        yield f"training, {chosen.architecture}, batch {batch}, K = {draws}", "images", made


def _evaluation(chosen: argparse.Namespace) -> tuple[str, str, Contestants]:
    draws, count = chosen.draws or 5000, chosen.images
    few, factors = max(1, count // 100), contenders.products_of_evaluation()
    made: Contestants = {
        "ours": (partial(contenders.ours_evaluates, _images(count), draws), count * draws),
        "pythae": (partial(other_libraries.pythae_evaluates, _images(few), draws), few * draws),
        "numpyro": (
            partial(other_libraries.numpyro_evaluates, _images(count), draws),
            count * draws,
        ),
    }
    for products in PRODUCTS:
        times = count * draws // 1000
        made[products.__name__] = partial(products, factors, times), times * 1000
    return f"IWAE_{draws} of {count} images", "draws", made


def _annealing(chosen: argparse.Namespace) -> tuple[str, str, Contestants]:
    images, temperatures = _images(chosen.images), chosen.draws or 20
    made: Contestants = {
        "ours": (partial(contenders.ours_anneals, images, temperatures), chosen.images),
        "eager_pyro": (partial(contenders.eager_anneals, images, temperatures), chosen.images),
    }
    return f"AIS of {chosen.images} images, {temperatures} temperatures", "images", made


def _race(
    title: str, unit: str, contestants: Contestants, chosen: argparse.Namespace
) -> dict[str, Any]:
    """Let contestants run in turn; return all times, in microseconds per unit, and a table.

    Args:
        title: what is measured.
        unit: of what, in the plural.
        contestants: by name; all are compared with the first.
        chosen: the command line.
    """
    print(f"\n{title}: {unit} per second; time over ours, in pairs", flush=True)
    runs = {}
    for name, (make, units) in contestants.items():
        if chosen.only and name not in ("ours", *chosen.only):
            continue
        try:
            runs[name] = make(), units
        except (ImportError, NotImplementedError) as error:
            print(f"{name} is left out: {error or 'it does not do this'}")
    for run, _ in runs.values():
        run()  # one-time work, such as compiling
    probe = contenders.products(contenders.products_of_evaluation(), 100)
    times: dict[str, list[float]] = {name: [] for name in runs}
    probes = [min(_time(probe) for _ in range(3))]
    calm: list[int] = []
    while len(calm) < chosen.rounds and len(probes) <= MOST_ROUNDS * chosen.rounds:
        for name, (run, units) in runs.items():
            times[name].append(_time(run) / units * 1e6)
        probes.append(_time(probe))
        slow = [value > 1.25 * min(probes) for value in probes]
        calm = [i for i in range(len(probes) - 1) if not (slow[i] or slow[i + 1])]
    rounds = range(len(probes) - 1)
    counted = calm or rounds
    head = (
        f"{len(calm)} of {len(rounds)} rounds were calm" if calm else "No round was calm; all count"
    )
    print(f"{head}:")
    lines = ["", f"## {title}", "", f"{head}.", "", f"| | {unit} a second | time over ours |"]
    lines.append("|---" * 3 + "|")
    medians = {}
    for name, values in times.items():
        ratios = [values[i] / times["ours"][i] for i in counted]
        medians[name] = statistics.median(values[i] for i in counted)
        ratio = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        print(f"{name:22} {1e6 / medians[name]:11,.0f}  {ratio}")
        lines.append(f"| {name} | {1e6 / medians[name]:,.0f} | {ratio} |")
    if limits := [name for name in medians if name.startswith("products")]:
        best = min(limits, key=medians.__getitem__)
        limit = f"ours takes {medians['ours'] / medians[best]:.2f} times the best products, {best}"
        print(limit)
        lines += ["", f"{limit.capitalize()}."]
    return {"times": times, "probes": probes, "table": lines}


def _curves(rounds: int) -> dict[str, Any]:
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
            factors = contenders.products_of_training(size["batch"], size["K"], sizes)
            runs = [
                contenders.ours(images, size["batch"], size["K"], sizes=sizes),
                contenders.products(factors, 10),
            ]
            for run in runs:
                run()
            ours, bare = (
                statistics.median(times) * 100
                for times in zip(*[map(_time, runs) for _ in range(rounds)], strict=True)
            )
            found[name][value] = {"ours": ours, "products": bare}
            print(f"{name} {value:5}: {ours:8.2f} ms per step, {ours / bare:.1f} x its products")
    return found


def _memory() -> dict[str, Any]:
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
