"""The files of an evaluation: `bounds.json`, `bounds.nc`, `diagnostics.json`, and the figures."""

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from pyro_vae import checkpoint, figures
from pyro_vae.bounds import Estimate
from pyro_vae.bounds.estimates import finite
from pyro_vae.bounds.for_arviz import save
from pyro_vae.kinds import has_holes
from pyro_vae.runs import hard_examples, results_folder, trainer
from pyro_vae.runs.draw_figure import draw_figure
from pyro_vae.runs.evaluation import Evaluation
from pyro_vae.runs.model_diagnostics import UNFINISHED, has_classes, unfinished_file
from pyro_vae.runs.run import Run
from pyro_vae.training import History


@dataclass(frozen=True)
class RunFigure:
    """A figure in the folder of a run.

    Attributes:
        name: the name of the file, without its ending.
        after: the work after which the figure is drawn: `training` or `evaluation`.
        size: the width and the height in inches.
        draw: a function of the axes, the run, and the result of the work: the history of training,
            or an evaluation. If there are several columns, it receives a sequence of axes.
        columns: the number of axes, side by side.
        rows: the number of rows of axes.
        of: the data that it is for: all, pictures, or tables.
        exists: a function of the run and the history or evaluation; it returns whether the run has
            this figure, if its data are such.
    """

    name: str
    after: Literal["training", "evaluation"]
    size: tuple[float, float]
    draw: Callable[[Any, Run, Any], Any]
    columns: int = 1
    rows: int = 1
    of: Literal["all", "pictures", "tables"] = "all"
    exists: Callable[[Run, Any], bool] = lambda run, _: True


def _relations(run: Run) -> dict[str, dict[str, Any]]:
    """Return what depends on what in the model and in the guide; {} if Pyro cannot tell.

    Pyro follows tensors through a program. Operations of users' own parts may not let it.
    """
    programs = {"model": run.vae.model, "guide": run.vae.guide}
    try:
        return {name: figures.relations(each, run.test[:2]) for name, each in programs.items()}
    except Exception:  # whatever a part of a user's own raises: the rest of the report is made
        return {}


# To add a figure, write a function in the folder `figures` and add it here.
FIGURES = (
    RunFigure(
        "training",
        "training",
        (7.2, 3),
        lambda ax, run, history: figures.training_curves(ax, history),
    ),
    RunFigure(
        "samples",
        "training",
        (6, 6),
        lambda ax, run, _: figures.samples(ax, run.vae, like=run.test),
        of="pictures",
    ),
    RunFigure(
        "classes",
        "training",
        (6, 6),
        lambda ax, run, _: figures.samples_by_class(ax, run.vae, run.test[:1]),
        of="pictures",
        exists=lambda run, _: has_classes(run.kind),
    ),
    RunFigure(
        "reconstructions",
        "training",
        (7.2, 1.7),
        lambda ax, run, _: figures.reconstructions(ax, run.vae, run.mixed[:12]),
        of="pictures",
    ),
    RunFigure(
        "rows",
        "training",
        (9, 3.8),
        lambda ax, run, _: figures.reconstructed_rows(ax, run.vae, run.mixed[:6]),
        of="tables",
    ),
    RunFigure(
        "interpolation",
        "training",
        (6, 4.2),
        lambda ax, run, _: figures.interpolation(ax, run.vae, run.mixed[:6], run.mixed.flip(0)[:6]),
        of="pictures",
    ),
    RunFigure(
        "manifold",
        "training",
        (6.5, 6.5),
        lambda ax, run, _: figures.manifold(ax, run.vae, like=run.test[0]),
        of="pictures",
        exists=lambda run, _: (
            run.options.latent_dim == 2 and run.vae.posterior.support in ("real", "layers")
        ),
    ),
    RunFigure(
        "predictive",
        "evaluation",
        (7.2, 2.3),
        lambda axes, run, evaluation: figures.predictive_checks(axes, evaluation.checks),
        columns=3,
        of="pictures",
        exists=lambda run, evaluation: evaluation.checks is not None,
    ),
    RunFigure(
        "columns",
        "evaluation",
        (7.2, 3.6),
        lambda axes, run, evaluation: figures.column_fits(axes, evaluation.checks, run.kind),
        columns=4,
        rows=2,
        of="tables",
        exists=lambda run, evaluation: evaluation.checks is not None,
    ),
    RunFigure(
        "pairs",
        "evaluation",
        (7.2, 4.8),
        lambda axes, run, evaluation: figures.column_pairs(axes, evaluation.checks, run.kind),
        columns=3,
        rows=2,
        of="tables",
        exists=lambda run, evaluation: evaluation.checks is not None and run.kind.dims > 1,
    ),
    RunFigure(
        "bounds",
        "evaluation",
        (7.2, 3.2),
        lambda axes, run, evaluation: figures.tightness(
            axes, evaluation.importance, evaluation.results.get("ais")
        ),
        columns=2,
    ),
    RunFigure(
        "extremes",
        "evaluation",
        (7.2, 2.2),
        lambda ax, run, evaluation: figures.hard_examples(
            ax, hard_examples.pictures(run, evaluation)
        ),
        of="pictures",
    ),
    RunFigure(
        "programs",
        "evaluation",
        (4.8, 3.2),
        lambda axes, run, _: [
            figures.graphical_model(ax, found, title)
            for ax, (title, found) in zip(axes, _relations(run).items(), strict=True)
        ],
        columns=2,
        exists=lambda run, _: bool(_relations(run)),
    ),
    RunFigure(
        "units",
        "evaluation",
        (7.2, 2.6),
        lambda ax, run, evaluation: figures.units(ax, evaluation.diagnosis),
    ),
    RunFigure(
        "traversals",
        "evaluation",
        (6, 6),
        lambda ax, run, _: figures.traversals(ax, run.vae, run.mixed[:1000]),
        of="pictures",
        exists=lambda run, _: run.vae.posterior.support == "real",
    ),
)


def write_training(run: Run, history: History) -> None:
    """Draw the figures of a trained model.

    Args:
        run: the run, with the parameters of its best epoch.
        history: the history that `Run.fit` returns.
    """
    torch.manual_seed(run.options.seed)
    _draw_figures("training", run, history, run.folder)


def write_evaluation(run: Run, evaluation: Evaluation) -> Path:
    """Write `bounds.json`, `bounds.nc`, `diagnostics.json`, the figures, and the run's page.

    They replace those of an earlier evaluation together or not at all, or are put beside these if
    they are less; see `results_folder`. Files from which this evaluation would have continued after
    an interruption are removed.

    Returns:
        The folder that they are in.
    """
    folder = run.folder / UNFINISHED / "results"
    shutil.rmtree(folder, ignore_errors=True)
    files = folder / results_folder.FILES
    files.mkdir(parents=True)
    _draw_figures("evaluation", run, evaluation, files)
    if evaluation.draws is not None:
        save(evaluation.draws, files / "bounds.nc")
    measured = {name: each.to_dict() for name, each in evaluation.diagnostics.items()}
    measured.pop("checks", None)  # they are in bounds.json
    code = measured.pop("code") | {"smoothness": None} | measured
    asked = results_folder.asked(
        evaluation.plan,
        len(run.evaluated),
        run.options.num_samples,
        _parameters_hash(run),
    )
    bounds = _bounds_content(run, evaluation) | {"asked": asked}
    for name, content in (("bounds", bounds), ("diagnostics", code)):
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        checkpoint.write(files / f"{name}.json", text.encode())
    figures_of_it = [f"figures/{each.name}.png" for each in FIGURES if each.after == "evaluation"]
    owned = ["bounds.json", "bounds.nc", "diagnostics.json", *figures_of_it]
    place = results_folder.put(run.folder, folder, asked, owned)
    for name in (*evaluation.results, *evaluation.diagnostics):
        unfinished_file(run, name).unlink(missing_ok=True)
        for of_rank in (run.folder / UNFINISHED).glob(f"{name}.*of*.pt"):
            of_rank.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it has files of another evaluation, or does not exist
        (run.folder / UNFINISHED).rmdir()
    return place


def _parameters_hash(run: Run) -> str:
    """Return a hash of the parameters and buffers of model and guide."""
    digest = hashlib.sha256()
    for program in (run.vae.model, run.vae.guide):
        for name, value in program.state_dict().items():
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _bounds_content(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """Return what `bounds.json` holds.

    The importance bounds are at the top level, all other results under their names. The rest is for
    comparisons with other runs: the bounds of each example on the base measure, with their Monte
    Carlo variances, the conditions that have to be equal, and a fingerprint of the examples.
    """
    measured = run.measured[run.evaluated.to(run.measured.device)].cpu().contiguous()
    content: dict[str, Any] = {
        "support": run.kind.name,
        "base_measure": run.base_measure.name,
        "dims": run.kind.dims,
    }
    if math.isfinite(steps := trainer.num_steps(run.options, len(run.train))):
        content["training_steps"] = steps
    if run.warning:
        content["warning"] = run.warning
    if has_holes(run.kind):
        content["observed_values"] = run.num_observed.tolist()
    if evaluation.bits_per_dim is not None:
        content["bits_per_dim"] = finite(evaluation.bits_per_dim)
    for name, result in evaluation.results.items():
        if name == "iwae":
            content |= {**result.to_dict(), "verdict": result.verdict}
        else:
            content[name] = result.to_dict()
    content["extremes"] = hard_examples.describe(run, evaluation)
    if evaluation.checks:
        content["checks"] = evaluation.checks.to_dict()
    examples: dict[str, Any] = {"sha256": hashlib.sha256(measured.numpy().tobytes()).hexdigest()}
    for name, bound in evaluation.comparable.items():
        examples[name] = _rounded(run.on_base_measure(bound))
    content["examples"] = examples
    content["conditions"] = {
        name: evaluation.results[name].conditions for name in evaluation.comparable
    }
    return content


def _rounded(estimate: Estimate) -> dict[str, Any]:
    """Return the values and the Monte Carlo variances of a bound, in few digits.

    Variances that are unknown are null, and so are all if the mean's error is unknown. If it is
    known although a few examples' are not, `heavy` has what the mean's error needs of these: the
    variance by the formula and its limit, by the number of the example.
    """
    variances, heavy = estimate.mc_variance, {}
    if math.isnan(estimate.mc_se):
        variances = torch.full_like(variances, math.nan)
    else:
        heavy = {
            str(i): [_short(estimate.variance[i].item()), _short(estimate.limit[i].item())]
            for i in variances.isnan().nonzero()[:, 0].tolist()
        }
    content: dict[str, Any] = {
        "values": [finite(round(value, 5)) for value in estimate.values.tolist()],
        "mc_variance": [_short(variance) for variance in variances.tolist()],
    }
    return content | ({"heavy": heavy} if heavy else {})


def _short(number: float) -> float | None:
    return finite(float(f"{number:.4g}"))


def _draw_entry(entry: RunFigure, run: Run, shown: Any, axes: Any) -> None:
    entry.draw(axes, run, shown)


def _draw_figures(
    after: Literal["training", "evaluation"], run: Run, shown: Any, into: Path
) -> None:
    """Draw the figures of `FIGURES`, and remove old ones that do not exist.

    Args:
        after: which of them.
        run: the run.
        shown: the history of training, or an evaluation.
        into: a folder, whose folder `figures` gets them.
    """
    folder = into / "figures"
    folder.mkdir(exist_ok=True)
    for entry in FIGURES:
        if entry.after != after:
            continue
        path = folder / f"{entry.name}.png"
        data = "pictures" if run.kind.is_picture else "tables"
        if entry.of not in ("all", data) or not entry.exists(run, shown):
            path.unlink(missing_ok=True)
            continue
        draw = partial(_draw_entry, entry, run, shown)
        with checkpoint.naming(path):
            draw_figure(path, entry.size, draw, entry.rows, entry.columns)
