"""Check this package on a GPU against the CPU, and time training there.

One command on a machine with a GPU: `python scripts/device_check.py --out FOLDER`. It takes a few
minutes and writes `device_check.json` and `device_check.md`. A check that fails is said, and the
exit code is 1.
"""

import argparse
import json
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import contenders
import pyro
import torch
from torch import Tensor

from pyro_vae import VAE, bounds, data, likelihoods, objectives, posteriors, priors, training
from pyro_vae.prediction import impute
from pyro_vae.runs import config, evaluation
from pyro_vae.runs.run import Run

BATCH_SIZES = (100, 512, 4096)
BATCHES = 20  # in a timed epoch
TIMED_IMAGES = {"IWAE_5000": 10_000, "AIS": 1000}
Timed = Callable[[], Any]
Row = tuple[str, str, float | str]  # what was measured, the contender, and its speed or its error


def trained(device: str, holes: float = 0.0) -> tuple[VAE, Tensor]:
    """Return a VAE of the digits, trained on the CPU, and test images, both on a device."""
    digits = data.load("digits")
    torch.manual_seed(0)
    pyro.clear_param_store()
    likelihood: likelihoods.Likelihood = likelihoods.Bernoulli(2, digits.kind)
    if holes:
        likelihood = likelihoods.ObservedEntries(likelihood)
    kind = likelihood.kind
    assert isinstance(digits.train, Tensor)
    train, test = (
        part.float().masked_fill(torch.rand(part.shape) < holes, torch.nan) if holes else part
        for part in (digits.train, digits.test)
    )
    posterior = posteriors.Normal(kind.feature_shape, 2)
    vae = VAE(priors.StandardNormal(2), likelihood, posterior)
    vae.initialize(kind.stored_features(train))
    engine = training.EagerEngine(vae.model, vae.guide, objectives.ELBO(), 2e-3)
    training.fit(engine, train, kind.observe, epochs=20, progress=False)
    return vae.eval().to(device), kind.observe_once(test, 0)[:40].to(device)


def same(one: Any, other: Any, floor: float = 1e-3) -> tuple[float, float]:
    """Return the difference of two means, and four errors of it."""
    difference = abs(float(one.values.cpu().mean() - other.values.cpu().mean()))
    errors = [each.mc_se if math.isfinite(each.mc_se) else 0.02 for each in (one, other)]
    return difference, 4 * math.hypot(floor, *errors)


def check_bounds(device: str, holes: float) -> list[tuple[str, float, float]]:
    """Compare exact values, IWAE and annealing on a device with those of the CPU."""
    found = []
    results = []
    for where in ("cpu", device):
        vae, x = trained(where, holes)
        exact = bounds.quadrature(vae.model, x).cpu()
        iwae = bounds.evaluate(vae.model, vae.guide, x, 2000, seed=1).bound
        settings = bounds.Settings(temperatures=40)
        annealed = bounds.anneal(vae.model, vae.guide, x[:10], settings, seed=1)
        results.append((exact, iwae, annealed))
    what = "with holes" if holes else "whole"
    (exact, iwae, annealed), (exact_2, iwae_2, annealed_2) = results
    found.append((f"quadrature, {what}", (exact - exact_2).abs().max().item(), 1e-3))
    found.append((f"IWAE_2000, {what}", *same(iwae, iwae_2)))
    found.append((f"AIS, lower, {what}", *same(annealed.lower, annealed_2.lower, 0.01)))
    found.append((f"AIS, upper, {what}", *same(annealed.upper, annealed_2.upper, 0.01)))
    return found


def check_gradients(device: str) -> list[tuple[str, float, float]]:
    """Compare the loss and its gradients for the same codes."""
    losses, gradients = [], []
    torch.manual_seed(0)
    noise = torch.randn(40, 2)
    for where in ("cpu", device):
        vae, x = trained(where)
        q = vae.posterior(vae.likelihood.kind.features(x))
        z = q.mean + q.stddev * noise.to(where)
        loss = (q.log_prob(z) - vae.prior().log_prob(z) - vae.likelihood(z).log_prob(x)).mean()
        loss.backward()
        losses.append(loss.item())
        grads = [p.grad for p in vae.parameters() if p.grad is not None]
        gradients.append(torch.cat([each.flatten().cpu() for each in grads]))
    scale = gradients[0].abs().max().item()
    return [
        ("loss", abs(losses[0] - losses[1]), 1e-4),
        ("gradients", (gradients[0] - gradients[1]).abs().max().item() / scale, 1e-4),
    ]


def check_engines(device: str) -> list[tuple[str, float, float]]:
    """Compare five steps of the compiled engine with those of the eager one, with its noise."""
    losses = []
    for kind in (training.EagerEngine, training.CompiledEngine):
        vae, x = trained(device)
        engine = kind(vae.model, vae.guide, objectives.ELBO(), 1e-2)
        torch.manual_seed(0)
        losses.append([engine.step(x) / len(x) for _ in range(5)])
    differences = [abs(one - other) for one, other in zip(*losses, strict=True)]
    return [("five compiled steps, to eager ones", max(differences), 1e-3)]


def check_runs(device: str) -> list[tuple[str, float, float]]:
    """Train, resume, evaluate and load runs on a device: plain, with holes, with conditions."""
    import pyro_vae

    found = []
    small = ["--data", "digits", "--latent_dim", "2", "--num_samples", "50", "--num_examples", "40"]
    for name, more in {
        "plain": [],
        "holes": ["--hold_out_entries", "0.2"],
        "conditions": ["--condition", "labels", "--prior", "ConditionalNormal"],
    }.items():
        with tempfile.TemporaryDirectory() as folder:
            histories = []
            for where in ("one", "two"):
                path = Path(folder) / where
                for epochs in (4,) if where == "one" else (2, 4):
                    options = [*small, *more, "--device", device, "--epochs", str(epochs)]
                    run = Run.build(path, config.parse(options))
                    run.create() if not path.exists() else run.resume()
                    histories.append(run.fit()[-1]["train_loss"])
            found.append((f"resumed, {name}", abs(histories[0] - histories[-1]), 1e-9))
            result = evaluation.evaluate(run, evaluation.Plan(checks=50, draws=2, refine=2))
            is_finite = math.isfinite(result.importance.bound.mean)
            found.append((f"bounds are finite, {name}", float(not is_finite), 0.5))
            images = data.load("digits").test[:20]
            scores = (
                [pyro_vae.load(path, device=where).score(images, 500) for where in ("cpu", device)]
                if name == "plain"
                else []
            )
            if scores:
                gap = abs(scores[0].log_p.mean() - scores[1].log_p.mean())
                found.append(("scores of a loaded run", float(gap), 0.2))
    vae, x = trained(device, 0.3)
    found.append(("imputation is finite", float(impute(vae, x, 200).values.isnan().sum()), 0.5))
    return found


def timings(device: str) -> Iterator[Row]:
    """Yield training speeds in images per second, and seconds of evaluation."""
    for batch, draws in (*((size, 1) for size in BATCH_SIZES), (BATCH_SIZES[0], 50)):
        images = torch.randint(0, 256, (BATCHES * batch, 784), dtype=torch.uint8, device=device)
        factors = contenders.products_of_training(batch, draws)
        on_device = [(left.to(device), right.to(device)) for left, right in factors]
        made: dict[str, Callable[[], Timed]] = {
            name: partial(trainer, images, batch, draws)
            for name, trainer in {
                "pyro.infer.SVI": contenders.pyro_svi,
                "PyTorch by hand": contenders.plain_torch,
                "PyTorch by hand, torch.compile": contenders.torch_compiled,
                "pyro_vae, eager engine": contenders.ours_eager,
                "pyro_vae, compiled engine": contenders.ours,
            }.items()
        }
        made["only the matrix products"] = partial(contenders.products, on_device, BATCHES)
        for name, make in made.items():
            seconds = _seconds(make, 4, device)
            speed = seconds if isinstance(seconds, str) else len(images) / seconds
            yield f"images/s, batch {batch}, K = {draws}", name, speed
    for name, count in TIMED_IMAGES.items():
        images = torch.randint(0, 256, (count, 784), dtype=torch.uint8, device=device)
        make = {
            "IWAE_5000": partial(contenders.ours_evaluates, images, 5000),
            "AIS": partial(contenders.eager_anneals, images, 200),
        }[name]
        yield f"seconds, {name} of {count} images", "pyro_vae", _seconds(make, 1, device)


def _seconds(make: Callable[[], Timed], times: int, device: str) -> float | str:
    """Return the shortest time of several runs, or how they failed.

    The first run compiles, and counts only if it is the only one.
    """
    try:
        run, seconds = make(), []
        for _ in range(times):
            _wait(device)
            started = time.perf_counter()
            run()
            _wait(device)
            seconds.append(time.perf_counter() - started)
        return min(seconds[1:] or seconds)
    except Exception as error:  # the others are timed, whatever happens to one
        traceback.print_exc()
        return f"failed: {type(error).__name__}: {str(error)[:200]}"


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def table(rows: list[Row]) -> list[str]:
    """Return the timings in markdown, a row for each contender."""
    lines = []
    for what in dict.fromkeys(row[0] for row in rows):
        lines += ["", f"| {what} | |", "|---|---|"]
        for _, name, value in (row for row in rows if row[0] == what):
            shown = value if isinstance(value, str) else f"{value:,.1f}"
            lines.append(f"| {name} | {shown} |")
    return lines


def main() -> None:
    """Run all checks and timings, print them, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="The device that is checked.")
    parser.add_argument("--out", default=".", help="The folder of the files.")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("error: there is no GPU that torch can use", file=sys.stderr)
        sys.exit(2)
    device: str = options.device
    name = torch.cuda.get_device_name() if device != "cpu" else "the CPU"
    checks: list[tuple[str, float, float]] = []
    broken: list[str] = []
    for work in (
        lambda: check_gradients(device),
        lambda: check_bounds(device, 0.0),
        lambda: check_bounds(device, 0.3),
        lambda: check_engines(device),
        lambda: check_runs(device),
    ):
        try:
            checks += work()
        except Exception as error:  # each kind of work is checked, whatever the others do
            broken.append(f"{type(error).__name__}: {str(error)[:300]}")
            traceback.print_exc()
    for what, found, most in checks:
        print(f"{'ok' if found <= most else 'FAILED':6} {what}: {found:.3g} (at most {most:.3g})")
    rows = list(timings(device))
    lines = [
        f"# Check on {name}, torch {torch.__version__}",
        "",
        "| check | found | at most |",
        "|---|---|---|",
        *(f"| {what} | {found:.3g} | {most:.3g} |" for what, found, most in checks),
        *(f"| {text} | failed | |" for text in broken),
        "",
        "784-200-200-50, tanh, float32, data on the device. Training: the shortest of three epochs",
        f"of {BATCHES} batches. Evaluation: one run, eager, as it is by default on a GPU.",
        *table(rows),
    ]
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "device_check.md").write_text("\n".join(lines) + "\n")
    content = {"device": name, "torch": torch.__version__, "checks": checks, "broken": broken}
    (folder / "device_check.json").write_text(json.dumps({**content, "training": rows}, indent=2))
    print("\n".join(lines))
    # A value that is not a number is a failure, too.
    failed = broken or not all(found <= most for _, found, most in checks)
    failed = failed or any(isinstance(value, str) for *_, value in rows)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
