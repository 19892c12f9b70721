"""RESULTS.md says what the records say, and its recipes train."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT

from pyro_vae.bounds import evaluate
from pyro_vae.runs import Run
from pyro_vae.runs.commands import train


@pytest.fixture
def record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", ROOT / "scripts/record.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_records(record: ModuleType) -> None:
    text = (ROOT / "RESULTS.md").read_text()
    for title, rows in record.TABLES.items():
        assert "\n".join(record.table(title, rows)) in text
    assert "\n".join(record.orderings()) in text
    named = {row.name for rows in record.TABLES.values() for row in rows}
    assert {path.stem for path in record.RECORDS.glob("*.json")} <= named
    recipes = {path.stem for path in (ROOT / "scripts/recipes/records").glob("*.yaml")}
    of_recipes = {name for name in named if not name.startswith("same_time")}
    assert recipes == {re.sub("_[139]0$", "", name) for name in of_recipes}


def test_a_recipe_trains_and_is_recorded(
    record: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = "burda_two_iwae_5"
    monkeypatch.setattr(record, "RECORDS", tmp_path / "records")
    counts = {"DRAWS": 20, "SUBSET": 20, "SUBSET_DRAWS": 10, "CHEAP_DRAWS": 5}
    for name, value in counts.items():
        monkeypatch.setattr(record, name, value)
    run = tmp_path / "run"
    config = ROOT / f"scripts/recipes/records/{recipe}.yaml"
    small = "--data digits --engine eager --precision float32 --epochs 4"
    small += " --validate_every 2 --num_samples 7 --num_examples 20 --budget null"
    train(["--config", str(config), *small.split(), "--out", str(run)])
    record.measure(run, recipe, num_annealed=3)
    found = json.loads((tmp_path / "records" / f"{recipe}.json").read_text())
    assert [epoch for epoch, _ in found["curve"]] == [1, 2, 3, 4]
    assert found["curve"][-1][1] < found["curve"][0][1]
    opened = Run.open(run)
    torch.manual_seed(opened.options.data_seed)
    programs = opened.vae.model, opened.vae.guide
    direct = evaluate(*programs, opened.mixed[:20], 20, ladder=(), seed=opened.options.seed)
    assert found["values"] == pytest.approx(direct.bound.values.tolist(), abs=1e-3)
    assert found["draws"] == 20
    bounds = found["bounds"]
    assert bounds["test"]["examples"] == 179 and bounds["ais_lower"]["examples"] == 3
    assert bounds["elbo"]["mean"] < bounds["test"]["mean"]
    line = record.table("", (record.Row(recipe, "a model", 1.5),))[-2]
    assert f"**{-bounds['test']['mean']:.2f}**" in line and "| 1.50 |" in line
    assert len(line.split("|")) == len(record.table("", ())[2].split("|"))
    record.compare(run, recipe)
    *_, last = capsys.readouterr().out.splitlines()
    assert last.split()[0] == "4" and last.endswith("+0.00 (+0.0%)")
