"""What is measured of a run: bounds on log p(x) of its test examples, and diagnostics of the model.

To add an estimator of log p(x), write it in a file of `bounds`, with a result like those there
(see `Result`). Then add a field to `Plan`, which makes its option, and lines to `_estimate`, which
put the result into `looser` or `tighter`: bounds are in order, from the loosest to the tightest,
and IWAE is between the two. The report, `bounds.json` and `compare.py` take it from there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from pyro_vae import bounds, diagnostics
from pyro_vae.bounds import Annealed, Bounds, Corrected, Estimate, Settings, inference_data
from pyro_vae.bounds.batches import in_batches
from pyro_vae.bounds.results import Result
from pyro_vae.diagnostics import Diagnosis, Smoothness, refinement
from pyro_vae.diagnostics.predictive import PredictiveChecks, compare_columns, compare_images
from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional, Kind, bits_per_dim, has_holes
from pyro_vae.prediction import (
    Classification,
    Scores,
    class_frequencies,
    classify,
    deviations,
    impute,
    score,
)
from pyro_vae.programs.arguments import Arguments
from pyro_vae.runs.options import at_least, check_fields
from pyro_vae.runs.refined import Refined
from pyro_vae.runs.run import Run

EXAMPLES_IN_NETCDF = 50  # the number of test examples in bounds.nc
UNFINISHED = ".evaluation"  # the folder of the files from which an interrupted evaluation continues


@dataclass(frozen=True)
class Plan:
    """What an evaluation measures beside the ELBO and IWAE.

    Args:
        method: importance gives the ELBO and IWAE only; ais also bounds log p(x) from both sides,
            by annealed importance sampling.
        ais: The chains of annealed importance sampling, from q(z|x) or p(z) to p(x, z).
        subset: The number of test examples to anneal; by default all. The mean over all is
            then IWAE's mean over all plus the mean difference on these.
        simulated: The number of examples to draw from the model. Chains in both directions show how
            tight annealing is on them; 0 leaves it out.
        refine: The number of SVI steps that refine q(z|x) for each example, to measure the
            amortisation gap; 0 leaves it out.
        checks: The number of examples to draw from the model for predictive checks; 0 leaves
            them out. Autoregressive likelihoods are slow to draw from, pixel by pixel.
        classify: The number of draws of z for each class, to classify the test examples by Bayes'
            rule if the condition is one column of classes; 0 leaves it out.
        imputations: The number of draws of z for each test example, to impute values that
            hold_out_entries has hidden; 0 leaves it out.
        draws: The number of draws for each of 50 test examples, in each of 4 chains, in bounds.nc;
            0 leaves the file out, which saves autoregressive likelihoods much time.
    """

    method: Literal["importance", "ais"] = "importance"
    ais: Settings = field(default_factory=Settings)
    subset: int | None = at_least(2, None)
    simulated: int = at_least(0, 100)
    refine: int = at_least(0, 0)
    checks: int = at_least(0, 1000)
    classify: int = at_least(0, 100)
    imputations: int = at_least(0, 1000)
    draws: int = at_least(0, 10)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.checks == 1:
            raise InputError("checks takes two examples or more, or 0 to leave them out", "checks")
        if self.subset is not None and self.method != "ais":
            raise InputError(
                "subset (number of examples to anneal) needs annealing: use the method ais",
                "method",
            )


class Diagnostic(Protocol):
    """What is measured of a model beside log p(x): `str` gives its section of the report."""

    def to_dict(self) -> dict[str, Any]:
        """Return what the files hold of it, in a form that JSON takes."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` returns.

    Attributes:
        results: estimates of log p(x), by their names in `bounds.json`. `iwae` are the importance
            bounds, of all evaluated examples; the others may be of the first ones only. Bounds are
            in order, from the loosest to the tightest: what is looser than IWAE comes before it.
        diagnostics: what else was measured, by its name, in the order in which it is reported:
            `checks`, statistics of examples drawn from the model and of the data; `imputation`, how
            well hidden values are imputed; `classes`, classification by Bayes' rule; `code`, the
            diagnosis of the latent code; `smoothness`, of the latent space, if codes are real
            vectors or on the sphere.
        draws: draws from model and guide, for ArviZ.
        bits_per_dim: an upper bound on the bits per dimension, from the tightest bound; None if the
            base measure is not a counting measure.
    """

    results: dict[str, Result]
    diagnostics: dict[str, Diagnostic]
    draws: Any = None
    bits_per_dim: float | None = None

    @property
    def importance(self) -> Bounds:
        """The importance bounds, of all evaluated examples."""
        return _importance(self.results)

    @property
    def checks(self) -> PredictiveChecks | None:
        """The predictive checks, if there are some."""
        found = self.diagnostics.get("checks")
        return found if isinstance(found, PredictiveChecks) else None

    @property
    def diagnosis(self) -> Diagnosis:
        """The diagnosis of the latent code."""
        found = self.diagnostics["code"]
        assert isinstance(found, Diagnosis)
        return found

    @property
    def comparable(self) -> dict[str, Estimate]:
        """The bounds by which runs are compared, by name, from the loosest to the tightest."""
        return _comparable(self.results)


def evaluate(run: Run, plan: Plan | None = None) -> Evaluation:
    """Evaluate a run on its test examples.

    If an evaluation was interrupted, another call continues where it stopped.

    Args:
        run: a trained run.
        plan: what to measure; by default importance bounds and diagnostics of the code.

    Raises:
        InputError: if this run cannot provide what the plan requests.
    """
    plan = plan or Plan(checks=0, draws=0)
    x = run.test[run.evaluated.to(run.device)]
    if plan.subset is not None and plan.subset > len(x):
        raise InputError(
            f"subset {plan.subset} is more than the {len(x)} test examples that are evaluated",
            "subset",
        )
    results = _estimate(run, plan, x)
    results |= _derive(results)
    measured: dict[str, Diagnostic | None] = {}
    draws = None
    if plan.checks:
        measured["checks"] = _check(run.kind, run.test, _draw(run, plan.checks))
    if plan.imputations and run.hidden is not None:
        measured["imputation"] = _impute(run, plan.imputations, x)
    if plan.classify and has_classes(run.kind):
        measured["classes"] = _classify(run, plan.classify, x)
    if plan.draws:
        draws = inference_data(
            run.vae.model,
            run.vae.guide,
            x[:EXAMPLES_IN_NETCDF],
            plan.draws,
            khat=_importance(results).khat[:EXAMPLES_IN_NETCDF],
            seed=run.options.seed,
        )
    measured["code"], measured["smoothness"] = _diagnose(run, x[:1000])
    found = {name: diagnostic for name, diagnostic in measured.items() if diagnostic}
    return Evaluation(results, found, draws, _bits_per_dim(run, results))


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
        progress=True,
    )
    return score(found, hidden, run.kind, deviations(run.test, run.kind))


def has_classes(kind: Kind) -> bool:
    """Return whether the condition is one column of classes."""
    if not isinstance(kind, Conditional):
        return False
    sizes = kind.given.num_categories.reshape(-1)
    return kind.given.shape.numel() == 1 and bool(sizes[0] > 1)


def _classify(run: Run, num_samples: int, x: Tensor) -> Classification:
    """Classify the evaluated examples by Bayes' rule, with the frequencies of training data."""
    assert isinstance(run.kind, Conditional) and isinstance(run.train, Tensor)
    classes = run.train[:, -1]
    return classify(
        run.vae,
        x,
        class_frequencies(classes, int(run.kind.given.num_categories.reshape(-1)[0])),
        num_samples,
        seed=run.options.seed,
        keep=unfinished_file(run, "classes"),
        progress=True,
    )


def _check(kind: Kind, data: Tensor, drawn: Tensor) -> PredictiveChecks:
    """Compare test examples with drawn ones: statistics of pictures, or columns of a table."""
    if not kind.is_picture:
        return compare_columns(data, drawn, kind)
    if has_holes(kind):  # with the holes of test examples
        like = data[torch.randint(len(data), (len(drawn),), device=data.device)]
        drawn = torch.where(like.isnan(), torch.nan, drawn)
    return compare_images(kind.intensities(data), kind.intensities(drawn))


def unfinished_file(run: Run, name: str) -> Path:
    """Return the file from which an interrupted part of an evaluation continues."""
    return run.folder / UNFINISHED / f"{name}.pt"


def label(name: str, conditions: dict[str, Any]) -> str:
    """Return how a bound is called in reports: `IWAE_5000`, or `AIS`."""
    draws = conditions.get("num_samples")
    return name.upper() if draws is None else f"{name.upper()}_{draws}"


def _estimate(run: Run, plan: Plan, x: Tensor) -> dict[str, Result]:
    """Estimate log p(x) in all ways that the plan requests.

    Args:
        run: the run.
        plan: what to measure.
        x: the test examples that are evaluated, as the likelihood sees them.

    Returns:
        The results, in the order of `Evaluation.results`.
    """
    model, guide, seed = run.vae.model, run.vae.guide, run.options.seed
    file = partial(unfinished_file, run)
    importance = partial(bounds.evaluate, model, guide, x, run.options.num_samples, progress=True)
    looser: dict[str, Result] = {}  # bounds that are looser than IWAE, in order
    tighter: dict[str, Result] = {}  # bounds that are tighter, in order, and what is no bound
    if plan.method == "ais":  # first, because not all models can be annealed
        anneal = partial(bounds.anneal, model, guide, settings=plan.ais, progress=True)
        tighter["ais"] = anneal(x[: plan.subset], seed=seed, keep=file("ais"))
        if plan.simulated:
            tighter["simulated"] = bounds.bidirectional(
                model,
                guide,
                x[torch.arange(plan.simulated) % len(x)],  # conditions of all of them
                plan.ais,
                seed=seed + 1,
                keep=file("simulated"),
                progress=True,
            )
    if plan.refine:
        adapt = partial(refinement.refine, model, guide, steps=plan.refine)
        # Another seed, so that the two evaluations are independent.
        tighter["refined"] = Refined(importance(seed=seed + 1, adapt=adapt, keep=file("refined")))
    return {**looser, "iwae": importance(seed=seed, keep=file("iwae")), **tighter}


def _derive(results: dict[str, Result]) -> dict[str, Result]:
    """Return what follows from several results: differences to IWAE, a mean over all, the gaps."""
    importance, annealed, refined = _importance(results), results.get("ais"), results.get("refined")
    assert annealed is None or isinstance(annealed, Annealed)
    assert refined is None or isinstance(refined, Refined)
    derived: dict[str, Result] = {}
    if annealed is not None:
        examples = torch.arange(len(annealed.lower.values))
        derived["ais"] = replace(annealed, iwae=importance.bound[examples])
    name, tightest = list(_comparable(results).items())[-1]
    if len(tightest.values) < len(importance.bound.values):
        examples = torch.arange(len(tightest.values))
        derived["whole"] = Corrected(
            importance.bound, tightest, examples, costly_name=label(name, results[name].conditions)
        )
    gaps = bounds.gaps(importance, refined.importance if refined else None, annealed)
    return derived if gaps is None else {**derived, "gaps": gaps}


def _importance(results: dict[str, Result]) -> Bounds:
    importance = results["iwae"]
    assert isinstance(importance, Bounds)
    return importance


def _comparable(results: dict[str, Result]) -> dict[str, Estimate]:
    bounds_by_name = {name: result.bound for name, result in results.items()}
    return {name: bound for name, bound in bounds_by_name.items() if bound is not None}


def _bits_per_dim(run: Run, results: dict[str, Result]) -> float | None:
    """Return an upper bound on the bits per dimension, from the tightest bound on log p(x)."""
    if not run.base_measure.counts:
        return None
    tightest = list(_comparable(results).values())[-1]
    mean = run.on_base_measure(tightest).mean
    whole = results.get("whole")
    if isinstance(whole, Corrected):  # the mean over all examples, by the difference on some
        mean += whole.mean - tightest.mean
    return bits_per_dim(mean, run.num_observed.double().mean().item())


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


def _draw(run: Run, count: int) -> Tensor:
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
        progress=True,
        keep=unfinished_file(run, "checks"),
        depends_on=[run.vae],
    )["x"]


def _draw_like_examples(run: Run, count: int) -> Tensor:
    like = run.test[torch.randint(len(run.test), (count,), device=run.device)]
    drawn: Tensor = run.vae.likelihood.given(run.vae.draw_codes(count, like), like).sample()
    return drawn
