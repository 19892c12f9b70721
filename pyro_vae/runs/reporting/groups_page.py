"""The page of a comparison of groups of runs, such as several seeds of two priors."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pyro_vae import checkpoint
from pyro_vae.bounds import GroupComparison
from pyro_vae.bounds.estimates import finite
from pyro_vae.runs.reporting import comparison_page, rounding
from pyro_vae.runs.reporting.comparison_page import LOOSER, MOST_FINDINGS, error_cell, mean_and_se
from pyro_vae.runs.reporting.page_parts import Cell, Section, ShownFigure, Table, render
from pyro_vae.runs.reporting.run_files import RunFiles
from pyro_vae.runs.reporting.terms import TERMS
from pyro_vae.runs.run_groups import RunGroupComparison


def write(path: Path, groups: Sequence[str], comparison: RunGroupComparison) -> None:
    """Write the page of a comparison of groups.

    Args:
        path: the file to write. It is replaced if it exists.
        groups: the groups as the user names them; see `find_groups`.
        comparison: their comparison.

    Raises:
        InputError: if the page cannot be written there, or a file of a run is damaged.
    """
    comparison_page.need_folder(path)
    (bound, tightest), *others = comparison.by_bound.items()
    first, *names = tightest.bounds
    folders = [folder for each in comparison.folders.values() for folder in each]
    runs = [RunFiles.read(Path(folder)) for folder in folders]
    sections = [
        Section(
            "differences",
            f"Differences to {first}",
            tightest.notes,
            parts=[
                ShownFigure(
                    comparison_page.drawn(comparison.draw),
                    "Differences of groups",
                    f"How many nats per example each group is above {first}. Bars are 95 % "
                    "intervals over seeds and examples; a dot is a run.",
                    f"Differences of the groups to {first} with their 95 % intervals, as in the "
                    "table.",
                ),
                _means(tightest, bound),
                _differences(tightest, bound, first),
            ],
        ),
        Section(
            "others",
            "By other bounds",
            [LOOSER] if others else [],
            parts=[_differences(other, name, first) for name, other in others],
        ),
        Section("runs", "The runs", parts=[_runs(tightest, comparison.folders, bound)]),
    ]
    command = ["pyro-vae", "compare"]
    for group in groups:
        command += ["--group", group]
    page = render(
        "comparison.html",
        kind="Comparison of groups of runs",
        title=comparison_page.title([first, *names]),
        subtitle=f"{bound} of {rounding.count(tightest.num_examples, 'test example')} on the base "
        f"measure: {comparison.base_measure}",
        headline=comparison_page.headline(first, tightest.differences, "group"),
        findings=[
            comparison_page.finding(name, first, tightest.differences[name])
            for name in names[:MOST_FINDINGS]
        ],
        left_out=len(names) - MOST_FINDINGS,
        links=list(comparison_page.links(path, runs, [run.folder.name for run in runs])),
        sections=[section for section in sections if not section.is_empty],
        command=shlex.join([*command, "--report", str(path)]),
        versions=sorted({", ".join(run.versions) for run in runs if run.versions}),
        terms=TERMS,
    )
    checkpoint.write(path, page.encode())


def _means(comparison: GroupComparison, bound: str) -> Table:
    rows: list[list[Cell | str]] = []
    for name, mean in comparison.bounds.items():
        errors = [error_cell(each) for each in (mean.run_se, mean.example_se)]
        value, both = mean_and_se(mean.mean, mean.se)
        rows.append([Cell(name), str(len(comparison.run_means[name])), value, *errors, both])
    head = ("nats", "runs", "mean", "se, runs", "se, examples", "se, both")
    return Table(f"{bound} of the groups", head, rows)


def _differences(comparison: GroupComparison, bound: str, first: str) -> Table:
    rows: list[list[Cell | str]] = []
    for name, difference in comparison.differences.items():
        errors = [error_cell(each) for each in (difference.run_se, difference.example_se)]
        value, both = mean_and_se(difference.mean, difference.se)
        reach = rounding.interval(difference.ci95, difference.se)
        ends = Cell(reach, finite(difference.ci95[0]))
        rows.append([Cell(name), value, *errors, both, ends, difference.verdict])
    head = ("nats", "difference", "se, runs", "se, examples", "se, both")
    return Table(
        f"{bound}, with differences to {first}",
        (*head, "95 % interval", "verdict"),
        rows,
        words=(0, 6),
    )


def _runs(comparison: GroupComparison, folders: dict[str, list[str]], bound: str) -> Table:
    rows = [
        [Cell(folder), Cell(group), Cell(rounding.value(mean, comparison.bounds[group].se), mean)]
        for group, means in comparison.run_means.items()
        for folder, mean in zip(folders[group], means, strict=True)
    ]
    return Table(f"{bound} of each run", ("run", "group", "mean"), rows, words=(0, 1))
