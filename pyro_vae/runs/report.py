"""The results of an evaluation as text."""

import math
from typing import Any

import torch

from pyro_vae.bounds import Estimate
from pyro_vae.bounds.estimates import HEADER, row
from pyro_vae.runs.adapters import Result
from pyro_vae.runs.evaluation import Evaluation
from pyro_vae.runs.run import Run

TITLES = {  # of results by which runs are not compared; others are titled by their names
    "simulated": "Bounds for images drawn from the model",
    "refined": "Importance bounds with q(z|x) refined for each image",
    "whole": "The tightest bound for all images",
    "gaps": "How far the ELBO is below log p(x), and why",
}


def report(run: Run, evaluation: Evaluation) -> str:
    """Format the results of an evaluation, as the scripts print them."""
    sections = [_format_result(run, evaluation, name) for name in evaluation.results]
    if evaluation.checks:
        sections.append(str(evaluation.checks))
    if evaluation.bits_per_dim is not None:
        sections.append(
            f"At most {evaluation.bits_per_dim:.4f} bits per dimension ({run.base_measure.name})."
        )
    sections.append(str(evaluation.diagnosis))
    if evaluation.smoothness:
        sections.append(str(evaluation.smoothness))
    sections.append(
        f"All results are in {run.folder}: bounds.*, diagnostics.json, metrics.csv, best.pt, "
        "figures/*.png"
    )
    return "\n" + "\n\n".join(sections)


def label(name: str, conditions: dict[str, Any]) -> str:
    """Return how a bound is called in reports: `IWAE_5000`, or `AIS`."""
    draws = conditions.get("num_samples")
    return name.upper() if draws is None else f"{name.upper()}_{draws}"


def _format_result(run: Run, evaluation: Evaluation, name: str) -> str:
    """Format one result: a title, a table, and how far to rely on it."""
    result = evaluation.results[name]
    rows = result.rows() + _difference_to_importance(evaluation, name)
    lines = [_title(run, name, result), ""]
    if rows:
        lines += [HEADER, *(row(*entry) for entry in rows)]
    sentences = [result.verdict, _contradiction(evaluation, name)]
    if name == "iwae" and len(evaluation.comparable) == 1 and evaluation.importance.heavy:
        sentences.append(
            "To bound log p(x) from both sides, run python scripts/evaluate.py "
            f"{run.folder} --method ais"
        )
    verdict = [sentence for sentence in sentences if sentence]
    if rows and verdict:
        lines.append("")
    return "\n".join([*lines, *verdict])


def _title(run: Run, name: str, result: Result) -> str:
    if result.bound is None:
        return f"{TITLES.get(name, name)}:"
    count = len(result.bound.values)
    if name == "iwae":
        return f"Lower bounds on log p(x) of {count} test images ({run.kind.name}):"
    conditions = ", ".join(f"{key} {value}" for key, value in result.conditions.items())
    return f"{label(name, result.conditions)} of {count} of these images ({conditions}):"


def _difference_to_importance(evaluation: Evaluation, name: str) -> list[tuple[str, Estimate]]:
    """Return the row of a bound less the importance bound for the same images."""
    bound = evaluation.comparable.get(name)
    if bound is None or name == "iwae":
        return []
    conditions = {key: evaluation.results[key].conditions for key in (name, "iwae")}
    names = " - ".join(label(key, value) for key, value in conditions.items())
    return [(names, bound - _importance_bound(evaluation, len(bound.values)))]


def _contradiction(evaluation: Evaluation, name: str) -> str:
    """Say so if an upper bound on log p(x) is below the importance bound for the same images."""
    upper = getattr(evaluation.results[name], "upper", None)
    if name not in evaluation.comparable or not isinstance(upper, Estimate):
        return ""
    lower = _importance_bound(evaluation, len(upper.values))
    if upper.mean < lower.mean - 4 * math.hypot(upper.mc_se, lower.mc_se):
        return "Do not rely on the upper bound: it is below IWAE, which is a lower bound."
    return ""


def _importance_bound(evaluation: Evaluation, count: int) -> Estimate:
    """Return the importance bound for the first images."""
    return evaluation.comparable["iwae"][torch.arange(count)]
