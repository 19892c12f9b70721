"""Commands that are worth trying next, after what was found in a run."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae.errors import InputError
from pyro_vae.runs import bounded_yaml, trust
from pyro_vae.runs.reporting.answer import Finding
from pyro_vae.runs.reporting.run_files import RunFiles

MOST_CHARACTERS = 80  # in a line
FEW_STEPS, ENOUGH_STEPS = 500, 3000  # of training
WARMUP = 0.25  # the share of training in which the KL's weight rises


@dataclass(frozen=True)
class Step:
    """Something to try.

    Attributes:
        why: what it is for.
        command: what to type.
    """

    why: str
    command: str


def repeat(run: RunFiles) -> str:
    """Return the command that repeats a run."""
    return _train(run, "again")


def next_step(run: RunFiles, findings: dict[str, Finding]) -> Step:
    """Return what to do next.

    Args:
        run: the files of the run.
        findings: what was found, by the names `bound` and `code`.
    """
    if not run.bounds:
        return Step("Evaluate the run.", _command("evaluate", run))
    if "warning" in run.bounds:
        lr = float(run.options.get("lr", 1e-3)) / 10
        return Step(
            "Train again with a smaller learning rate.", _train(run, "slower", f"--lr={lr:g}")
        )
    bound, code = findings["bound"], findings.get("code")
    steps, epochs = run.bounds.get("training_steps", math.inf), run.options.get("epochs")
    if steps < FEW_STEPS and epochs and code is not None and code.status != "good":
        longer = math.ceil(ENOUGH_STEPS / steps * epochs)
        return Step(
            f"Train longer: {steps} steps are few.", _train(run, "longer", f"--epochs={longer}")
        )
    if (first := _made_from(run)) is not None:
        return _compare(first, run.folder)
    if bound.status != "good":
        return _tighter(run)
    if code is not None and code.status != "good" and _could_warm_up(run):
        return Step(
            "Make the code cheap at first, so that the decoder learns to use it (KL warm-up).",
            _train(run, "warmup", f"--objective.warmup_share={WARMUP}"),
        )
    if code is not None and code.status == "care" and len(run.diagnostics.get("sites", {})) == 1:
        active = run.diagnostics["active_units"]
        return Step(
            f"Train again with as many units as carry information: {active}.",
            _train(run, f"latent{active}", f"--latent_dim={active}"),
        )
    if run.part("prior") == "StandardNormal":
        other = _beside(run, "vamp")
        if _is_comparable(run, other):
            return _compare(run.folder, other)
        return Step(
            "Train with a prior that is learned, to compare the two runs.",
            _train(run, "vamp", "--prior=Vamp"),
        )
    if "checks" not in run.bounds:
        return Step(
            "Compare examples drawn from the model with the data.", _command("evaluate", run)
        )
    return Step(
        "Compare the run with others, on the same test examples.",
        f"{_command('compare', run)} OTHER_RUN --report comparison.html",
    )


def _made_from(run: RunFiles) -> Path | None:
    """Return the folder of the run whose options, some of them changed, a run was trained with."""
    name = run.folder.resolve().name
    while "-" in name:
        name = name.rpartition("-")[0]
        if _is_comparable(run, other := run.folder.with_name(name)):
            return other
    return None


def _is_comparable(run: RunFiles, other: Path) -> bool:
    """Return whether a folder is that of a run of the same data that was evaluated."""
    if not ((other / "config.yaml").is_file() and (other / "bounds.json").is_file()):
        return False
    try:
        options = bounded_yaml.load(bounded_yaml.read(other / "config.yaml"))
    except InputError:
        return False
    same = ("fingerprint", "data_seed", "num_samples", "num_examples")
    return all(options.get(name) == run.options.get(name) for name in same)


def _compare(first: Path, second: Path) -> Step:
    words = ["pyro-vae compare", str(first), str(second), "--report=comparison.html"]
    return Step("Compare the two runs, on the same test examples.", _joined(words))


def _tighter(run: RunFiles) -> Step:
    """Return a command whose bound is tighter."""
    ais = run.bounds.get("ais")
    if ais is None:
        return Step(
            "Bound log p(x) from both sides, by annealing.",
            _command("evaluate", run, "--method=ais"),
        )
    temperatures = 2 * ais["temperatures"]
    return Step(
        "Anneal more slowly: the bounds get closer.",
        _command("evaluate", run, "--method=ais", f"--ais.temperatures={temperatures}"),
    )


def _could_warm_up(run: RunFiles) -> bool:
    """Return whether the run's objective has a KL warm-up that it has not used."""
    objective: Any = run.options.get("objective")
    arguments = objective.get("init_args") if isinstance(objective, dict) else None
    if not isinstance(arguments, dict) or "warmup" not in arguments:
        return False
    return not (arguments["warmup"] or arguments.get("warmup_share"))


def _train(run: RunFiles, suffix: str, *options: str) -> str:
    """Return a command that trains with the options of a run, some of them changed."""
    out = _beside(run, suffix)
    config = f"--config={run.folder / 'config.yaml'}"
    return _joined(["pyro-vae train", config, *options, f"--out={out}", *_trust(run)])


def _beside(run: RunFiles, suffix: str) -> Path:
    """Return the folder of a run that is made from another one."""
    return run.folder.with_name(f"{run.folder.resolve().name}-{suffix}")


def _command(verb: str, run: RunFiles, *options: str) -> str:
    trusted = [] if verb == "compare" else _trust(run)
    return _joined([f"pyro-vae {verb}", str(run.folder), *options, *trusted])


def _joined(words: Sequence[str]) -> str:
    """Return a command of which long ones have a line for each word."""
    first, *others = words
    quoted = [first, *map(shlex.quote, others)]
    line = " ".join(quoted)
    return line if len(line) <= MOST_CHARACTERS else " \\\n  ".join(quoted)


def _trust(run: RunFiles) -> list[str]:
    return ["--trust_code"] if any(trust.names_of_others(run.options)) else []
