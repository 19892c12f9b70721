"""The results of evaluations in the folder of a run: replaced together, and kept by what was asked.

An evaluation writes its files into a hidden folder first. Renaming that folder to `READY` decides:
before it the old results stand, and after it the new ones. Then the files are moved to their
places, and the page of the run is made again. If the process is killed in between, `settle`
finishes that: commands call it before they read results.

The run's own folder has the fullest evaluation, which `compare` and the page take. One that asks
for less of anything, such as fewer examples, is put into a folder of `OTHERS` instead, and so is
the one before when a fuller one takes its place.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyro_vae import checkpoint
from pyro_vae.runs.plan import Plan
from pyro_vae.runs.reporting import run_page

READY = ".results"  # the folder of results that are complete, and not yet in their places
OTHERS = "evaluations"  # the folder of evaluations beside the fullest
FILES, MANIFEST = "files", "manifest.json"  # in the folder of results: their files, and their names
Asked = dict[str, Any]


def asked(plan: Plan, num_examples: int, num_samples: int, parameters: str) -> Asked:
    """Return what is asked of an evaluation, in a form that JSON takes.

    Args:
        plan: what is measured.
        num_examples: the number of test examples.
        num_samples: the number of draws of z for each of them.
        parameters: a hash of the model's parameters.
    """
    annealed = plan.method == "ais"
    return asdict(plan) | {
        "num_examples": num_examples,
        "num_samples": num_samples,
        "subset": (plan.subset or num_examples) if annealed else 0,
        "simulated": plan.simulated if annealed else 0,
        "ais": asdict(plan.ais) if annealed else {},
        "parameters": parameters,
    }


def put(folder: Path, results: Path, asked: Asked, owned: Sequence[str]) -> Path:
    """Put the results of an evaluation into the folder of a run, all of them or none.

    Args:
        folder: the run's folder.
        results: a folder in it whose folder `FILES` has the files. It is moved.
        asked: what was asked; see `asked`.
        owned: the names of the files that an evaluation may have, relative to the folder.

    Returns:
        The folder that has the results now.
    """
    settle(folder)
    place, before = folder, _asked_before(folder)
    if before is not None and before.get("parameters", asked["parameters"]) == asked["parameters"]:
        if not _is_as_full(asked, before):
            place = folder / OTHERS / _name(asked)
            (results / OTHERS).mkdir()
            (results / FILES).rename(results / OTHERS / place.name)
        elif _name(before) != _name(asked):
            for name in owned:
                if (folder / name).exists():
                    kept = results / OTHERS / _name(before) / name
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(folder / name, kept)
    files = results / FILES
    names = [str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()]
    removed = [name for name in owned if name not in names] if place == folder else []
    checkpoint.write(results / MANIFEST, json.dumps({"removed": removed}).encode())
    for path in results.rglob("*"):
        checkpoint.sync(path)
    results.rename(folder / READY)
    checkpoint.sync(folder)
    settle(folder)
    return place


def settle(folder: Path) -> None:
    """Finish what an evaluation that was killed has begun: to move its results to their places."""
    ready = folder / READY
    if not ready.is_dir():
        return
    for name in json.loads((ready / MANIFEST).read_text())["removed"]:
        (folder / name).unlink(missing_ok=True)
    files = ready / FILES
    for path in [path for path in files.rglob("*") if path.is_file()]:
        target = folder / path.relative_to(files)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    for path in (ready / OTHERS).glob("*"):
        target = folder / OTHERS / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        path.rename(target)
    with contextlib.suppress(FileNotFoundError):
        run_page.write(folder)
    checkpoint.sync(folder)
    shutil.rmtree(ready)


def _asked_before(folder: Path) -> Asked | None:
    """Return what was asked of the evaluation in a folder; None if there is none."""
    try:
        content = json.loads((folder / "bounds.json").read_text())
        if "asked" in content:
            return dict(content["asked"])
        # Older versions did not write it.
        annealed = content.get("ais", {})
        return {
            "num_examples": int(content["num_examples"]),
            "num_samples": int(content["num_samples"]),
            "method": "ais" if annealed else "importance",
            "subset": len(content["examples"]["ais"]["values"]) if annealed else 0,
            "refine": int("refined" in content),
        }
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError):
        return None  # there is none, or it is damaged


def _is_as_full(one: Asked, other: Asked) -> bool:
    """Return whether one evaluation asks for all that another one does, or more."""
    numbers = [name for name, value in one.items() if isinstance(value, int)]
    return all(one[name] >= (other.get(name) or 0) for name in numbers)


def _name(asked: Asked) -> str:
    """Return the name of a folder for an evaluation: it says what was asked of the bounds."""
    name = f"{asked['num_examples']}-examples-{asked['num_samples']}-draws"
    name += "-ais" * (asked["method"] == "ais") + "-refined" * bool(asked["refine"])
    more = {key: asked.get(key) for key in ("ais", "subset", "simulated", "refine")}
    if not any(more.values()):
        return name
    return f"{name}-{hashlib.sha256(json.dumps(more, sort_keys=True).encode()).hexdigest()[:6]}"
