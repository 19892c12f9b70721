"""Measure a trained recipe for RESULTS.md, and write RESULTS.md from all that were measured.

    pyro-vae train --config scripts/recipes/records/NAME.yaml --data_root DIR --out runs/NAME
    python scripts/record.py runs/NAME NAME
    python scripts/record.py

The first command trains. The second measures bounds on log p(x) of test, training and validation
examples; it writes docs/records/NAME.json, which holds the training curve too. The third writes
RESULTS.md, which says what is measured. Nothing is chosen by the test examples: a recipe is
measured on them once.
"""

import argparse
import csv
import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyro_vae import bounds
from pyro_vae.bounds import Corrected, Estimate
from pyro_vae.programs.traces import Program
from pyro_vae.runs import Run

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "docs" / "records"
DRAWS = 5000
SUBSET = 1000  # the number of examples that get all draws
CHEAP_DRAWS = 500  # the number of draws for the other test examples
SUBSET_DRAWS = 1000  # for training and validation examples


class Row(NamedTuple):
    """A row of a table in RESULTS.md.

    Attributes:
        name: that of the recipe and of the record.
        model: what is trained, in words.
        published: what a paper reports, in nats, or what was aimed at; None if nothing.
    """

    name: str
    model: str
    published: float | None = None


TABLES: dict[str, tuple[Row, ...]] = {
    "Burda, Grosse & Salakhutdinov 2016": (
        Row("burda_vae_1", "one layer, VAE, k = 1", 86.76),
        Row("burda_vae_5", "one layer, VAE, k = 5", 86.47),
        Row("burda_iwae_5", "one layer, IWAE, k = 5", 85.54),
        Row("burda_iwae_50", "one layer, IWAE, k = 50", 84.78),
        Row("burda_dreg_50", "one layer, IWAE, k = 50, DReG", 84.32),
        Row("burda_two_vae_1", "two layers, VAE, k = 1", 85.33),
        Row("burda_two_iwae_5", "two layers, IWAE, k = 5, DReG", 83.89),
        Row("burda_two_iwae_50", "two layers, IWAE, k = 50, DReG", 82.90),
    ),
    "Priors, gated 2 x 300, z of 40 (Norouzi, Fleet & Norouzi 2020)": (
        Row("gated_normal", "N(0, I)", 84.45),
        Row("gated_mixture", "mixture of 100 normals"),
        Row("gated_vamp", "VampPrior of 500", 82.43),
        Row("gated_exemplar", "500 exemplars", 82.09),
        Row("gated_flow", "flow"),
    ),
    "The best of a given time of training on two cores": (
        Row("normal_10", "fully connected, one layer, N(0, I), 10 minutes", 85.5),
        Row("best_10", "anything, 10 minutes", 83.5),
        Row("normal_30", "fully connected, one layer, N(0, I), 30 minutes", 84.5),
        Row("best_30", "anything, 30 minutes", 81.5),
        Row("normal_90", "fully connected, one layer, N(0, I), 90 minutes", 83.9),
        Row("best_90", "anything, 90 minutes", 80.0),
    ),
    "Three trainers, 784-200-200-50, ten minutes on two cores": (
        Row("same_time_ours", "`normal.yaml` with 200-200 and tanh"),
        Row("same_time_pyro", "a loop as in Pyro's tutorial"),
        Row("same_time_pythae", "Pythae's `BaseTrainer`"),
    ),
}


ORDERINGS = (  # the first is expected to be the better one
    ("burda_iwae_5", "burda_vae_5"),
    ("burda_iwae_5", "burda_vae_1"),
    ("burda_iwae_50", "burda_iwae_5"),
    ("burda_dreg_50", "burda_iwae_50"),
    ("burda_two_vae_1", "burda_vae_1"),
    ("burda_two_iwae_5", "burda_iwae_5"),
    ("burda_two_iwae_50", "burda_iwae_50"),
    ("gated_mixture", "gated_normal"),
    ("gated_vamp", "gated_normal"),
    ("gated_exemplar", "gated_normal"),
    ("gated_flow", "gated_normal"),
    ("best_10", "normal_10"),
    ("same_time_ours", "same_time_pythae"),
    ("same_time_ours", "same_time_pyro"),
)


def measure(folder: Path, name: str, num_annealed: int) -> None:
    """Measure a trained run, and write its record."""
    run = Run.open(folder)
    torch.manual_seed(run.options.data_seed)  # the noise that makes grey pixels binary
    generator = torch.Generator().manual_seed(run.options.data_seed)
    chosen = torch.randperm(len(run.train), generator=generator)[:SUBSET]
    found = bounds_of(
        run.vae.model,
        run.vae.guide,
        {
            "training": run.observe(run.train[chosen]),
            "validation": run.validation[:SUBSET],
            "test": run.mixed,
        },
        num_annealed,
        run.options.seed,
    )
    write(name, found, run.options.seed, _seconds_of_training(folder), _curve(folder))


def bounds_of(
    model: Program,
    guide: Program,
    examples: dict[str, torch.Tensor],
    num_annealed: int,
    seed: int,
) -> dict[str, Any]:
    """Return the bounds of a record, and those of each of the first test examples.

    Args:
        model: a trained Pyro program.
        guide: its guide.
        examples: training, validation and test examples, in a random order.
        num_annealed: the number of test examples for AIS.
        seed: the seed of all draws.
    """

    def iwae(x: torch.Tensor, draws: int) -> bounds.Bounds:
        return bounds.evaluate(model, guide, x, draws, ladder=(), seed=seed, progress=True)

    test = examples["test"]
    measured = {
        name: _numbers(iwae(x, SUBSET_DRAWS).bound) for name, x in examples.items() if x is not test
    }
    cheap, costly = iwae(test, CHEAP_DRAWS), iwae(test[:SUBSET], DRAWS)
    first = torch.arange(len(costly.bound.values))
    measured["elbo"] = _numbers(cheap.elbo)
    measured["test"] = _numbers(Corrected(cheap.bound, costly.bound, first))
    if num_annealed:
        annealed = bounds.anneal(model, guide, test[:num_annealed], seed=seed, progress=True)
        measured |= {"ais_lower": _numbers(annealed.lower), "ais_upper": _numbers(annealed.upper)}
    values = [round(value, 3) for value in costly.bound.values.tolist()]
    return {"draws": DRAWS, "bounds": measured, "values": values}


def write(
    name: str, found: dict[str, Any], seed: int, seconds: float, curve: list[list[float]]
) -> None:
    """Write a record: what `bounds_of` found, and where it comes from."""
    record = {
        "commit": _commit(),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "torch": torch.__version__,
        "minutes": round(seconds / 60, 1),
        "curve": curve,
        **found,
    }
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / f"{name}.json").write_text(json.dumps(record) + "\n")


def compare(folder: Path, name: str) -> None:
    """Print the training losses of a run, finished or not, beside those of a record."""
    own = {epoch: loss for epoch, loss in _curve(folder, every=1)}
    recorded = json.loads((RECORDS / f"{name}.json").read_text())["curve"]
    print("epoch      run   record     difference")
    for epoch, loss in recorded:
        if epoch in own:
            gain = own[epoch] - loss
            print(f"{epoch:5} {own[epoch]:8.2f} {loss:8.2f} {gain:+8.2f} ({gain / loss:+.1%})")


def table(title: str, rows: tuple[Row, ...]) -> list[str]:
    """Return a table of RESULTS.md, in markdown."""
    head = "| record | model | test | se | published or aim | training | validation | ELBO | AIS | "
    lines = [f"## {title}", "", f"{head}epochs | minutes, threads, processor |", "|---" * 11 + "|"]
    for row in rows:
        path = RECORDS / f"{row.name}.json"
        if path.exists():
            lines.append(_line(row, json.loads(path.read_text())))
        else:
            lines.append(
                f"| {row.name} | {row.model} | not run | | {_shown(row.published)} |||||||"
            )
    return [*lines, ""]


def orderings() -> list[str]:
    """Return the table of paired differences, in markdown."""
    lines = ["## Orderings", "", "| better | than | by | se | standard errors |", "|---" * 5 + "|"]
    for names in ORDERINGS:
        paths = [RECORDS / f"{name}.json" for name in names]
        if not all(path.exists() for path in paths):
            continue
        records = [json.loads(path.read_text()) for path in paths]
        if records[0]["draws"] != records[1]["draws"]:
            continue  # their difference would partly be that of the draws
        first, second = (torch.tensor(record["values"]) for record in records)
        gain = (first - second).double()
        draws = "" if records[0]["draws"] == DRAWS else f" ({records[0]['draws']} draws)"
        mean, se = gain.mean().item(), (gain.std() / len(gain) ** 0.5).item()
        lines.append(
            f"| {names[0]} | {names[1]} | {mean:.2f}{draws} | {se:.2f} | {mean / se:.1f} |"
        )
    return [*lines, ""]


def write_results() -> None:
    """Replace what RESULTS.md has between its marks by the tables."""
    path = ROOT / "RESULTS.md"
    first, last = "<!-- tables -->\n", "<!-- end of tables -->\n"
    before, rest = path.read_text().split(first)
    after = rest.split(last)[1]
    lines = [line for title, rows in TABLES.items() for line in table(title, rows)] + orderings()
    path.write_text(before + first + "\n".join(lines) + last + after)


def _line(row: Row, record: dict[str, Any]) -> str:
    found = record["bounds"]
    test = found["test"]
    annealed = "not run"
    if "ais_lower" in found:
        low, high = found["ais_lower"], found["ais_upper"]
        annealed = f"{-high['mean']:.2f} to {-low['mean']:.2f} ({low['examples']} images)"
    maker = record["processor"].replace("(R)", "").removesuffix(" Processor")
    fewer = "" if record["draws"] == DRAWS else f" ({record['draws']} draws)"
    cells = [
        row.name,
        row.model,
        f"**{-test['mean']:.2f}**{fewer}",
        f"{test['se']:.2f}",
        _shown(row.published),
        f"{-found['training']['mean']:.2f}",
        f"{-found['validation']['mean']:.2f}",
        f"{-found['elbo']['mean']:.2f}",
        annealed,
        str(record["curve"][-1][0]) if record["curve"] else "",
        f"{record['minutes']}, {record['threads']}, {maker}",
    ]
    return f"| {' | '.join(cells)} |"


def _shown(published: float | None) -> str:
    return "" if published is None else f"{published:.2f}"


def _numbers(bound: Estimate | Corrected) -> dict[str, Any]:
    values = bound.cheap.values if isinstance(bound, Corrected) else bound.values
    return {"mean": round(bound.mean, 4), "se": round(bound.se, 4), "examples": len(values)}


def _curve(folder: Path, every: int | None = None) -> list[list[float]]:
    """Return [epoch, mean training loss in nats], the first and the last epoch included.

    Args:
        folder: the run.
        every: the number of epochs from one to the next; by default about a hundredth of all.
    """
    with (folder / "metrics.csv").open() as file:
        rows = [
            [int(row["epoch"]), round(float(row["train_loss"]), 3)] for row in csv.DictReader(file)
        ]
    every = every or max(1, len(rows) // 100)
    return [row for number, row in enumerate(rows) if number % every == 0 or row is rows[-1]]


def _seconds_of_training(folder: Path) -> float:
    """Return the time of training, compiling included.

    It is what was used of the budget. Without a budget, it is the time from the making of the
    folder to the last checkpoint: a run that was interrupted is then longer by the time between.
    """
    callbacks = torch.load(folder / "checkpoint.pt", weights_only=True)["callbacks"]
    if "Budget" in callbacks:
        return callbacks["Budget"]["used"]
    last, first = (folder / "checkpoint.pt").stat(), (folder / "data.pt").stat()
    return last.st_mtime - first.st_mtime


def processor() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def _commit() -> str:
    return subprocess.check_output(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, text=True
    ).strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="the folder of a trained run")
    parser.add_argument("name", nargs="?", help="the name of the record, as in RESULTS.md")
    parser.add_argument("--compare", action="store_true", help="print both training curves")
    parser.add_argument("--annealed", type=int, default=500, help="the number of images for AIS")
    arguments = parser.parse_args()
    if arguments.run is None:
        write_results()
    elif arguments.name is None:
        parser.error("name the record too")
    elif arguments.compare:
        compare(arguments.run, arguments.name)
    else:
        measure(arguments.run, arguments.name, arguments.annealed)
