"""What is measured of a model beside log p(x): predictive checks, imputation, classes, the code.

To add a diagnostic, see `pyro_vae.diagnostics`; it is called in `measure`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_vae import diagnostics
from pyro_vae.bounds.batches import in_batches
from pyro_vae.diagnostics import Diagnosis, Smoothness
from pyro_vae.diagnostics.predictive import PredictiveChecks, compare_columns, compare_images
from pyro_vae.kinds import Conditional, Kind, has_holes
from pyro_vae.prediction import (
    Classification,
    Scores,
    class_frequencies,
    classify,
    deviations,
    impute,
    num_classes,
    score,
)
from pyro_vae.programs.arguments import Arguments
from pyro_vae.runs import speaking
from pyro_vae.runs.run import Run

UNFINISHED = ".evaluation"  # the folder of the files from which an interrupted evaluation continues


class Diagnostic(Protocol):
    """What is measured of a model beside log p(x): `str` gives its section of the report."""

    def to_dict(self) -> dict[str, Any]:
        """Return what the files hold of it, in a form that JSON takes."""


def measure(
    run: Run, x: Tensor, *, checks: int, imputations: int, classes: int
) -> dict[str, Diagnostic]:
    """Measure what a report says beside log p(x).

    Args:
        run: a trained run.
        x: the test examples that are evaluated, as the likelihood sees them.
        checks: see `Plan`.
        imputations: see `Plan`.
        classes: see `classify` of `Plan`.

    Returns:
        The diagnostics by their names, in the order of `Evaluation.diagnostics`.
    """
    found: dict[str, Diagnostic] = {}
    if checks:
        compared = _check(run.kind, run.test, draw_examples(run, checks))
        if compared.by_statistic:
            found["checks"] = compared
    if imputations and run.hidden is not None and not run.hidden[run.evaluated].isnan().all():
        found["imputation"] = _impute(run, imputations, x)
    if classes and has_classes(run.kind):
        found["classes"] = _classify(run, classes, x)
    found["code"], smoothness = _diagnose(run, x[:1000])
    if smoothness:
        found["smoothness"] = smoothness
    return found


def has_classes(kind: Kind) -> bool:
    """Return whether the condition is one column of classes."""
    return isinstance(kind, Conditional) and num_classes(kind) > 1


def unfinished_file(run: Run, name: str) -> Path:
    """Return the file from which an interrupted part of an evaluation continues."""
    return run.folder / UNFINISHED / f"{name}.pt"


def _check(kind: Kind, data: Tensor, drawn: Tensor) -> PredictiveChecks:
    """Compare test examples with drawn ones: statistics of pictures, or columns of a table."""
    if isinstance(kind, Conditional) and not kind.is_picture:  # conditions are copied, not drawn
        return _check(kind.of, kind.parted(data)[0], kind.parted(drawn)[0])
    if not kind.is_picture:
        return compare_columns(data, drawn, kind)
    if has_holes(kind):  # with the holes of test examples
        like = data[torch.randint(len(data), (len(drawn),), device=data.device)]
        drawn = torch.where(like.isnan(), torch.nan, drawn.to(data.device))
    return compare_images(kind.intensities(data), kind.intensities(drawn))


def draw_examples(run: Run, count: int) -> Tensor:
    """Draw examples from the model, shape [count, *event].

    Where totals of counts are known, or conditions, they are those of test examples, drawn at
    random.
    """
    known = isinstance(run.kind, Conditional) or getattr(run.kind, "total_is_known", False)

    @torch.no_grad()
    def draw(batch: Arguments, advance: Callable[[int], Any]) -> dict[str, Tensor]:
        x = _draw_like_examples(run, len(batch)) if known else run.vae.model(size=len(batch))
        advance(len(batch))
        return {"x": x}

    return in_batches(
        draw,
        Arguments(torch.empty(count, 0, device=run.device)),
        work_name="drawing",
        batch_size=100,
        seed=run.options.seed,
        units=1,
        unit="example",
        progress=speaking.shows_progress(),
        keep=unfinished_file(run, "checks"),
        depends_on=[run.vae],
    )["x"]


def _draw_like_examples(run: Run, count: int) -> Tensor:
    like = run.test[torch.randint(len(run.test), (count,), device=run.device)]
    drawn: Tensor = run.vae.likelihood.given(run.vae.draw_codes(count, like), like).sample()
    return drawn


def _impute(run: Run, num_samples: int, x: Tensor) -> Scores:
    """Impute the hidden values of the evaluated examples, and score them."""
    assert run.hidden is not None
    hidden = run.hidden[run.evaluated].to(run.device)
    found = impute(
        run.vae,
        x,
        num_samples,
        draws=0,
        hidden=hidden,
        seed=run.options.seed,
        keep=unfinished_file(run, "imputation"),
        progress=speaking.shows_progress(),
    )
    known = torch.cat([run.validation, run.test]).cpu()
    return score(found, hidden.cpu(), run.kind, deviations(known, run.kind))


def _classify(run: Run, num_samples: int, x: Tensor) -> Classification:
    """Classify the evaluated examples by Bayes' rule.

    p(y) are the frequencies in the training data, with one more of each class: one that occurs in
    the test data alone is not impossible.
    """
    assert isinstance(run.kind, Conditional) and isinstance(run.train, Tensor)
    count = num_classes(run.kind)
    classes = torch.cat([run.train[:, -1].cpu().long(), torch.arange(count)])
    return classify(
        run.vae,
        x,
        class_frequencies(classes, count),
        num_samples,
        seed=run.options.seed,
        keep=unfinished_file(run, "classes"),
        progress=speaking.shows_progress(),
    )


def _diagnose(run: Run, x: Tensor) -> tuple[Diagnosis, Smoothness | None]:
    """Diagnose the code of x; a probe of the labels is fitted to validation examples."""
    vae, seed = run.vae, run.options.seed
    labelled = [
        (examples[:5000], labels[:5000])
        for examples, labels in zip((run.validation, run.test), run.labels, strict=True)
        if labels is not None
    ]
    diagnosis = diagnostics.diagnose(
        vae.model, vae.guide, x, labelled if len(labelled) == 2 else (), seed
    )
    measurable = vae.posterior.support in ("real", "sphere") and len(x) > 10
    return diagnosis, diagnostics.smoothness(vae, x, seed=seed) if measurable else None
