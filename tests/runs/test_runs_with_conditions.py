"""Runs whose examples carry their conditions: trained, evaluated, drawn, and classified."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_vae import likelihoods, priors
from pyro_vae.bounds import Settings
from pyro_vae.errors import InputError
from pyro_vae.kinds import Conditional
from pyro_vae.prediction import Classification, Scores
from pyro_vae.runs import config, evaluation, files, report
from pyro_vae.runs.evaluation import Plan
from pyro_vae.runs.model_diagnostics import draw_examples
from pyro_vae.runs.run import Run

PLAN = Plan(
    method="ais",
    ais=Settings(temperatures=4, chains=2),
    simulated=5,
    refine=2,
    checks=30,
    draws=2,
    classify=5,
    imputations=40,
)
SMALL = ["--num_samples", "5", "--num_examples", "20", "--device", "cpu", "--engine", "eager"]
SMALL += ["--latent_dim", "2", "--epochs", "1"]


def build(folder: Path, *arguments: str) -> Run:
    run = Run.build(folder, config.parse([*SMALL, *arguments]))
    run.create()
    return run


def write_table(path: Path) -> Path:
    draw = np.random.default_rng(0)
    rows = ["size,weight,visits,city,batch"]
    for _ in range(300):
        city, batch = draw.choice(["Rome", "Oslo"]), draw.normal()
        size = draw.normal() + (3 if city == "Rome" else 0) + batch
        weight = "" if draw.random() < 0.1 else f"{2 * size + draw.normal():.3f}"
        rows.append(f"{size:.3f},{weight},{draw.poisson(300)},{city},{batch:.3f}")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_images_given_their_labels(tmp_path: Path) -> None:
    prior = ["--prior", "ConditionalNormal"]
    run = build(tmp_path / "run", "--data", "digits", "--condition", "labels", *prior)
    assert isinstance(run.kind, Conditional) and isinstance(run.vae.prior, priors.ConditionalNormal)
    assert run.namespace.likelihood.class_path == "pyro_vae.likelihoods.Bernoulli"
    assert "modelled as binary, given label; the likelihood is Bernoulli" in str(run)
    history = run.fit()
    files.write_training(run, history)
    found = evaluation.evaluate(run, PLAN)
    files.write_evaluation(run, found)
    content = json.loads((run.folder / "bounds.json").read_text())
    assert content["base_measure"] == "binary pixels, given label" and content["dims"] == 64
    assert {"ais", "simulated", "refined"} <= set(content)
    assert content["bits_per_dim"] == pytest.approx(
        -found.comparable["ais"].mean / 64 / math.log(2), rel=0.05
    )
    classes = found.diagnostics["classes"]
    assert isinstance(classes, Classification) and len(classes.truth) == 20
    measured = json.loads((run.folder / "diagnostics.json").read_text())
    assert measured["classes"]["num_examples"] == 20
    assert "Bayes' rule classifies" in report.report(run, found)
    names = {path.stem for path in (run.folder / "figures").iterdir()}
    pictures = {"samples", "classes", "reconstructions", "interpolation", "manifold", "traversals"}
    assert {"bounds", "units", *pictures} <= names
    drawn = draw_examples(run, 40)
    assert drawn.shape == (40, 65) and len(set(drawn[:, -1].tolist())) > 3
    opened = Run.open(run.folder)
    again = evaluation.evaluate(opened, Plan(checks=0, draws=0, classify=0))
    assert again.importance.bound.mean == pytest.approx(found.importance.bound.mean)


def test_columns_given_others_with_holes(tmp_path: Path) -> None:
    table = str(write_table(tmp_path / "a.csv"))
    hidden = ["--hold_out_entries", "0.2", "--batch_size", "50"]
    run = build(tmp_path / "run", "--data", table, "--condition", "city, batch", *hidden)
    assert isinstance(run.kind, Conditional)
    assert run.kind.names == ("size", "weight", "visits", "city", "batch") and run.dims == 3
    assert isinstance(run.vae.likelihood, likelihoods.Given)
    assert isinstance(run.vae.likelihood.whole, likelihoods.ObservedEntries)
    assert run.kind.given.feature_shape[0] == 3  # two cities, and a real number
    assert isinstance(run.train, torch.Tensor)
    assert not run.train[:, 3:].isnan().any() and run.train[:, :3].isnan().any()
    assert run.hidden is not None and run.hidden[:, 3:].isnan().all()
    assert (~run.hidden[:, :3].isnan()).sum() > 3
    history = run.fit()
    files.write_training(run, history)
    found = evaluation.evaluate(run, PLAN)
    files.write_evaluation(run, found)
    scores = found.diagnostics["imputation"]
    assert isinstance(scores, Scores) and "classes" not in found.diagnostics
    assert found.checks is not None
    assert set(found.checks.by_statistic) == {"size", "weight", "visits"}  # y is not drawn
    content = json.loads((run.folder / "bounds.json").read_text())
    assert content["base_measure"].endswith("of the observed values, given city, batch")
    assert max(content["observed_values"]) <= 3
    assert "of 3 values of an example" in report.report(run, found)
    names = {path.stem for path in (run.folder / "figures").iterdir()}
    assert {"rows", "columns", "pairs", "bounds", "units"} <= names


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("town", "no column town to be a condition: their columns are size"),
        ("weight", "the condition weight has missing values"),
        ("size,weight,visits,city,batch", "all columns are conditions"),
        ("labels", "the data have no labels to be a condition"),
        ("city, city", "a condition is named twice"),
    ],
)
def test_conditions_that_cannot_be_used(tmp_path: Path, condition: str, said: str) -> None:
    table = str(write_table(tmp_path / "a.csv"))
    with pytest.raises(InputError, match=said) as caught:
        build(tmp_path / "run", "--data", table, "--condition", condition)
    assert caught.value.parameter == "condition"
    assert not (tmp_path / "run").exists()
