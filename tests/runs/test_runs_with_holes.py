"""Runs of data with missing values: what they report is of the values that are there."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_vae import data, kinds
from pyro_vae.bounds import Settings
from pyro_vae.errors import InputError
from pyro_vae.prediction import deviations
from pyro_vae.runs import config, evaluation, files, report
from pyro_vae.runs.comparison import compare_runs
from pyro_vae.runs.evaluation import Plan
from pyro_vae.runs.hidden_entries import hide_entries
from pyro_vae.runs.run import Run

SMALL = ["--num_samples", "20", "--num_examples", "20", "--device", "cpu", "--engine", "eager"]
SMALL += ["--latent_dim", "2", "--epochs", "1", "--batch_size", "50"]


def trained(folder: Path, *arguments: Any) -> Run:
    run = Run.build(folder, config.parse([*SMALL, *map(str, arguments)]))
    run.create()
    run.fit()
    return run


def evaluated(run: Run, **plan: Any) -> tuple[evaluation.Evaluation, dict[str, Any]]:
    found = evaluation.evaluate(run, Plan(**{"draws": 0, "checks": 0, **plan}))
    files.write_evaluation(run, found)
    return found, json.loads((run.folder / "bounds.json").read_text())


@pytest.mark.parametrize("binarization", ["static", "threshold", "dynamic"])
def test_what_is_hidden_does_not_depend_on_the_noise_of_pixels(binarization: str) -> None:
    """Pixels that stay are on as often as their grey values say, for every seed of the data."""
    for seed in range(3):
        arguments = ["--data", "digits", "--hold_out_entries", "0.5", "--data_seed", str(seed)]
        options = config.instantiate(config.parse([*arguments, "--binarization", binarization]))
        dataset, whole = hide_entries(data.load("digits", seed=seed), options)
        assert whole is not None and isinstance(dataset.train, torch.Tensor)
        binary = kinds.Incomplete(kinds.Binary([8, 8], levels=17))
        shown = binary.binarize(dataset.train, options.binarization, options.noise_seeds[0])
        generator = torch.Generator().manual_seed(options.noise_seeds[0])
        x = binary.observe(shown, generator)
        grey = dataset.train / 16
        expected = (grey > 0.5).float() if binarization == "threshold" else grey
        there = ~x.isnan()
        count = int(there.sum())
        difference = (x - expected)[there].mean().item()
        assert abs(difference) < 5 * 0.5 / math.sqrt(count)
        assert 0.49 < count / x.numel() < 0.51


def uneven(path: Path) -> Path:
    """Write grey images of which some have few missing pixels, and others many."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (300, 4, 4)).astype(np.uint8)
    share = draw.choice([0.05, 0.9], 300)[:, None, None]
    np.savez(path, images=images, missing=draw.random(images.shape) < share)
    return path


def test_bits_per_dimension_count_the_values_that_are_there(tmp_path: Path) -> None:
    path = uneven(tmp_path / "a.npz")
    likelihood = ["--likelihood", "ContinuousBernoulli"]
    run = trained(tmp_path / "one", "--data", path, *likelihood)
    other = trained(tmp_path / "two", "--data", path, *likelihood, "--seed", 1)
    found, content = evaluated(run)
    _, of_other = evaluated(other)
    values = np.array(content["examples"]["iwae"]["values"])
    observed = np.array(content["observed_values"])
    shift = -observed * math.log(256)
    expected = -values.sum() / observed.sum() / math.log(2)
    assert content["bits_per_dim"] == pytest.approx(expected, rel=1e-6)
    assert values == pytest.approx(found.importance.bound.values.numpy() + shift, abs=1e-4)
    compared = compare_runs([str(run.folder), str(other.folder)])
    assert f"{expected:.4f}" in str(compared)
    assert f"{of_other['bits_per_dim']:.4f}" in str(compared)
    ais = Settings(temperatures=5, chains=2)
    found, content = evaluated(run, method="ais", subset=3, simulated=5, ais=ais)
    whole = found.results["whole"]
    expected = -(whole.mean + shift.mean()) / observed.mean() / math.log(2)  # type: ignore[attr-defined]
    assert content["bits_per_dim"] == pytest.approx(expected, rel=1e-6)
    assert "drawn from the model, without missing values" in report.report(run, found)


def test_a_column_with_few_known_values_does_not_end_an_evaluation(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    table = draw.normal(size=(400, 3))
    table[6:, 2] = np.nan
    table[draw.random((400, 3)) < 0.05] = np.nan
    np.save(tmp_path / "a.npy", table)
    for seed in range(2):
        run = trained(tmp_path / f"{seed}", "--data", tmp_path / "a.npy", "--data_seed", seed)
        found, content = evaluated(run, checks=50)
        assert found.checks is not None and "2" not in found.checks.by_statistic
        assert set(content["checks"]) == {"0", "1"}
        assert "the observed values are compared with all values" in report.report(run, found)


def test_a_share_that_hides_nothing_is_not_scored(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(200, 3)))
    run = trained(tmp_path / "run", "--data", tmp_path / "a.npy", "--hold_out_entries", 1e-6)
    found, _ = evaluated(run, imputations=50)
    assert "imputation" not in found.diagnostics


def test_values_that_depend_on_each_other_are_refused_before_they_are_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="makes values depend on each other") as caught:
        trained(
            tmp_path / "run",
            *("--data", "digits", "--hold_out_entries", 0.1, "--likelihood", "PixelCNN"),
        )
    assert "Trace" not in str(caught.value)


def test_deviations_of_few_values_are_not_known() -> None:
    x = torch.tensor([[5.0, 1.0, torch.nan], [torch.nan, 2.0, torch.nan]])
    found = deviations(x, kinds.Incomplete(kinds.Real([3])))
    assert found[0].isnan() and found[2].isnan()
    assert found[1].item() == pytest.approx(math.sqrt(0.5))


def test_large_counts_keep_their_digits_when_some_are_hidden(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 100, (200, 3))
    counts[::50, 0] = 2**24 + 1
    np.save(tmp_path / "a.npy", counts.astype(np.int32))
    arguments = ["--data", tmp_path / "a.npy", "--columns.all", "counts"]
    for more in ((), ("--hold_out_entries", 0.1)):
        with pytest.raises(InputError, match="has the value"):
            trained(tmp_path / "run", *arguments, *more)
