"""Evaluations and figures of runs whose examples carry their conditions."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_vae import VAE, kinds, likelihoods, networks, posteriors, priors
from pyro_vae.bounds import Settings
from pyro_vae.data import Dataset
from pyro_vae.runs import config, evaluation, files
from pyro_vae.runs import run as runs
from pyro_vae.runs.evaluation import Plan
from pyro_vae.runs.run import Run

DIGIT = kinds.Categories([1], ["digit"], [[str(digit) for digit in range(10)]])
ROWS = kinds.Real([3], [*"abc"])
PLAN = Plan(
    method="ais", ais=Settings(temperatures=4, chains=2), simulated=5, refine=2, checks=30, draws=2
)


def build(folder: Path, monkeypatch: pytest.MonkeyPatch, of: str) -> Run:
    """Make a run of digits, or of rows, given the digit; options for this do not exist yet."""
    load = runs.load_and_split

    def with_conditions(options: Any) -> Dataset:
        dataset = load(options)
        parts: dict[str, Tensor] = {}
        for name in ("train", "validation", "test"):
            x, labels = getattr(dataset, name), getattr(dataset, f"{name}_labels")
            assert labels is not None
            if of == "rows":
                x = x.float().flatten(1)[:, [20, 27, 36]]
            kind = kinds.Conditional(ROWS if of == "rows" else dataset.kind, DIGIT)
            parts[name] = kind.packed(x, labels[:, None])
        return replace(dataset, kind=kind, **parts)

    def make_vae(options: Any, dataset: Dataset) -> VAE:
        assert isinstance(dataset.kind, kinds.Conditional)
        size = 2 + dataset.kind.given.feature_shape[0]
        whole = likelihoods.Gaussian if of == "rows" else likelihoods.Bernoulli
        likelihood = likelihoods.Given(
            whole(size, dataset.kind.of, networks.Linear), dataset.kind.given
        )
        likelihood.kind.check(dataset.train)
        likelihood.fit_kind(dataset.train)
        posterior = posteriors.Normal(likelihood.kind.feature_shape, 2, networks.Linear)
        return VAE(priors.ConditionalNormal(2, networks.Linear), likelihood, posterior)

    monkeypatch.setattr(runs, "load_and_split", with_conditions)
    monkeypatch.setattr(runs, "_make_vae", make_vae)
    arguments = ["--num_samples", "5", "--num_examples", "20", "--device", "cpu"]
    options = ["--data", "digits", "--latent_dim", "2", "--epochs", "1"]
    options += ["--engine", "eager", "--likelihood", "Bernoulli"]
    made = Run.build(folder, config.parse([*arguments, *options]))
    made.create()
    return made


@pytest.mark.parametrize("of", ["pictures", "rows"])
def test_a_run_with_conditions_is_evaluated_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    run = build(tmp_path / "run", monkeypatch, of)
    history = run.fit()
    files.write_training(run, history)
    found = evaluation.evaluate(run, PLAN)
    files.write_evaluation(run, found)
    content = json.loads((run.folder / "bounds.json").read_text())
    assert content["base_measure"].endswith(", given digit")
    assert content["dims"] == (3 if of == "rows" else 64)
    assert content["iwae"]["5"]["mean"] is not None
    assert {"ais", "simulated", "refined"} <= set(content)
    assert found.checks is not None
    checks = found.checks.by_statistic
    if of == "rows":
        assert set(checks) == {*"abc", "digit"}
        assert checks["digit"].p_value > 0.01  # they are those of test examples
    names = {path.stem for path in (run.folder / "figures").iterdir()}
    pictures = {"samples", "reconstructions", "interpolation", "manifold", "traversals"}
    assert {"bounds", "units"} <= names
    assert (pictures if of == "pictures" else {"rows", "columns", "pairs"}) <= names
    drawn = evaluation._draw(run, 40)
    labels = set(run.test[:, -1].tolist())
    assert drawn.shape == (40, *run.kind.shape) and set(drawn[:, -1].tolist()) <= labels
    assert len(set(drawn[:, -1].tolist())) > 3
    assert torch.isfinite(drawn).all() and math.isfinite(found.importance.bound.mean)
