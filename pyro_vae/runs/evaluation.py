"""What is measured of a run: bounds on log p(x) of its test images, and what to think of them."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae import bounds, checkpoint, diagnostics, figures
from pyro_vae.bounds import (
    Annealed,
    Bidirectional,
    Bounds,
    Corrected,
    Estimate,
    Gaps,
    inference_data,
)
from pyro_vae.bounds.batches import in_batches
from pyro_vae.bounds.estimates import finite, table
from pyro_vae.bounds.for_arviz import save
from pyro_vae.diagnostics import Diagnosis, Smoothness, predictive, refinement
from pyro_vae.errors import InputError
from pyro_vae.kinds import bits_per_dim
from pyro_vae.runs.options import Plan
from pyro_vae.runs.run import Run

DRAWN = 50  # examples in bounds.nc
KEPT = ".evaluation"  # what an interrupted evaluation goes on from


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` returns.

    Attributes:
        bounds: by importance sampling, on all images that were chosen.
        diagnosis: of the latent code.
        smoothness: of the latent space, where codes are real or on the sphere.
        refined: bounds with q(z|x) refined for each image.
        annealed: by annealing, on the first of the images.
        simulated: chains both ways, on images drawn from the model.
        checks: statistics of images drawn from the model, and of the data.
        draws: from model and guide, for ArviZ.
    """

    bounds: Bounds
    diagnosis: Diagnosis
    smoothness: Smoothness | None = None
    refined: Bounds | None = None
    annealed: Annealed | None = None
    simulated: Bidirectional | None = None
    checks: dict[str, predictive.Check] | None = None
    draws: Any = None

    @property
    def annealed_of(self) -> Tensor:
        """Which images were annealed."""
        assert self.annealed is not None
        return torch.arange(len(self.annealed.lower.values))

    @property
    def whole(self) -> Corrected | None:
        """The mean of the annealed lower bound over all images, if only some were annealed."""
        if self.annealed is None or len(self.annealed_of) == len(self.bounds.elbo.values):
            return None
        return Corrected(self.bounds.bound, self.annealed.lower, self.annealed_of)

    @property
    def gaps(self) -> Gaps | None:
        """The difference log p(x) - ELBO, split as far as it was measured."""
        return bounds.gaps(self.bounds, self.refined, self.annealed)


def evaluate(run: Run, plan: Plan | None = None) -> Evaluation:
    """Measure a run's test images, chosen at random but always the same.

    What was interrupted goes on where it stopped, if it is called again.

    Raises:
        InputError: if what is asked for cannot be had of this run.
    """
    plan = plan or Plan(checks=0, draws=0)
    model, guide = run.vae.model, run.vae.guide
    x = run.test[run.chosen.to(run.device)]
    seed = run.options.seed
    keep = run.folder / KEPT
    subset = len(x) if plan.subset is None else plan.subset
    if subset > len(x):
        raise InputError(f"--subset {subset} is more than the {len(x)} test images evaluated")
    annealed = simulated = refined = checks = None
    if plan.method == "ais":  # first, since it may be refused
        annealing = partial(bounds.anneal, model, guide, settings=plan.ais, progress=True)
        annealed = annealing(x[:subset], seed=seed, keep=keep / "annealed.pt")
        if plan.simulated:
            simulated = bounds.bidirectional(
                model,
                guide,
                x[:1].expand(plan.simulated, *x.shape[1:]),
                plan.ais,
                seed=seed + 1,
                keep=keep / "simulated.pt",
                progress=True,
            )
    measure = partial(bounds.evaluate, model, guide, x, run.options.num_samples, progress=True)
    if plan.refine:
        adapt = partial(refinement.refine, model, guide, steps=plan.refine)
        # Two evaluations of a run are independent of each other.
        refined = measure(seed=seed + 1, adapt=adapt, keep=keep / "refined.pt")
    found = measure(seed=seed, keep=keep / "bounds.pt")
    if plan.checks:
        drawn = _draw(run, plan.checks, keep / "checks.pt")
        checks = predictive.check(run.kind.features(run.test), run.kind.features(drawn))
    draws = None
    if plan.draws:
        khat = found.khat[:DRAWN]
        draws = inference_data(model, guide, x[:DRAWN], plan.draws, khat=khat, seed=seed)
    if annealed is not None:
        annealed = replace(annealed, iwae=found.bound[torch.arange(subset)])
    return Evaluation(
        found, *_look_at_code(run, x[:1000]), refined, annealed, simulated, checks, draws
    )


def _look_at_code(run: Run, x: Tensor) -> tuple[Diagnosis, Smoothness | None]:
    """Diagnose the code of x; a probe of the labels is fitted to validation images."""
    vae, seed = run.vae, run.options.seed
    labelled = [
        (images[:5000], labels[:5000])
        for images, labels in zip((run.validation, run.test), run.labels, strict=True)
        if labels is not None
    ]
    found = diagnostics.diagnose(
        vae.model, vae.guide, x, labelled if len(labelled) == 2 else (), seed
    )
    measurable = vae.posterior.support in ("real", "sphere") and len(x) > 10
    return found, diagnostics.smoothness(vae, x, seed=seed) if measurable else None


def _draw(run: Run, count: int, keep: Path) -> Tensor:
    """Draw images from the model."""

    @torch.no_grad()
    def draw(batch: Tensor, advance: Callable[[int], Any]) -> dict[str, Tensor]:
        x = run.vae.model(size=len(batch))
        advance(len(batch))
        return {"x": x}

    return in_batches(
        draw,
        torch.empty(count, 0, device=run.device),
        work_name="drawing",
        batch_size=100,
        seed=run.options.seed,
        units=1,
        unit="image",
        progress=True,
        keep=keep,
        depends_on=[run.vae],
    )["x"]


def report(run: Run, found: Evaluation) -> str:
    """Say what came of it."""
    best = found.bounds.iwae[found.bounds.num_samples]
    lines = [
        f"\nlog p(x) of {len(best.values)} test images ({run.kind.name}), bounded "
        f"from below:\n\n{found.bounds}\n\n{found.bounds.verdict}"
    ]
    if found.bounds.heavy and not found.annealed:
        lines.append("To bound log p(x) from both sides: python scripts/evaluate.py --method ais")
    for result in (found.annealed, found.whole, found.simulated, found.gaps):
        if result is not None:
            lines.append(f"\n{table(result.rows())}")
            lines += [f"\n{result.verdict}"] if result.verdict else []
    if found.annealed:
        best = found.annealed.lower
    if found.checks:
        lines.append(f"\n{predictive.report(found.checks)}")
    if run.base_measure.counts:
        mean = _on_base_measure(run, best).mean
        if found.whole:  # the same for all images, by the difference on some
            mean += found.whole.mean - best.mean
        bits = bits_per_dim(mean, _dims(run))
        lines.append(f"{run.base_measure.name} in {bits:.4f} bits per dimension, or fewer.")
    lines.append(f"\n{found.diagnosis}")
    if found.smoothness:
        lines.append(f"\n{found.smoothness}")
    lines.append(
        f"\nEverything is in {run.folder}: bounds.*, diagnostics.json, metrics.csv, best.pt, "
        "figures/*.png"
    )
    return "\n".join(lines)


def write(run: Run, found: Evaluation) -> None:
    """Write `bounds.json`, `bounds.nc` and `diagnostics.json`, and draw the figures.

    Nothing is left there of another evaluation.

    Beside the bounds, `bounds.json` holds what a comparison needs: each example's bounds on the
    base measure, with their Monte Carlo variances, and a fingerprint of the examples.
    """
    best = found.bounds.iwae[found.bounds.num_samples]
    measured = run.measured[run.chosen.to(run.measured.device)].cpu().contiguous()
    content: dict[str, Any] = {
        "support": run.kind.name,
        "base_measure": run.base_measure.name,
        "dims": _dims(run),
        **found.bounds.to_dict(),
        "verdict": found.bounds.verdict,
        "examples": {
            "sha256": hashlib.sha256(measured.numpy().tobytes()).hexdigest(),
            "iwae": _rounded(_on_base_measure(run, best)),
        },
    }
    if found.annealed:
        content["ais"] = found.annealed.to_dict()
        content["examples"]["ais"] = _rounded(_on_base_measure(run, found.annealed.lower))
    if found.simulated:
        content["simulated"] = found.simulated.to_dict()
    if found.whole:
        content["whole"] = found.whole.to_dict()
    if found.refined:
        content["refined"] = found.refined.to_dict()
    if found.gaps:
        content["gaps"] = found.gaps.to_dict()
    if found.checks:
        content["checks"] = {
            name: {"difference": c.difference, "se": c.se, "p_value": c.p_value}
            for name, c in found.checks.items()
        }
        run.draw("predictive", (9, 3), partial(figures.predictive_checks, checks=found.checks), 3)
    else:  # nothing that another evaluation left
        (run.folder / "figures" / "predictive.png").unlink(missing_ok=True)
    if found.draws is not None:
        save(found.draws, run.folder / "bounds.nc")
    else:
        (run.folder / "bounds.nc").unlink(missing_ok=True)
    run.draw(
        "bounds",
        (9.5, 4.2),
        partial(figures.tightness, found=found.bounds, annealed=found.annealed),
        columns=2,
    )
    code = found.diagnosis.to_dict()
    code["smoothness"] = found.smoothness.to_dict() if found.smoothness else None
    run.draw("units", (6, 4), partial(figures.units, diagnosis=found.diagnosis))
    if run.vae.posterior.support == "real":
        run.draw("traversals", (6, 6), partial(figures.traversals, vae=run.vae, x=run.test[:1000]))
    for name, part in (("bounds", content), ("diagnostics", code)):
        text = json.dumps(part, indent=2, allow_nan=False) + "\n"
        checkpoint.write(run.folder / f"{name}.json", text.encode())
    for name in ("bounds", "refined", "annealed", "simulated", "checks"):
        if getattr(found, name) is not None:
            (run.folder / KEPT / f"{name}.pt").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another evaluation may have been interrupted
        (run.folder / KEPT).rmdir()


def _rounded(estimate: Estimate) -> dict[str, Any]:
    return {
        "values": [finite(round(value, 5)) for value in estimate.values.tolist()],
        "mc_variance": [finite(float(f"{v:.4g}")) for v in estimate.mc_variance.tolist()],
    }


def _dims(run: Run) -> int:
    return run.vae.likelihood.event_shape.numel()


def _on_base_measure(run: Run, bound: Estimate) -> Estimate:
    """Return a bound on log p(x) on the run's base measure."""
    return Estimate(run.base_measure.log_prob(bound.values, _dims(run)), bound.mc_variance)
