"""Runs, compared by what is in their `bounds.json`."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pyro_vae import bounds, figures
from pyro_vae.bounds import Comparison, Estimate, Settings
from pyro_vae.errors import InputError
from pyro_vae.kinds import bits_per_dim

MUST_AGREE = {
    "base_measure": "probabilities on different base measures are not comparable",
    "sha256": "they were evaluated on different test images, or binarised them differently",
}


@dataclass(frozen=True)
class RunComparison:
    """What `compare_runs` returns.

    Attributes:
        comparison: of the runs, by the names of their folders.
        bound: what they are compared by: `IWAE_K`, or `AIS`.
        base_measure: on what their probabilities are.
        dims: the number of pixels, colours counted apart.
    """

    comparison: Comparison
    bound: str
    base_measure: str
    dims: int

    def __str__(self) -> str:
        table = str(self.comparison).splitlines()
        found = self.comparison.bounds
        first = next(iter(found))
        if self.base_measure == "256 levels":
            bits = [bits_per_dim(bound.mean, self.dims) for bound in found.values()]
            column = ["bits/dim", *(f"{number:.4f}" for number in bits)]
            width = max(map(len, table)) + 10
            table = [a + b.rjust(width - len(a)) for a, b in zip(table, column, strict=True)]
        count = len(found[first].values)
        title = f"{self.bound} of {count} test images, on {self.base_measure}"
        return "\n".join([f"{title}; differences are to {first}\n", *table])

    def draw(self, path: Path) -> None:
        """Draw a forest plot of the differences into a file.

        Raises:
            InputError: if matplotlib knows no such kind of picture.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 1.5 + 0.3 * len(self.comparison.bounds)), layout="constrained")
        figures.forest(figure.subplots(), self.comparison)
        try:
            figure.savefig(path, dpi=150)
        except ValueError as error:
            raise InputError(f"{path} cannot be drawn: {error}") from error


def compare_runs(folders: Sequence[str]) -> RunComparison:
    """Compare runs by their bounds for the same test images, on one base measure.

    By annealed importance sampling, if all have it for the same images; by IWAE_K otherwise.

    Args:
        folders: of two runs or more; the first is what the others are compared with.

    Raises:
        InputError: if there is no comparing them, saying why.
    """
    found = {folder: _read(Path(folder)) for folder in folders}
    if len({Path(folder).resolve() for folder in folders}) < max(2, len(folders)):
        raise InputError("a comparison takes two runs or more, each named once")
    first = next(iter(found))
    about = found[first]
    annealed = all(content["ais"] for content in found.values())
    annealed = annealed and len({len(c["ais"]["values"]) for c in found.values()}) == 1
    agree = dict(MUST_AGREE)
    if annealed:
        agree["settings"] = "AIS is tighter with more effort: evaluate both with the same --ais"
    else:
        agree["num_samples"] = "IWAE_K grows with K: evaluate both anew with one --num_samples"
    for key, why in agree.items():
        for other, content in found.items():
            if about[key] != content[key]:
                of = "" if key == "sha256" else f" ({about[key]} and {content[key]})"
                raise InputError(f"{first} and {other} cannot be compared: {why}{of}")
    names = [Path(folder).resolve().name for folder in found]
    labels = names if len(set(names)) == len(names) else list(found)
    values = {
        label: _estimate(content["ais" if annealed else "iwae"])
        for label, content in zip(labels, found.values(), strict=True)
    }
    bound = "AIS" if annealed else f"IWAE_{about['num_samples']}"
    return RunComparison(bounds.compare(values), bound, about["base_measure"], about["dims"])


def _estimate(content: dict[str, list[float | None]]) -> Estimate:
    """Read what `evaluation` wrote: null is a bound of minus infinity, or an error not known."""
    values, variance = (
        torch.tensor([missing if v is None else v for v in content[key]], dtype=torch.float64)
        for key, missing in (("values", -math.inf), ("mc_variance", math.nan))
    )
    return Estimate(values, variance)


def compare_codes(folders: Sequence[str]) -> str:
    """Put side by side what the runs' codes carry, from `bounds.json` and `diagnostics.json`.

    Args:
        folders: of the runs.

    Returns:
        A table, in nats: the test bound, the KL, the mutual information I(x; z) from below, what z
        is worth to the decoder, active units, the probe's accuracy, and the verdict.

    Raises:
        InputError: if a run has no diagnosis, or not a whole one.
    """
    head = f"{'bound':>9} {'KL':>7} {'I(x; z)':>8} {'z worth':>8} {'active':>7} {'probe':>7}"
    width = max(len(Path(folder).name) for folder in folders)
    rows = [f"{'nats':{width}} {head}  the code is"]
    for folder in folders:
        path = Path(folder) / "diagnostics.json"
        try:
            content = json.loads(path.read_text())
            bound = _estimate(_read(Path(folder))["iwae"]).mean
            kl, information, gain = (
                content[name]["mean"] for name in ("rate", "mutual_information", "gain")
            )
            probe = f"{content['probe']['accuracy']:.1%}" if content["probe"] else ""
            active = f"{content['active_units']}/{content['units']}"
            rows.append(
                f"{Path(folder).name:{width}} {bound:9.2f} {kl:7.2f} {information:8.2f} "
                f"{gain:8.2f} {active:>7} {probe:>7}  {content['verdict']}"
            )
        except FileNotFoundError as error:
            raise InputError(f"there is no {path}: evaluate the run anew") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} cannot be compared: evaluate the run anew") from error
    return "\n".join(rows)


def _read(folder: Path) -> dict[str, Any]:
    """Return what of a run's `bounds.json` is compared."""
    path = folder / "bounds.json"
    try:
        content = json.loads(path.read_text())
        examples = content["examples"]
        for bound in ("iwae", "ais"):
            if bound == "iwae" or bound in examples:
                _estimate(examples[bound])
        return {
            **{key: content[key] for key in ("base_measure", "num_samples", "dims")},
            **{key: examples[key] for key in ("sha256", "iwae")},
            "ais": examples.get("ais"),
            "settings": {key: content.get("ais", {}).get(key) for key in vars(Settings())},
        }
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}: train to the end, or evaluate the run") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be compared: evaluate the run anew") from error
