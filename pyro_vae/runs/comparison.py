"""Comparisons of runs, from what is in their folders."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pyro_vae import bounds, figures
from pyro_vae.bounds import Comparison, Estimate, Settings
from pyro_vae.errors import InputError
from pyro_vae.kinds import bits_per_dim
from pyro_vae.runs.draw_figure import draw_figure
from pyro_vae.runs.evaluation import label


@dataclass(frozen=True)
class RunComparison:
    """What `compare_runs` returns.

    Attributes:
        comparison: the comparison of the runs, by the names of their folders.
        bound: the name of the bound by which they are compared: `IWAE_K`, or `AIS`.
        base_measure: the name of the measure that their probabilities refer to.
        dims: the mean number of observed values of an example: if none is missing, pixels times
            channels.
        has_bits: whether it is a counting measure, so that there are bits per dimension.
        others: comparisons by the other bounds that all runs have, by the names of these bounds.
        upper: the mean upper bounds of AIS in nats, in the order of the runs; None where one is
            unknown. Empty if the runs are not compared by AIS.
    """

    comparison: Comparison
    bound: str
    base_measure: str
    dims: float
    has_bits: bool = False
    others: dict[str, Comparison] = field(default_factory=dict)
    upper: list[float | None] = field(default_factory=list)

    def __str__(self) -> str:
        tables = [self._table(self.comparison, self.bound)]
        tables += [self._table(comparison, bound) for bound, comparison in self.others.items()]
        return "\n\n".join(tables)

    def _table(self, comparison: Comparison, bound: str) -> str:
        table = str(comparison).splitlines()
        bounds_by_run = comparison.bounds
        first = next(iter(bounds_by_run))
        if self.has_bits:
            bits = [bits_per_dim(each.mean, self.dims) for each in bounds_by_run.values()]
            column = ["bits/dim", *(f"{number:.4f}" for number in bits)]
            table = _with_column(table, column, 10)
        if self.upper and comparison is self.comparison:
            column = ["unknown" if number is None else f"{number:.3f}" for number in self.upper]
            table = _with_column(table, ["AIS, upper", *column], 12)
        count = len(bounds_by_run[first].values)
        title = f"{bound} of {count} test examples ({self.base_measure})"
        return "\n".join([f"{title}, with differences to {first}:\n", *table])

    def draw(self, path: Path | BinaryIO) -> None:
        """Draw a forest plot of the differences into a file.

        Args:
            path: its path; or a file that receives PNG.

        Raises:
            InputError: if matplotlib cannot write files of that kind.
        """
        size = 7.2, 1.1 + 0.32 * len(self.comparison.bounds)
        try:
            draw_figure(path, size, lambda ax: figures.forest(ax, self.comparison))
        except ValueError as error:
            raise InputError(f"{path} cannot be drawn: {error}", "figure") from error


def _with_column(table: list[str], column: list[str], width: int) -> list[str]:
    """Return the lines of a table with one more column, aligned on the right."""
    end = max(map(len, table)) + width
    return [line + item.rjust(end - len(line)) for line, item in zip(table, column, strict=True)]


def compare_runs(folders: Sequence[str]) -> RunComparison:
    """Compare runs by their bounds for the same test examples, on one base measure.

    They are compared by the tightest bound that all of them have for the same number of examples,
    and also by the other bounds that all have under the same conditions.

    Args:
        folders: the folders of two or more runs. The other runs are compared with the first.

    Raises:
        InputError: if they are not comparable, with the reason.
    """
    if len({Path(folder).resolve() for folder in folders}) < max(2, len(folders)):
        raise InputError("a comparison needs two runs or more, each named once")
    contents, names = read_comparable(folders)
    tightest, *others = names
    folder_names = [Path(folder).resolve().name for folder in contents]
    labels = folder_names if len(set(folder_names)) == len(folder_names) else list(contents)
    first, *_ = contents.values()

    def compare(name: str) -> Comparison:
        estimates = [content.estimates[name] for content in contents.values()]
        return bounds.compare(dict(zip(labels, estimates, strict=True)))

    return RunComparison(
        compare(tightest),
        label(tightest, first.conditions[tightest]),
        first.base_measure,
        _mean(first.observed[: len(first.estimates[tightest].values)]),
        any(content.has_bits for content in contents.values()),
        {label(name, first.conditions[name]): compare(name) for name in others},
        [content.upper for content in contents.values()] if tightest == "ais" else [],
    )


def read_comparable(folders: Sequence[str]) -> tuple[dict[str, "Content"], list[str]]:
    """Read the results of runs that can be compared.

    Returns:
        What `bounds.json` holds, by the names of the folders, and the names of the bounds by which
        the runs can be compared, from the tightest to the loosest.

    Raises:
        InputError: if they are not comparable, with the reason.
    """
    contents = {folder: _read(Path(folder)) for folder in folders}
    _check_same_examples(contents)
    *others, tightest = _common_bounds(contents)
    _check_same_conditions(tightest, contents)
    others = [name for name in others if _difference(name, contents) is None]
    return contents, [tightest, *reversed(others)]


@dataclass(frozen=True)
class Content:
    """What a comparison needs from a run's `bounds.json`.

    Attributes:
        base_measure: its name.
        observed: how many values of each example are observed, of the first examples on.
        sha256: the fingerprint of the examples.
        estimates: bounds on log p(x) of each example, by name, from the loosest to the tightest.
        conditions: the conditions of each of these bounds, which have to be equal in two runs.
        has_bits: whether the base measure is a counting measure.
        upper: the mean upper bound of AIS; None if it is unknown, or there is none.
    """

    base_measure: str
    observed: list[int]
    sha256: str
    estimates: dict[str, Estimate]
    conditions: dict[str, dict[str, Any]]
    has_bits: bool
    upper: float | None = None


def _check_same_examples(contents: dict[str, Content]) -> None:
    first, about = next(iter(contents.items()))
    for other, content in contents.items():
        if content.base_measure != about.base_measure:
            raise InputError(
                f"{first} and {other} cannot be compared: probabilities on different base measures "
                f"are not comparable ({about.base_measure} and {content.base_measure})"
            )
        counts = [max(len(e.values) for e in c.estimates.values()) for c in (about, content)]
        if counts[0] != counts[1]:
            raise InputError(
                f"{first} and {other} cannot be compared: they were evaluated on {counts[0]} and "
                f"{counts[1]} test examples: evaluate both with the same num_examples"
            )
        if content.sha256 != about.sha256:
            raise InputError(
                f"{first} and {other} cannot be compared: they were evaluated on different test "
                "examples, or binarised them differently"
            )


def _common_bounds(contents: dict[str, Content]) -> list[str]:
    """Return the names of the bounds that all runs have for the same number of examples."""
    first, *others = (content.estimates for content in contents.values())
    return [
        name
        for name, bound in first.items()
        if all(name in other and len(other[name].values) == len(bound.values) for other in others)
    ]


def _check_same_conditions(name: str, contents: dict[str, Content]) -> None:
    """Refuse to compare bounds that are tighter for one run because more effort was spent on it."""
    difference = _difference(name, contents)
    if difference is not None:
        first, other, key, one, two = difference
        raise InputError(
            f"{first} and {other} cannot be compared: {name.upper()} depends on {key}, which "
            f"differs ({one} and {two}): evaluate both with the same {key}"
        )


def _difference(name: str, contents: dict[str, Content]) -> tuple[str, str, str, Any, Any] | None:
    """Return two runs, a condition of a bound that differs, and its values; None if all agree."""
    first, about = next(iter(contents.items()))
    for other, content in contents.items():
        one, two = about.conditions[name], content.conditions[name]
        for key in one:
            if key in two and one[key] != two[key]:
                return first, other, key, one[key], two[key]
    return None


def _read(folder: Path) -> Content:
    """Read what a comparison needs from a run's `bounds.json`."""
    path = folder / "bounds.json"
    try:
        content = json.loads(path.read_text())
        estimates = {
            name: _estimate(values)
            for name, values in content["examples"].items()
            if name != "sha256"
        }
        conditions = content.get("conditions") or _old_conditions(content)
        num_examples = max(len(estimate.values) for estimate in estimates.values())
        return Content(
            base_measure=content["base_measure"],
            observed=content.get("observed_values") or [content["dims"]] * num_examples,
            sha256=content["examples"]["sha256"],
            estimates=estimates,
            conditions={name: dict(conditions[name]) for name in estimates},
            has_bits="bits_per_dim" in content or content["base_measure"] == "256 levels",
            upper=content.get("ais", {}).get("upper", {}).get("mean"),
        )
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}: train to the end, or evaluate the run") from error
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be compared: evaluate the run again") from error


def _old_conditions(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the conditions of a file that has no such key: older code wrote them."""
    annealed = content.get("ais", {})
    return {
        "iwae": {"num_samples": content["num_samples"]},
        "ais": {key: annealed.get(key) for key in vars(Settings())},
    }


def _mean(numbers: Sequence[int]) -> float:
    return sum(numbers) / len(numbers)


def _estimate(content: dict[str, Any]) -> Estimate:
    """Make an estimate; null is a bound of minus infinity, or an unknown Monte Carlo error."""
    values, variance = (
        torch.tensor([missing if v is None else v for v in content[key]], dtype=torch.float64)
        for key, missing in (("values", -math.inf), ("mc_variance", math.nan))
    )
    limit = variance.clone()
    for index, numbers in content.get("heavy", {}).items():
        variance[int(index)], limit[int(index)] = numbers
    return Estimate(values, variance, limit)


@dataclass(frozen=True)
class CodeSummary:
    """What is compared of a run's latent code; numbers are means in nats.

    Attributes:
        bound: the test bound.
        kl: the KL.
        information: the lower bound on the mutual information I(x; z).
        gain: the gain of the decoder from z.
        active: the number of active units.
        units: the number of units.
        accuracy: the accuracy of the probe of labels; None if there is no probe.
        verdict: the verdict on the code.
    """

    bound: float
    kl: float
    information: float
    gain: float
    active: int
    units: int
    accuracy: float | None
    verdict: str


def read_codes(folders: Sequence[str]) -> dict[str, CodeSummary]:
    """Read what is compared of latent codes, from `bounds.json` and `diagnostics.json`.

    Args:
        folders: the folders of the runs.

    Returns:
        A summary for each folder.

    Raises:
        InputError: if a run has no diagnosis, or an incomplete one.
    """
    summaries = {}
    for folder in folders:
        path = Path(folder) / "diagnostics.json"
        try:
            content = json.loads(path.read_text())
            bound = _read(Path(folder)).estimates["iwae"].mean
            kl, information, gain = (
                float(content[name]["mean"]) for name in ("rate", "mutual_information", "gain")
            )
            summaries[folder] = CodeSummary(
                bound,
                kl,
                information,
                gain,
                content["active_units"],
                content["units"],
                float(content["probe"]["accuracy"]) if content["probe"] else None,
                str(content["verdict"]),
            )
        except FileNotFoundError as error:
            raise InputError(f"there is no {path}: evaluate the run again") from error
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise InputError(f"{path} cannot be compared: evaluate the run again") from error
    return summaries


def compare_codes(folders: Sequence[str]) -> str:
    """Compare the latent codes of runs: a table of their summaries, in nats.

    Args:
        folders: the folders of the runs.

    Raises:
        InputError: if a run has no diagnosis, or an incomplete one.
    """
    head = f"{'bound':>9} {'KL':>7} {'I(x; z)':>8} {'z gains':>8} {'active':>7} {'probe':>7}"
    width = max(len(Path(folder).name) for folder in folders)
    rows = [f"{'nats':{width}} {head}  the code is"]
    for folder, code in read_codes(folders).items():
        probe = "" if code.accuracy is None else f"{100 * code.accuracy:.1f} %"
        active = f"{code.active}/{code.units}"
        rows.append(
            f"{Path(folder).name:{width}} {code.bound:9.2f} {code.kl:7.2f} {code.information:8.2f} "
            f"{code.gain:8.2f} {active:>7} {probe:>7}  {code.verdict}"
        )
    return "\n".join(rows)
