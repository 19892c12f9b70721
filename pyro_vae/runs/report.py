"""The results of an evaluation as text."""

from pyro_vae.bounds.estimates import table
from pyro_vae.kinds import Conditional, has_holes
from pyro_vae.runs.evaluation import Evaluation, label
from pyro_vae.runs.run import Run

TITLES = {  # of results by which runs are not compared; others are titled by their names
    "simulated": "Bounds for examples drawn from the model",
    "refined": "Importance bounds with q(z|x) refined for each example",
    "whole": "The tightest bound for all examples",
    "gaps": "How far the ELBO is below log p(x), and why",
}


def report(run: Run, evaluation: Evaluation) -> str:
    """Format all results of an evaluation, as `pyro-vae evaluate` prints them before the answer.

    Args:
        run: the run.
        evaluation: its evaluation.
    """
    sections = [_format_result(run, evaluation, name) for name in evaluation.results]
    if has_holes(run.kind):
        sections.append(_format_observed(run, evaluation))
    if evaluation.bits_per_dim is not None:
        sections.append(
            f"At most {evaluation.bits_per_dim:.4f} bits per dimension ({run.base_measure.name})."
        )
    sections += [str(diagnostic) for diagnostic in evaluation.diagnostics.values()]
    if any("±" in section for section in sections):
        sections.append("The number after ± is one standard error over examples.")
    if run.warning:  # advice on the code does not apply
        sections = [
            "\n".join(line for line in text.splitlines() if not line.startswith("To "))
            for text in (run.warning, *sections)
        ]
    return "\n" + "\n\n".join(sections)


def _format_observed(run: Run, evaluation: Evaluation) -> str:
    """Say of how many values log p(x) is: examples with other holes have another log p(x)."""
    counts = run.num_observed
    bound = [*evaluation.comparable.values()][-1]
    first = counts[: len(bound.values)]
    total = first.sum().item()
    each = f"{bound.values.sum().item() / total:.4f} nats" if total else "nothing"
    return (
        f"log p(x) is that of the observed values: of {run.dims} values of an example, "
        f"{counts.min()} to {counts.max()} are observed, {counts.double().mean():.1f} on average. "
        f"For each observed value the tightest bound has {each}."
    )


def _format_result(run: Run, evaluation: Evaluation, name: str) -> str:
    """Format one result: a title, a table, and how far it can be trusted."""
    result = evaluation.results[name]
    parts = [_title(run, evaluation, name), table(result.rows()), result.verdict]
    return "\n\n".join(part for part in parts if part)


def _title(run: Run, evaluation: Evaluation, name: str) -> str:
    result = evaluation.results[name]
    if result.bound is None:
        whole = name == "simulated" and has_holes(run.kind)
        return f"{TITLES.get(name, name)}{', without missing values' if whole else ''}:"
    count = len(result.bound.values)
    if name == "iwae":
        what = "log p(x|y)" if isinstance(run.kind, Conditional) else "log p(x)"
        return f"Lower bounds on {what} of {count} test examples ({run.kind.name}):"
    whole = count == len(evaluation.importance.bound.values)
    of = f"all {count} examples" if whole and count > 1 else f"{count} of these examples"
    return f"{label(name, result.conditions)} of {of}:"
