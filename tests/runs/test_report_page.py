"""The page of a run: its numbers, its figures, and files that are odd or missing."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pandas as pd
import pytest
from conftest import ROOT

from pyro_vae import InputError
from pyro_vae.diagnostics import predictive
from pyro_vae.runs import commands, config, files
from pyro_vae.runs.draw_figure import draw_figure
from pyro_vae.runs.reporting import (
    answer,
    captions,
    next_steps,
    rounding,
    run_page,
    run_tables,
    terms,
)
from pyro_vae.runs.reporting.captions import CAPTIONS
from pyro_vae.runs.reporting.page_parts import Cell
from pyro_vae.runs.reporting.run_files import RunFiles

SMALL = (
    "--epochs=2 --num_samples=60 --num_examples=30 --diagnose_every=0 --device=cpu --latent_dim=2 "
    "--likelihood.decoder.widths=[8] --posterior.encoder.widths=[8]"
).split()
HOSTILE = '<script>alert("1")</script>'
MINUS, SPACE = rounding.MINUS, rounding.SPACE


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, full_style: None) -> Path:
    """A run of digits, whose page was written by training."""
    folder = tmp_path_factory.mktemp("pages") / "digits"
    commands.train([*SMALL, f"--out={folder}"])
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, full_style: None) -> Path:
    """A run of a table with hostile names and missing values, evaluated with predictive checks."""
    folder = tmp_path_factory.mktemp("pages")
    draw = np.random.default_rng(0)
    columns = {
        HOSTILE: draw.normal(size=200),
        "it's \"& <b>": draw.choice([f"<img src=x onerror=alert(2)> {a}&amp;" for a in "ab"], 200),
        "n": draw.poisson(3, 200).astype(float),
    }
    frame = pd.DataFrame(columns).mask(draw.random((200, 3)) < 0.1)
    frame.to_csv(folder / "table.csv", index=False)
    small = [*SMALL[:-2], f"--data={folder / 'table.csv'}"]
    commands.train([*small, f"--out={folder / 'run'}"])
    commands.evaluate([str(folder / "run"), "--checks=50", "--draws=0"])
    return folder / "run"


def read(folder: Path, name: str = "bounds") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


def test_the_page_has_the_numbers_of_bounds_json(digits: Path) -> None:
    page = pages.check((digits / run_page.NAME).read_text())
    bounds = read(digits)
    for row, summary in (
        ("ELBO", bounds["elbo"]["60"]),
        ("IWAE_60", bounds["iwae"]["60"]),
        ("IWAE_60 - ELBO", bounds["gap"]["60"]),
    ):
        mean, se, interval, mc_se = page.row(row)[1:]
        unit = 10.0 ** -len(se.partition(".")[2])
        shown = float(mean.replace(MINUS, "-"))
        assert len(se.lstrip("0.").replace(".", "")) == 2
        assert abs(shown - summary["mean"]) <= 0.5001 * unit
        assert abs(float(se) - summary["se"]) <= 0.5001 * unit
        low, high = (float(end.replace(MINUS, "-")) for end in interval.split(" to "))
        assert abs(low - summary["ci95"][0]) <= 0.5001 * unit
        assert abs(high - summary["ci95"][1]) <= 0.5001 * unit and low < high
        assert mc_se == rounding.error(summary["mc_se"])
    best = bounds["iwae"]["60"]
    assert f"{rounding.value(best['mean'], best['se'])} nats" in page.text
    lowest = bounds["extremes"]["lowest"]
    assert [each["log_p"] for each in lowest] == sorted(each["log_p"] for each in lowest)
    assert page.row(str(lowest[0]["example"]))[1] == rounding.value(lowest[0]["log_p"], 0.1)
    smallest = min(bounds["examples"]["iwae"]["values"])
    assert lowest[0]["log_p"] == pytest.approx(smallest, abs=1e-4)
    loosest = [each["gap"] for each in bounds["extremes"]["loosest"]]
    assert loosest == sorted(loosest, reverse=True)


def test_all_figures_of_a_run_are_shown(digits: Path, table: Path) -> None:
    for folder in (digits, table):
        page = pages.check((folder / run_page.NAME).read_text())
        assert len(page.all("img")) == len(list((folder / "figures").glob("*.png"))) > 5
    assert {figure.name for figure in files.FIGURES} == set(CAPTIONS)
    assert (digits / "figures/extremes.png").exists()
    assert not (table / "figures/extremes.png").exists()


def test_hostile_names_are_text(table: Path) -> None:
    text = (table / run_page.NAME).read_text()
    page = pages.check(text)
    assert HOSTILE not in text and "<img src=x" not in text and "&amp;amp;" in text
    assert HOSTILE in page.text and "<img src=x onerror=alert(2)>" in page.text
    head = next(row for row in page.rows if row[0] == "test example")
    assert head[5:] == [HOSTILE, "it's \"& <b>", "n"]
    assert page.row(HOSTILE)[0] == HOSTILE  # among the checks


def test_dollar_signs_in_figures_are_text(tmp_path: Path) -> None:
    """Matplotlib takes what is between two of them for mathematics, and may refuse it."""

    def draw(ax: Any) -> None:
        ax.set_title("cost in $\\frac$")
        ax.table([["$x^"]], colLabels=["$_$"])

    draw_figure(tmp_path / "a.png", (2, 2), draw)
    assert (tmp_path / "a.png").exists()


def test_the_page_is_made_again_from_the_files_alone(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits, tmp_path / "digits")
    text = (digits / run_page.NAME).read_text()
    for name in ("best.pt", "checkpoint.pt", "data.pt", "scores.pt", run_page.NAME):
        (tmp_path / "digits" / name).unlink()
    commands.report([str(tmp_path / "digits")])
    made = tmp_path / "digits" / run_page.NAME
    assert capsys.readouterr().out == f"{made}\n"
    made_again, expected = (  # where commands are broken into lines depends on the folder's name
        each.replace(" \\\n  ", " ") for each in (made.read_text(), text)
    )
    assert made_again == expected.replace(str(digits.parent), str(tmp_path))


@pytest.mark.parametrize("name", ["bounds.json", "diagnostics.json", "metrics.csv", "figures"])
def test_a_run_without_some_files_has_a_page(digits: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(digits, folder, ignore=shutil.ignore_patterns(name))
    page = pages.check(run_page.write(folder).read_text())
    assert ("has not been evaluated" in page.text) == (name == "bounds.json")


def test_an_old_run_has_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(ROOT / "tests/fixtures/old_run", folder)
    page = pages.check(run_page.write(folder).read_text())
    assert f"pyro-vae evaluate {folder}" in page.text.replace(" \\\n ", "")
    assert page.row("2")[0] == "2"  # its last epoch


def test_files_that_are_damaged(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not the folder of a run"):
        run_page.write(tmp_path)
    folder = tmp_path / "run"
    for text, sentence in (("{", "is damaged"), ('{"num_samples": 3}', "cannot be read")):
        shutil.copytree(digits, folder, dirs_exist_ok=True)
        (folder / "bounds.json").write_text(text)
        with pytest.raises(InputError, match=sentence):
            run_page.write(folder)
    shutil.copytree(digits, folder, dirs_exist_ok=True)
    bounds = read(digits)
    bounds["iwae"]["60"]["mean"] = 10**400  # no float holds it
    (folder / "bounds.json").write_text(json.dumps(bounds))
    with pytest.raises(InputError, match="cannot be read"):
        run_page.write(folder)
    shutil.copytree(digits, folder, dirs_exist_ok=True)
    (folder / "metrics.csv").write_text(f"epoch\n{'1' * 200_000}\n")
    with pytest.raises(InputError, match=r"metrics.csv is damaged"):
        run_page.write(folder)
    shutil.copytree(digits, folder, dirs_exist_ok=True)
    (folder / "figures/samples.png").write_text("no picture")
    page = pages.check(run_page.write(folder).read_text())
    assert len(page.all("img")) == len(list((folder / "figures").glob("*.png"))) - 1


def code(below: float, above: float, rate: float, verdict: str = "healthy") -> dict[str, Any]:
    numbers = {"mutual_information": below, "mutual_information_above": above, "rate": rate}
    return {
        **{name: {"mean": number, "se": 0.1} for name, number in numbers.items()},
        "marginal_kl": {"mean": 0.1, "se": 0.1},
        "gain": {"mean": -0.01, "se": 0.02},
        "verdict": verdict,
        "active_units": 2,
        "units": 8,
    }


def test_noise_makes_no_negative_information_and_no_inverted_interval() -> None:
    say = answer.information
    assert say(code(-0.01, -0.03, 0.2)) == f"about 0.00{SPACE}±{SPACE}0.10"
    assert say(code(1.05, 1.03, 2.0)) == f"about 1.04{SPACE}±{SPACE}0.10"
    assert say(code(1.0, 3.0, 2.0)) == "1.00 to 2.00"
    coarse = code(3.6392, 13.107, 14.0)
    coarse["mutual_information"]["se"] = 0.0012  # both ends have the decimals of the coarser error
    assert say(coarse) == "3.64 to 13.11"
    found = answer.code(code(0.0, 0.0, 0.0, "collapsed"))
    assert found.status == "bad" and "active" not in " ".join(found.sentences)
    assert f"by 0.000{SPACE}±{SPACE}0.020 nats" in found.sentences[1]


@pytest.mark.parametrize(("above", "rate", "shown"), [(5.46, 4.93, "4.93"), (4.6, 4.93, "4.60")])
def test_the_tighter_upper_bound_is_shown(above: float, rate: float, shown: str) -> None:
    """The KL from q(z|x) to the prior bounds the information, too."""
    found = code(4.04, above, rate)
    rows = {str(name): cell for name, cell in run_tables.about_code(found).rows}
    cell = rows["I(x; z) at most, nats"]
    assert isinstance(cell, Cell) and cell.text == f"{shown}{SPACE}±{SPACE}0.10"
    assert answer.information(found) == f"4.04 to {shown}"
    found["marginal_kl"]["mean"] = None  # a prior that depends on conditions: the KL is no bound
    assert answer.information(found) == f"4.04 to {above:.2f}"


def test_a_gap_below_zero_is_shown_as_it_is(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(digits, folder)
    bounds = read(digits)
    gap = {"mean": -0.0412, "se": 0.0531, "ci95": [-0.1523, 0.0699], "mc_se": None}
    bounds["simulated"] = {"num_examples": 20, "gap": gap}
    (folder / "bounds.json").write_text(json.dumps(bounds))
    page = pages.check(run_page.write(folder).read_text())
    row = [cell.replace(MINUS, "-") for cell in page.row("gap")]
    assert row == ["gap", "-0.041", "0.053", "-0.152 to 0.070", "unknown"]


def test_captions_say_what_is_drawn(digits: Path) -> None:
    run = RunFiles.read(digits)
    (units,) = captions.shown(run, "code")
    assert units.caption.startswith("The KL of each unit") and "KL" in units.alt
    run.diagnostics["sites"]["z"]["kl"] = None
    (units,) = captions.shown(run, "code")
    assert units.caption.startswith("The share of the variance") and "KL" not in units.alt
    for objective, said in (
        ({"warmup": 50.0, "warmup_share": None}, "In the first 50 epochs the weight of the KL"),
        ({"warmup": 1.0}, "In the first epoch the weight of the KL"),
        ({"warmup": None, "warmup_share": 0.25}, f"In the first 25{SPACE}% of training the weight"),
        ({"warmup": 0.0, "warmup_share": 0.0}, None),
        ({"num_particles": 5}, None),
    ):
        run.options["objective"] = {
            "class_path": "pyro_vae.objectives.ELBO",
            "init_args": objective,
        }
        (training,) = captions.shown(run, "training")
        assert ("weight of the KL" in training.caption) == (said is not None)
        assert said is None or said in training.caption


def test_terms_are_those_that_the_page_uses(digits: Path, table: Path) -> None:
    for folder, has_bits in ((digits, True), (table, False)):
        bounds = read(folder)
        names = [name for name, _ in terms.terms_of(bounds)]
        assert "JVI_K" in names and "AIS" not in names
        assert ("bits per dimension" in names) == has_bits
        names = [name for name, _ in terms.terms_of({**bounds, "ais": {}, "num_samples": 1})]
        assert "AIS" in names and "JVI_K" not in names
    assert "AIS" not in [name for name, _ in terms.terms_of({})]


def test_the_limit_of_k_hat_is_explained(digits: Path) -> None:
    bounds = read(digits)
    bounds["khat"] |= {"share_above": 0.3, "median": 0.2}
    for limit, said in ((0.41, "above 0.41, the limit for 60 draws, on"), (0.7, "above 0.7 on")):
        bounds["khat"]["good"] = limit
        assert f"k-hat is {said} 30{SPACE}% of the" in answer.tightness(bounds).sentences[0]


def test_parts_of_the_examples_are_named() -> None:
    assert answer.of_all(179, 179) == "all 179 examples"
    assert answer.of_all(20, 1000) == "20 of the 1,000 examples"
    assert answer.of_all(1, 1) == "the one example"


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({}, "good", "tight"),
        ({"share_above": 0.3}, "care", "Only as a lower bound"),
        ({"median": None, "share_above": 1.0}, "unknown", "Unknown"),
    ],
)
def test_what_is_believed(digits: Path, changes: dict[str, Any], status: str, word: str) -> None:
    bounds = read(digits)
    bounds["khat"] |= {"share_above": 0.0, "median": 0.2} | changes
    found = answer.tightness(bounds)
    assert found.status == status and word in found.word
    if status == "good":
        se = bounds["iwae"]["60"]["se"]
        for loose, expected in ((0.9 * se, "good"), (1.1 * se, "care"), (None, "care")):
            found = answer.tightness({**bounds, "looseness": loose})
            assert found.status == expected and ("tight" in found.word) == (expected == "good")
            assert "less than" not in found.sentences[0]
    summary = {"mean": -20.0, "se": 0.5, "ci95": [-21, -19], "mc_se": 0.01}
    ais = {"num_examples": 30, "temperatures": 100, "lower": summary, "upper_flaw": None}
    for upper, flaw, expected in ((-19.99, None, "good"), (-19, None, "care"), (-20, "x", "care")):
        bounds["ais"] = {**ais, "upper": {**summary, "mean": upper}, "upper_flaw": flaw}
        assert answer.tightness(bounds).status == expected


def test_proposed_commands_are_understood(digits: Path) -> None:
    """Whatever was found, the next step and the repetition can be pasted into a shell."""
    run = RunFiles.read(digits)
    assert run.bounds["training_steps"] == 30
    run.bounds["training_steps"] = 3000
    seen = set()
    for bound in ("good", "care"):
        for found in ("good", "care", "bad"):
            findings = {
                "bound": answer.Finding("", bound, "", [], ""),  # type: ignore[arg-type]
                "code": answer.Finding("", found, "", [], ""),  # type: ignore[arg-type]
            }
            step = next_steps.next_step(run, findings)
            for command in (step.command, next_steps.repeat(run)):
                program, verb, *arguments = shlex.split(command.replace("\\\n", " "))
                assert program == "pyro-vae"
                seen.add(verb)
                if verb == "train":
                    options = config.parse(arguments)
                    assert options.epochs == 2 and options.out.startswith(str(digits))
                else:
                    assert arguments[0] == str(digits)
    assert seen == {"train", "evaluate"}


@pytest.mark.parametrize(
    ("objective", "proposed"),
    [
        ({"warmup": None, "warmup_share": None}, True),
        ({"warmup": 0.0}, True),  # of an older version
        ({"warmup": None, "warmup_share": 0.25}, False),  # as codes in layers have by default
        ({"warmup": 20}, False),
        ({"num_particles": 5}, False),  # an objective without warm-up
    ],
)
def test_a_warmup_is_proposed_once(digits: Path, objective: dict[str, Any], proposed: bool) -> None:
    """Also for a run that has a budget, and no number of epochs."""
    run = RunFiles.read(digits)
    run.bounds["training_steps"] = 3000
    run.options["epochs"] = None
    run.options["objective"] = {"class_path": "pyro_vae.objectives.ELBO", "init_args": objective}
    for found in ("care", "bad"):
        findings = {
            "bound": answer.Finding("", "good", "", [], ""),
            "code": answer.Finding("", found, "", [], ""),  # type: ignore[arg-type]
        }
        step = next_steps.next_step(run, findings)
        assert ("--objective.warmup_share=0.25" in step.command) == proposed


def test_few_steps_are_said_to_be_few(digits: Path) -> None:
    """A code that a short training does not use has not collapsed for good."""
    run = RunFiles.read(digits)
    for found, is_few in (("good", False), ("care", True), ("bad", True)):
        findings = {
            "bound": answer.Finding("", "good", "", [], ""),
            "code": answer.Finding("", found, "", [], ""),  # type: ignore[arg-type]
        }
        step = next_steps.next_step(run, findings)
        assert ("30 steps are few" in step.why and "--epochs=200" in step.command) == is_few


def test_two_runs_are_compared_next(digits: Path, tmp_path: Path) -> None:
    """After a run that another one proposed, and where the proposed run is there already."""
    findings = {name: answer.Finding("", "good", "", [], "") for name in ("bound", "code")}
    first, second = tmp_path / "a-run", tmp_path / "a-run-vamp"
    shutil.copytree(digits, first)
    step = next_steps.next_step(RunFiles.read(first), findings)
    assert "--prior=Vamp" in step.command and f"--out={second}" in step.command
    shutil.copytree(digits, second)
    for folder in (first, second):
        step = next_steps.next_step(RunFiles.read(folder), findings)
        words = shlex.split(step.command.replace("\\\n", " "))
        assert words[:4] == ["pyro-vae", "compare", str(first), str(second)]
    config_file = first / "config.yaml"
    text = config_file.read_text()
    config_file.write_text(text.replace("data_seed: 0", "data_seed: 1"))
    assert "pyro-vae train" in next_steps.next_step(RunFiles.read(second), findings).command
    config_file.write_text(text)
    (first / "bounds.json").unlink()
    assert "pyro-vae train" in next_steps.next_step(RunFiles.read(second), findings).command


def test_results_of_new_estimators_are_shown(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(digits, folder)
    bounds = read(digits)
    summary = {"mean": -31.25, "se": 0.5, "ci95": [-32.0, -30.5], "mc_se": None}
    bounds["telescoping"] = {"levels": 3, "lower": summary}
    (folder / "bounds.json").write_text(json.dumps(bounds))
    page = pages.check(run_page.write(folder).read_text())
    row = [cell.replace(MINUS, "-") for cell in page.row("lower")]
    assert row == ["lower", "-31.25", "0.50", "-32.00 to -30.50", "unknown"]
    assert "telescoping" in page.text


def test_the_page_and_the_tables_have_one_rule_for_differences() -> None:
    assert answer.RARE == predictive.SIGNIFICANT
