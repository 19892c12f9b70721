"""Runs, compared by what is in their `bounds.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pyro_vae import bounds
from pyro_vae.errors import InputError
from pyro_vae.observations import bits_per_dim

MUST_AGREE = {
    "base_measure": "probabilities on different base measures are not comparable",
    "num_samples": "IWAE_K grows with K: evaluate both anew with one --num_samples",
    "sha256": "they were evaluated on different test images, or binarised them differently",
}


def compare_runs(folders: Sequence[str]) -> str:
    """Compare runs by their IWAE bounds for the same test images, on one base measure.

    Args:
        folders: of two runs or more; the first is what the others are compared with.

    Returns:
        A table, in nats, with paired differences.

    Raises:
        InputError: if there is no comparing them, saying why.
    """
    found = {folder: _read(Path(folder)) for folder in folders}
    if len({Path(folder).resolve() for folder in folders}) < max(2, len(folders)):
        raise InputError("a comparison takes two runs or more, each named once")
    first, *others = found
    about = found[first]
    for key, why in MUST_AGREE.items():
        for other in others:
            if about[key] != found[other][key]:
                of = "" if key == "sha256" else f" ({about[key]} and {found[other][key]})"
                raise InputError(f"{first} and {other} cannot be compared: {why}{of}")
    names = [Path(folder).name for folder in found]
    labels = names if len(set(names)) == len(names) else list(found)
    values = {
        label: torch.tensor(content["iwae"], dtype=torch.float64)
        for label, content in zip(labels, found.values(), strict=True)
    }
    table = str(bounds.compare(values)).splitlines()
    if about["base_measure"] == "256 levels":
        bits = [bits_per_dim(value.mean().item(), about["dims"]) for value in values.values()]
        column = ["bits/dim", *(f"{number:.4f}" for number in bits)]
        width = max(map(len, table)) + 10
        table = [
            line + cell.rjust(width - len(line)) for line, cell in zip(table, column, strict=True)
        ]
    title = f"IWAE_{about['num_samples']} of {len(values[labels[0]])} test images, on "
    return "\n".join([f"{title}{about['base_measure']}; differences are to {labels[0]}\n", *table])


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
            bound = sum(values := _read(Path(folder))["iwae"]) / len(values)
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
        return {
            **{key: content[key] for key in ("base_measure", "num_samples", "dims")},
            **{key: examples[key] for key in ("sha256", "iwae")},
        }
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}: train to the end, or evaluate the run") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be compared: evaluate the run anew") from error
