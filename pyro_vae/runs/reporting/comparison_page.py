"""The page of a comparison of runs."""

import io
import math
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_vae import checkpoint
from pyro_vae.bounds import Comparison, GroupComparison
from pyro_vae.bounds.estimates import Summary, finite
from pyro_vae.errors import InputError
from pyro_vae.kinds import bits_per_dim
from pyro_vae.runs.comparison import RunComparison, read_codes
from pyro_vae.runs.reporting import rounding, run_page
from pyro_vae.runs.reporting.answer import Finding, Status
from pyro_vae.runs.reporting.page_parts import Cell, Section, ShownFigure, Table, render
from pyro_vae.runs.reporting.run_files import Picture, RunFiles
from pyro_vae.runs.reporting.terms import TERMS

PLACES = ("data_root", "data", "fingerprint")  # options that say where the data are
MOST_FINDINGS = 6  # runs that the answer is about one by one
LOOSER = "A looser bound also depends on how well q(z|x) fits, not on the model alone."


def write(path: Path, folders: Sequence[str], comparison: RunComparison) -> None:
    """Write the page of a comparison.

    Args:
        path: the file to write. It is replaced if it exists.
        folders: the folders of the runs, in the order of the comparison.
        comparison: the comparison.

    Raises:
        InputError: if the page cannot be written there, or a file of a run is damaged.
    """
    need_folder(path)
    runs = [RunFiles.read(Path(folder)) for folder in folders]
    names = list(comparison.comparison.bounds)
    first = names[0]
    sections = [
        Section(
            "differences",
            f"Differences to {first}",
            parts=[_forest(comparison, first), _table(comparison)],
        ),
        Section(
            "others",
            "By other bounds",
            [LOOSER],
            parts=[
                _differences(other, f"{bound}, with differences to {first}")
                for bound, other in comparison.others.items()
            ],
        )
        if comparison.others
        else Section("others", "By other bounds"),
        Section("codes", "Latent codes", parts=[_codes(folders, names)]),
        Section("options", "What differs between the runs", parts=_options(runs, names)),
    ]
    page = render(
        "comparison.html",
        kind="Comparison of runs",
        title=title(names),
        subtitle=f"{comparison.bound} of {_count(comparison)} on the base measure: "
        f"{comparison.base_measure}",
        headline=headline(first, comparison.comparison.differences, "run"),
        findings=[
            finding(name, first, comparison.comparison.differences[name])
            for name in names[1 : MOST_FINDINGS + 1]
        ],
        left_out=len(names) - 1 - MOST_FINDINGS,
        links=list(links(path, runs, names)),
        sections=[section for section in sections if not section.is_empty],
        command=shlex.join(["pyro-vae", "compare", *folders, "--report", str(path)]),
        versions=sorted({", ".join(run.versions) for run in runs if run.versions}),
        terms=TERMS,
    )
    checkpoint.write(path, page.encode())


def title(names: Sequence[str]) -> str:
    """Return the title of the page from the names of what is compared."""
    return " and ".join(names) if len(names) == 2 else f"{names[0]} and {len(names) - 1} others"


def need_folder(path: Path) -> None:
    """Refuse a page in a folder that does not exist.

    Raises:
        InputError: if there is no such folder.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {path.parent}", "report")


def headline(first: str, differences: Mapping[str, Summary], what: str) -> str:
    """Say in a sentence which is the best, if that can be told.

    Args:
        first: the name of the first.
        differences: the differences of the others to it, by their names.
        what: what is compared: "run" or "group".
    """
    better = {name: each for name, each in differences.items() if each.ci95[0] > 0}
    if not better:
        if any(not each.ci95[1] < 0 for each in differences.values()):
            return f"No {what} was found to be better than {first}."
        nearest = max(differences, key=lambda name: differences[name].mean)
        by = rounding.with_error(-differences[nearest].mean, differences[nearest].se)
        others = len(differences) - 1
        more = f" {rounding.count(others, f'other {what}')} came out even worse." if others else ""
        return f"{first} is better than {nearest}, by {by} nats per example.{more}"
    best = max(better, key=lambda name: better[name].mean)
    by = rounding.with_error(better[best].mean, better[best].se)
    others = len(better) - 1
    more = f" {rounding.count(others, f'other {what}')} beat it too." if others else ""
    return f"{best} is better than {first}, by {by} nats per example.{more}"


def verdict(comparison: Comparison | GroupComparison, what: str) -> str:
    """Return the same sentence for a terminal.

    Args:
        comparison: of runs or of groups.
        what: what is compared: "run" or "group".
    """
    return rounding.plain(headline(next(iter(comparison.bounds)), comparison.differences, what))


def finding(name: str, first: str, difference: Summary) -> Finding:
    """Say whether one is better than the first, or worse."""
    low, high = difference.ci95
    status: Status = "good" if low > 0 else "bad" if high < 0 else "unknown"
    word = {
        "good": f"Better than {first}",
        "bad": f"Worse than {first}",
        "unknown": f"No difference to {first} was found",
    }[status]
    if math.isnan(low) or math.isnan(high):
        word = f"Unknown whether it differs from {first}"
    reach = rounding.interval((low, high), difference.se)
    by = rounding.with_error(difference.mean, difference.se)
    words = f"The difference is {by} nats per example; its 95 % interval is {reach}."
    return Finding(name, status, word, [words], "differences")


def drawn(draw: Callable[[io.BytesIO], None]) -> Picture:
    """Return what a function draws into a file."""
    file = io.BytesIO()
    draw(file)
    picture = Picture.of(file.getvalue())
    assert picture is not None
    return picture


def _forest(comparison: RunComparison, first: str) -> ShownFigure:
    return ShownFigure(
        drawn(comparison.draw),
        "Paired differences",
        f"How many nats per example each run is above {first}, on the same test examples. Bars are "
        "95 % intervals over examples; where a bar crosses the dashed line, no difference was "
        "found.",
        f"Differences of the runs to {first} with their 95 % intervals, as in the table.",
    )


def _table(comparison: RunComparison) -> Table:
    bounds = comparison.comparison.bounds
    columns: list[tuple[str, list[Cell]]] = []
    if comparison.has_bits:
        bits = [bits_per_dim(bound.mean, comparison.dims) for bound in bounds.values()]
        columns.append(("bits/dim", [Cell(f"{each:.4f}", each) for each in bits]))
    if comparison.upper:
        upper = [
            Cell(rounding.value(number, bound.se), number)
            for number, bound in zip(comparison.upper, bounds.values(), strict=True)
        ]
        columns.append(("AIS, upper", upper))
    return _differences(
        comparison.comparison, f"{comparison.bound} of {_count(comparison)}", columns
    )


def _differences(
    comparison: Comparison, caption: str, more: Sequence[tuple[str, list[Cell]]] = ()
) -> Table:
    """Return a table of the differences to the first run.

    Args:
        comparison: the comparison.
        caption: the caption.
        more: names and cells of more columns.
    """
    rows = []
    for place, (name, bound) in enumerate(comparison.bounds.items()):
        row = [Cell(name), *mean_and_se(bound.mean, bound.se)]
        difference = comparison.differences.get(name)
        if difference is None:
            row += [Cell("")] * 4
        else:
            row += [
                *mean_and_se(difference.mean, difference.se),
                Cell(rounding.interval(difference.ci95, difference.se), difference.ci95[0]),
                error_cell(difference.mc_se),
            ]
        rows.append([*row, *(cells[place] for _, cells in more)])
    head = ["nats", "mean", "se", "difference", "se", "95 % interval", "MC error"]
    return Table(caption, [*head, *(name for name, _ in more)], rows)


def mean_and_se(mean: float, se: float) -> list[Cell]:
    """Return cells of a mean in nats and of its error."""
    return [Cell(rounding.value(mean, se), mean), error_cell(se)]


def error_cell(error: float) -> Cell:
    """Return the cell of an error in nats; NaN is an unknown one."""
    return Cell(rounding.error(error), finite(error))


def _codes(folders: Sequence[str], names: Sequence[str]) -> Table:
    rows = []
    for name, code in zip(names, read_codes(folders).values(), strict=True):
        numbers = (code.kl, code.information, code.gain)
        rows.append(
            [
                Cell(name),
                *(Cell(f"{max(0.0, number):.2f}", number) for number in numbers),
                Cell(f"{code.active} of {code.units}", code.active),
                Cell("" if code.accuracy is None else rounding.percent(code.accuracy, 1)),
                Cell(code.verdict),
            ]
        )
    return Table(
        "Latent codes, in nats",
        ("run", "KL", "I(x; z)", "gain", "active units", "probe", "the code is"),
        rows,
        "I(x; z) is a lower bound on the mutual information. The gain is how much z raises "
        "log p(x|z); the probe is the accuracy of a linear classifier of the labels.",
        words=(0, 6),
    )


def _options(runs: Sequence[RunFiles], names: Sequence[str]) -> list[Table]:
    """Return a table of the options in which the runs differ; [] if there are none."""
    flat = [dict(_flat(run.options)) for run in runs]
    differ = [
        option
        for option in dict.fromkeys(name for each in flat for name in each)
        if option not in PLACES and len({each.get(option, "") for each in flat}) > 1
    ]
    rows = [[option, *(each.get(option, "") for each in flat)] for option in differ]
    words = range(len(names) + 1)
    return [Table("Options that differ", ("option", *names), rows, words=words)] if rows else []


def _flat(options: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Return options by names with dots; classes by their own names."""
    for name, value in options.items():
        if name == "init_args" and isinstance(value, dict):
            yield from _flat(value, before)
        elif isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        elif name == "class_path":
            yield before.removesuffix("."), str(value).rpartition(".")[2]
        else:
            yield f"{before}{name}", str(value)


def links(path: Path, runs: Sequence[RunFiles], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return names and addresses of the runs' own pages, relative to the page at `path`."""
    for run, name in zip(runs, names, strict=True):
        page = run.folder / run_page.NAME
        if page.exists():
            yield name, Path(os.path.relpath(page, path.parent)).as_posix()


def _count(comparison: RunComparison) -> str:
    first = next(iter(comparison.comparison.bounds.values()))
    return rounding.count(len(first.values), "test example")
