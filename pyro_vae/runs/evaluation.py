"""What is measured of a run: bounds on log p(x) of its test examples, and diagnostics of the model.

To add an estimator of log p(x), write it in a file of `bounds`, with a result like those there
(see `Result`). Then add a field to `Plan`, which makes its option, and lines to `_estimate`, which
put the result into `looser` or `tighter`: bounds are in order, from the loosest to the tightest,
and IWAE is between the two. The report, `bounds.json` and `compare.py` take it from there.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.bounds import Annealed, Bounds, Corrected, Estimate, inference_data
from pyro_vae.bounds.results import Result
from pyro_vae.diagnostics import Diagnosis, refinement
from pyro_vae.diagnostics.predictive import PredictiveChecks
from pyro_vae.errors import InputError
from pyro_vae.kinds import bits_per_dim
from pyro_vae.runs import speaking
from pyro_vae.runs.model_diagnostics import Diagnostic, measure, unfinished_file
from pyro_vae.runs.plan import Plan
from pyro_vae.runs.refined import Refined
from pyro_vae.runs.run import Run

EXAMPLES_IN_NETCDF = 50  # the number of test examples in bounds.nc


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
        plan: what was asked.
    """

    results: dict[str, Result]
    diagnostics: dict[str, Diagnostic]
    draws: Any = None
    bits_per_dim: float | None = None
    plan: Plan = field(default_factory=lambda: Plan(checks=0, draws=0))

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
            f"subset {plan.subset} is more than the {len(x)} test examples that are evaluated: "
            f"choose {len(x)} or fewer",
            "subset",
        )
    results = _estimate(run, plan, x)
    results |= _derive(results)
    draws = None
    if plan.draws:
        draws = inference_data(
            run.vae.model,
            run.vae.guide,
            x[:EXAMPLES_IN_NETCDF],
            plan.draws,
            khat=_importance(results).khat[:EXAMPLES_IN_NETCDF],
            seed=run.options.seed,
        )
    found = measure(run, x, checks=plan.checks, imputations=plan.imputations, classes=plan.classify)
    return Evaluation(results, found, draws, _bits_per_dim(run, results), plan)


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
    progress = speaking.shows_progress()
    num_samples = run.options.num_samples
    importance = partial(bounds.evaluate, model, guide, x, num_samples, progress=progress)
    looser: dict[str, Result] = {}  # bounds that are looser than IWAE, in order
    tighter: dict[str, Result] = {}  # bounds that are tighter, in order, and what is no bound
    if plan.method == "ais":  # first, because not all models can be annealed
        anneal = partial(bounds.anneal, model, guide, settings=plan.ais, progress=progress)
        tighter["ais"] = anneal(x[: plan.subset], seed=seed, keep=file("ais"))
        if plan.simulated:
            tighter["simulated"] = bounds.bidirectional(
                model,
                guide,
                x[torch.arange(plan.simulated) % len(x)],  # conditions of all of them
                plan.ais,
                seed=seed + 1,
                keep=file("simulated"),
                progress=progress,
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
    whole = results.get("whole")  # the mean over all examples, by the difference on some
    count = len(run.evaluated if isinstance(whole, Corrected) else tightest.values)
    log_p = whole.mean if isinstance(whole, Corrected) else tightest.mean
    mean = log_p + run.shift[:count].mean().item()
    observed = run.num_observed[:count].double().mean().item()
    return bits_per_dim(mean, observed) if observed else None
