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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_vae import VAE, bounds, data, likelihoods, objectives, posteriors, priors, training
from pyro_vae.prediction import impute
from pyro_vae.runs import config, evaluation
from pyro_vae.runs.run import Run

SIZES = (100, 512, 4096)
WIDTHS = [200, 200]


def network(inputs: Any, outputs: Any) -> Any:
    """Return the network of the timings, 200-200 with tanh."""
    from pyro_vae.networks import MLP

    return MLP(inputs, outputs, widths=WIDTHS, activation="Tanh")


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


class ByHand(nn.Module):
    """The same VAE, written in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 100))
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 784))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the negative ELBO, summed over a batch."""
        mean, log_scale = self.encoder(x).chunk(2, -1)
        z = mean + log_scale.exp() * torch.randn_like(mean)
        cross = nn.functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = 0.5 * (mean.square() + (2 * log_scale).exp() - 2 * log_scale - 1).sum()
        return cross + kl


def timings(device: str) -> list[dict[str, Any]]:
    """Return examples per second of training, by batch size."""
    rows = []
    for size in SIZES:
        images = torch.rand(20 * size, 784, device=device)
        batches = images.split(size)

        def vae(size: int = size) -> VAE:
            torch.manual_seed(0)
            pyro.clear_param_store()
            made = VAE(
                priors.StandardNormal(50),
                likelihoods.Bernoulli(50, [784], network),
                posteriors.Normal([784], 50, network),
            )
            return made.to(device)

        one = vae()
        svi = pyro.infer.SVI(
            one.model, one.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()
        )
        hand = ByHand().to(device)
        adam = torch.optim.Adam(hand.parameters(), 1e-3, fused=device != "cpu")
        # Compiling for a CPU takes minutes, and is not what this is for.
        compiled = hand if device == "cpu" else torch.compile(hand)

        def step_by_hand(x: Tensor, module: Any = hand, adam: Any = adam) -> None:
            adam.zero_grad()
            module(torch.bernoulli(x)).backward()
            adam.step()

        def with_svi(x: Tensor, svi: Any = svi) -> None:
            svi.step(torch.bernoulli(x))

        def with_compile(x: Tensor, module: Any = compiled) -> None:
            step_by_hand(x, module)

        contenders: dict[str, Callable[[Tensor], Any]] = {
            "pyro.infer.SVI": with_svi,
            "PyTorch by hand": step_by_hand,
            "PyTorch, torch.compile": with_compile,
        }
        row: dict[str, Any] = {"batch": size}
        for name, step in contenders.items():
            row[name] = _rate(step, batches, size, device)
        two = vae()
        engine = training.EagerEngine(two.model, two.guide, objectives.ELBO(), 1e-3)

        def with_engine(x: Tensor, engine: Any = engine) -> None:
            engine.step(x, torch.bernoulli)

        row["pyro_vae, eager engine"] = _rate(with_engine, batches, size, device)
        rows.append(row)
    return rows


def _rate(step: Callable[[Tensor], Any], batches: Any, size: int, device: str) -> float:
    for batch in batches[:3]:
        step(batch)
    best = 0.0
    for _ in range(3):
        if device != "cpu":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for batch in batches:
            step(batch)
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, size * len(batches) / (time.perf_counter() - started))
    return best


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
        lambda: check_runs(device),
    ):
        try:
            checks += work()
        except Exception as error:  # each kind of work is checked, whatever the others do
            broken.append(f"{type(error).__name__}: {str(error)[:300]}")
            traceback.print_exc()
    for what, found, most in checks:
        print(f"{'ok' if found <= most else 'FAILED':6} {what}: {found:.3g} (at most {most:.3g})")
    rows = timings(device)
    lines = [
        f"# Check on {name}, torch {torch.__version__}",
        "",
        "| check | difference | at most |",
        "|---|---|---|",
        *(f"| {what} | {found:.3g} | {most:.3g} |" for what, found, most in checks),
        *(f"| {text} | failed | |" for text in broken),
        "",
        "Training, examples per second (784-200-200-50, tanh, float32; the best of three passes",
        "over 20 batches that are on the device):",
        "",
        "| batch | " + " | ".join(list(rows[0])[1:]) + " |",
        "|" + "---|" * len(rows[0]),
        *(
            f"| {row['batch']} | " + " | ".join(f"{v:,.0f}" for v in list(row.values())[1:]) + " |"
            for row in rows
        ),
    ]
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "device_check.md").write_text("\n".join(lines) + "\n")
    content = {"device": name, "torch": torch.__version__, "checks": checks, "broken": broken}
    (folder / "device_check.json").write_text(json.dumps({**content, "training": rows}, indent=2))
    print("\n".join(lines))
    failed = broken or any(found > most for _, found, most in checks)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
