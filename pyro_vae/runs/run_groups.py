"""Groups of runs, such as several seeds of two priors, compared from what is in their folders."""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pyro_vae import bounds, figures
from pyro_vae.bounds import GroupComparison
from pyro_vae.errors import InputError
from pyro_vae.runs import bounded_yaml
from pyro_vae.runs.comparison import read_comparable
from pyro_vae.runs.draw_figure import draw_figure
from pyro_vae.runs.evaluation import label


@dataclass(frozen=True)
class RunGroupComparison:
    """What `compare_run_groups` returns.

    Attributes:
        by_bound: the comparison by each bound that all runs have, by the name of the bound, from
            the tightest to the loosest.
        base_measure: the name of the measure that the probabilities refer to.
        folders: the folders of the runs of each group; see `find_groups`.
    """

    by_bound: dict[str, GroupComparison]
    base_measure: str
    folders: dict[str, list[str]]

    def __str__(self) -> str:
        return "\n\n".join(
            f"{bound} of {comparison.num_examples} test examples ({self.base_measure}), over runs "
            f"and examples:\n\n{comparison}"
            for bound, comparison in self.by_bound.items()
        )

    def draw(self, path: Path | BinaryIO) -> None:
        """Draw a forest plot of the differences, with a dot for each run, into a file.

        Raises:
            InputError: if matplotlib cannot write files of that kind.
        """
        tightest = next(iter(self.by_bound.values()))
        size = 7.2, 1.2 + 0.4 * len(tightest.bounds)
        try:
            draw_figure(path, size, lambda ax: figures.forest_of_groups(ax, tightest))
        except ValueError as error:
            raise InputError(f"{path} cannot be drawn: {error}", "figure") from error


def compare_run_groups(groups: Sequence[str]) -> RunGroupComparison:
    """Compare groups of runs by their bounds for the same test examples, on one base measure.

    Args:
        groups: two groups or more, each as in `find_groups`. The others are compared with the
            first.

    Raises:
        InputError: if a group has no runs, a run is in two groups, or the runs are not comparable,
            with the reason.
    """
    folders = find_groups(groups)
    if len(folders) < 2:
        raise InputError("a comparison needs two groups or more", "group")
    contents, names = read_comparable([folder for each in folders.values() for folder in each])
    first, *_ = contents.values()
    seeds = {group: found for group, each in folders.items() if (found := _seeds(each))}
    return RunGroupComparison(
        {
            label(name, first.conditions[name]): bounds.compare_groups(
                {
                    group: [contents[folder].estimates[name] for folder in each]
                    for group, each in folders.items()
                },
                seeds,
            )
            for name in names
        },
        first.base_measure,
        folders,
    )


def find_groups(groups: Sequence[str]) -> dict[str, list[str]]:
    """Return the folders of each group, sorted, by the name of the group.

    Args:
        groups: PATTERN or NAME=PATTERN, where PATTERN matches the folders of the runs as in a
            shell. Without a name, a group is named after the last part of its pattern that has
            more than wildcards: `runs/vamp-*` and `runs/vamp/*` are named vamp.

    Raises:
        InputError: if a pattern matches no folder, two groups have the same name, or a run is in
            two groups.
    """
    found: dict[str, list[str]] = {}
    group_of: dict[Path, str] = {}
    for text in groups:
        name, pattern = _name_and_pattern(text)
        folders = [each for each in sorted(glob.glob(pattern)) if Path(each).is_dir()]
        if not folders:
            raise InputError(f"no folder matches {pattern!r}", "group")
        if name in found:
            raise InputError(f"two groups are named {name}: name them NAME=PATTERN", "group")
        for folder in folders:
            other = group_of.setdefault(Path(folder).resolve(), name)
            if other != name:
                raise InputError(f"{folder} is in two groups, {other} and {name}", "group")
        found[name] = folders
    return found


def _seeds(folders: Sequence[str]) -> list[int]:
    """Return the seeds of runs; nothing if a folder does not say its seed."""
    files = [Path(folder, "config.yaml") for folder in folders]
    options = [bounded_yaml.load(bounded_yaml.read(file)) for file in files if file.exists()]
    seeds = [each["seed"] for each in options if isinstance(each.get("seed"), int)]
    return seeds if len(seeds) == len(folders) else []


def _name_and_pattern(text: str) -> tuple[str, str]:
    name, equals, pattern = text.partition("=")
    if equals and name and "/" not in name:
        return name, pattern
    parts = [re.sub(r"\[.*?\]|[*?]", "", part).strip("-_.") for part in text.split("/")]
    return next((part for part in reversed(parts) if part), text), text
