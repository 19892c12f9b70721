"""The page of a comparison: differences, what differs between the runs, links to their pages."""

import json
import shutil
from pathlib import Path

import pages
import pytest
import torch

from pyro_vae.bounds import Estimate
from pyro_vae.runs import commands
from pyro_vae.runs.comparison import compare_runs
from pyro_vae.runs.reporting import comparison_page, rounding

SMALL = (
    "--epochs=2 --num_samples=60 --num_examples=30 --diagnose_every=0 --device=cpu --latent_dim=2 "
    "--likelihood.decoder.widths=[8] --posterior.encoder.widths=[8]"
).split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, full_style: None) -> Path:
    """A folder of runs with different priors; the name of one of them is hostile."""
    folder = tmp_path_factory.mktemp("pages")
    for name, prior in (("plain", "StandardNormal"), ("<b>&amp", "LearnedNormal")):
        commands.train([*SMALL, f"--out={folder / name}", f"--prior={prior}"])
    return folder


def test_a_comparison_has_a_page(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    folders = ["plain", "<b>&amp"]
    (runs / "pages").mkdir()
    commands.compare([*folders, "--report", "pages/compared.html"])
    text = (runs / "pages/compared.html").read_text()
    page = pages.check(text)
    assert "<b>" not in text and "<b>&amp" in page.text
    difference = compare_runs(folders).comparison.differences["<b>&amp"]
    row = page.row("<b>&amp")
    assert row[3] == rounding.value(difference.mean, difference.se)
    assert row[5] == rounding.interval(difference.ci95, difference.se)
    assert page.row("plain")[3:6] == ["", "", ""]
    assert page.row("prior")[1:] == ["StandardNormal", "LearnedNormal"]
    links = [str(each["href"]) for each in page.all("a") if "report.html" in str(each["href"])]
    assert links == ["../plain/report.html", "../%3Cb%3E%26amp/report.html"]
    assert len(page.all("img")) == 1
    command = "pyro-vae compare plain '<b>&amp' --report pages/compared.html"
    assert command in page.text


def test_the_answer_says_which_run_is_better(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run is compared with a copy of itself, with other values of the bounds."""
    monkeypatch.chdir(runs)
    for name, shift, word in (("up", 1, "Better than"), ("down", -1, "Worse than")):
        shutil.copytree("plain", name)
        path = Path(name) / "bounds.json"
        content = json.loads(path.read_text())
        values = content["examples"]["iwae"]["values"]
        # Differences have a spread, so that they have an error.
        content["examples"]["iwae"]["values"] = [
            value + shift + 0.1 * (i % 2) for i, value in enumerate(values)
        ]
        path.write_text(json.dumps(content))
        commands.compare(["plain", name, "--report", f"{name}.html"])
        page = pages.check(Path(f"{name}.html").read_text())
        assert f"{word} plain" in page.text
        better = "up is better than plain" if name == "up" else "plain is better than down"
        assert better in page.text
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2].startswith(f"{better}, by ")
        assert lines[-1] == f"Where to look: open {name}.html in a browser"
    shutil.rmtree("down")
    shutil.rmtree("up")


def test_the_best_of_several_is_named_wherever_it_stands() -> None:
    spread = torch.tensor([-1.0, 1.0]).repeat(50)  # a standard error of 0.10

    def differences(*means: float) -> dict[str, Estimate]:
        return {
            name: Estimate(mean + spread, torch.zeros(100))
            for name, mean in zip("bc", means, strict=True)
        }

    said = comparison_page.headline("a", differences(-3.0, -1.0), "run")
    assert rounding.plain(said) == (
        "a is better than c, by 1.00 ± 0.10 nats per example. 1 other run came out even worse."
    )
    said = comparison_page.headline("a", differences(-3.0, 0.1), "run")
    assert said == "No run was found to be better than a."
    said = comparison_page.headline("a", differences(1.0, 3.0), "run")
    assert said.startswith("c is better than a, by 3.00") and "1 other run beat it too" in said


def test_the_page_has_to_have_a_folder(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(runs / name) for name in ("plain", "<b>&amp")]
    with pytest.raises(SystemExit) as stop:
        commands.compare([*folders, "--report", str(runs / "none" / "a.html")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "there is no folder" in error and "(option --report)" in error
    assert not (runs / "none").exists()
