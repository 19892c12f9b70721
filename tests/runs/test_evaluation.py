"""Evaluations of a run: what is measured, reported, written, and compared."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_vae import InputError, bounds
from pyro_vae.bounds import Estimate
from pyro_vae.runs import config, evaluation, files
from pyro_vae.runs.comparison import compare_runs
from pyro_vae.runs.evaluation import Plan
from pyro_vae.runs.report import report
from pyro_vae.runs.run import Run

WIDTHS = ["--likelihood.decoder.widths=[8]", "--posterior.encoder.widths=[8]"]


@dataclass(frozen=True)
class Telescoping:
    """An estimator that reports and comparisons have never heard of."""

    shift: float
    levels: int
    count: int

    @property
    def bound(self) -> Estimate:
        values = torch.linspace(-40, -30, self.count, dtype=torch.float64) + self.shift
        return Estimate(values, torch.full_like(values, 0.01))

    @property
    def conditions(self) -> dict[str, Any]:
        return {"levels": self.levels}

    @property
    def verdict(self) -> str:
        return "The telescope is in focus."

    def rows(self) -> list[tuple[str, Estimate]]:
        return [("telescoping, lower", self.bound)]

    def to_dict(self) -> dict[str, Any]:
        return {"levels": self.levels, "lower": self.bound.to_dict()}


def make(folder: Path, *options: str) -> Run:
    arguments = ["--num_samples", "5", "--num_examples", "20", "--device", "cpu", *WIDTHS, *options]
    run = Run.build(folder, config.parse(arguments))
    run.create()
    run.vae.eval()
    return run


def test_a_new_estimator_shows_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the report, in `bounds.json` and in comparisons, and nothing else has to know it."""
    estimate = evaluation._estimate
    parts: dict[str, evaluation.Evaluation] = {}
    for name, shift in (("first", 0.0), ("second", 0.5)):
        run = make(tmp_path / name)
        monkeypatch.setattr(
            evaluation,
            "_estimate",
            lambda *args, shift=shift: {
                **estimate(*args),
                "telescoping": Telescoping(shift, levels=3, count=8),
            },
        )
        parts[name] = result = evaluation.evaluate(run)
        files.write_evaluation(run, result)
        text = report(run, result)
        assert "TELESCOPING of 8 of these examples:" in text
        assert "telescoping, lower" in text and "The telescope is in focus." in text
        assert "TELESCOPING, all exa" in text
        assert "I(x; z) is between" in text and "± is one standard error over examples." in text
        content = json.loads((tmp_path / name / "bounds.json").read_text())
        assert content["telescoping"]["lower"]["mean"] == -35 + shift
        assert content["conditions"]["telescoping"] == {"levels": 3}
        assert len(content["examples"]["telescoping"]["values"]) == 8
        whole = bounds.Corrected(
            result.importance.iwae[5], result.comparable["telescoping"], torch.arange(8)
        )
        assert content["whole"]["mean"] == whole.mean
        assert content["bits_per_dim"] == pytest.approx(-whole.mean / 64 / 0.6931471805599453)
    compared = compare_runs([str(tmp_path / "first"), str(tmp_path / "second")])
    assert compared.bound == "TELESCOPING"
    assert compared.comparison.differences["second"].mean == pytest.approx(0.5)
    assert list(compared.others) == ["IWAE_5"]

    other = json.loads((tmp_path / "second/bounds.json").read_text())
    other["conditions"]["telescoping"] = {"levels": 4}
    (tmp_path / "second/bounds.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="TELESCOPING depends on levels"):
        compare_runs([str(tmp_path / "first"), str(tmp_path / "second")])
    del other["examples"]["telescoping"]
    (tmp_path / "second/bounds.json").write_text(json.dumps(other))
    assert compare_runs([str(tmp_path / "first"), str(tmp_path / "second")]).bound == "IWAE_5"


def test_old_files_are_compared(tmp_path: Path) -> None:
    """Without `conditions` and `bits_per_dim`, as older code wrote them."""
    examples = {"values": [-1.0, -2.0, -3.0], "mc_variance": [0.1, None, 0.1]}
    settings = {"temperatures": 5, "chains": 4, "leapfrog": 4, "start": "prior"}
    for name, temperatures in (("a", 5), ("b", 5), ("c", 6)):
        content = {
            "base_measure": "256 levels",
            "dims": 4,
            "num_samples": 7,
            "ais": {**settings, "schedule": "linear", "temperatures": temperatures},
            "examples": {"sha256": "0", "iwae": examples, "ais": examples},
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / "bounds.json").write_text(json.dumps(content))
    a, b, c = (str(tmp_path / name) for name in "abc")
    compared = compare_runs([a, b])
    assert compared.bound == "AIS" and list(compared.others) == ["IWAE_7"]
    assert "AIS of 3 test examples" in str(compared)
    assert "IWAE_7 of 3 test examples" in str(compared)
    assert str(compared).count("bits/dim") == 2  # levels are counted
    with pytest.raises(InputError, match=r"AIS depends on temperatures, .* \(5 and 6\)"):
        compare_runs([a, c])
    del content["examples"]["ais"], content["ais"]
    (tmp_path / "c" / "bounds.json").write_text(json.dumps(content))
    assert compare_runs([a, c]).bound == "IWAE_7"


def test_figures_that_do_not_exist_are_removed(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "--latent_dim", "2")
    history = [{"epoch": 1, "train_loss": 3.0, "validation_bound": -3.0}]
    files.write_training(run, history)
    drawn = {path.stem for path in (run.folder / "figures").iterdir()}
    of_pictures = [figure for figure in files.FIGURES if figure.of != "tables"]
    of_training = {figure.name for figure in of_pictures if figure.after == "training"}
    assert drawn == of_training - {"classes"}  # which is for conditions
    run.options.latent_dim = 3
    files.write_training(run, history)
    assert not (run.folder / "figures/manifold.png").exists()


@pytest.mark.parametrize(
    ("values", "parameter"),
    [
        ({"refine": -1}, "refine"),
        ({"checks": 1}, "checks"),
        ({"subset": 1, "method": "ais"}, "subset"),
        ({"draws": -3}, "draws"),
    ],
)
def test_plans_that_make_no_sense(values: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InputError) as error:
        Plan(**values)
    assert error.value.parameter == parameter
