"""The documentation: its Python runs, and its commands have options and files that exist."""

import argparse
import contextlib
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch.distributed.run
from conftest import ROOT

from pyro_vae.runs import applying, command_line, commands, config, foreign_programs
from pyro_vae.runs.run import Run

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r'^```(\w+)(?: title="(.*?)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
SMALL = "--epochs 1 --num_samples 5 --num_examples 9 --diagnose_every 0 --device cpu".split()
# Commands of the pages, none of which is executed: a shell prints what it would call.
SHELL = "".join(
    f"{name}() {{ printf '%s\\x1f' {name} \"$@\"; echo; }}\n"
    for name in ("pyro-vae", "python", "torchrun", "bash", "pip", "pytest", "mkdocs", "pre-commit")
)


class Parsed(Exception):
    """A command was parsed, and would now begin its work."""


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Return the title, or "", and the content of each block of code in the text of a page."""
    found = BLOCK.findall(page)
    return [(title, text) for language, title, text in found if language in languages]


def called(page: str) -> list[list[str]]:
    """Return the words of each command in the text of a page, as a shell understands them."""
    text = "\n".join(text for _, text in blocks(page, "sh"))
    text = re.sub(r"^\.ci/run", "bash .ci/run", text, flags=re.MULTILINE)
    bash = ["/bin/bash", "-eu", "-c", SHELL + text]
    result = subprocess.run(bash, env={"PATH": ""}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [line.split("\x1f")[:-1] for line in result.stdout.splitlines()]


def of_pages(*languages: str) -> Any:
    pages = [page for page in PAGES if blocks(page.read_text(), *languages)]
    names = [str(page.relative_to(ROOT)) for page in pages]
    return pytest.mark.parametrize("page", pages, ids=names)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, in which modules are found, beside the scripts and tests of this project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "argv", ["pyro-vae"])
    for name in ("scripts", "tests", "notebooks", ".ci"):
        (tmp_path / name).symlink_to(ROOT / name)
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        if name.startswith("my_"):
            del sys.modules[name]


def write_titled(page: Path, folder: Path) -> None:
    for title, text in blocks(page.read_text(), "python"):
        if title:
            (folder / title).write_text(text)


def a_run_of_a_table(folder: Path) -> None:
    """Make what the page about new data takes for granted: a run, and a table with new rows."""
    values = np.random.default_rng(0).normal(size=(200, 3))
    table = pd.DataFrame(values, columns=["a", "b", "c"]).mask(values > 1)
    table[:150].to_csv("table.csv", index=False)
    table[150:].to_csv("new.csv", index=False)
    train(["--data", "table.csv"], Path("runs/NAME"))


def train(options: list[str], folder: Path) -> None:
    """Train a run, without the evaluation and the figures that follow."""
    run = Run.build(folder, config.parse([*options, *SMALL]))
    run.create()
    run.fit()


BEFORE = {"new_data.md": a_run_of_a_table}


@of_pages("python")
def test_python_runs(page: Path, folder: Path) -> None:
    if page.name in BEFORE:
        BEFORE[page.name](folder)
    write_titled(page, folder)
    names: dict[str, Any] = {}
    for title, text in blocks(page.read_text(), "python"):
        exec(compile(text, title or page.name, "exec"), names)


@of_pages("sh")
def test_commands_have_options_and_files_that_exist(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_titled(page, folder)
    found = called(page.read_text())
    assert found
    for words in found:
        monkeypatch.setattr(sys, "path", [*sys.path])
        for word in words:
            if word.startswith(("scripts/", "tests/", ".ci/")):
                assert Path(word).exists(), word
        try:
            with contextlib.suppress(Parsed):
                parse(words, monkeypatch)
        except (SystemExit, Exception) as error:
            if getattr(error, "code", 1) != 0:  # of --help
                pytest.fail(f"{' '.join(words)}\n{error}\n{capsys.readouterr().err}")


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command with the parser that it has."""
    program, *arguments = words
    if program == "torchrun":
        parsed = torch.distributed.run.parse_args(arguments)
        assert parsed.training_script == "pyro_vae"
        parse_verb(parsed.training_script_args, monkeypatch)
    elif program == "pyro-vae":
        parse_verb(arguments, monkeypatch)
    elif program == "python":
        parse_script(Path(arguments[0]), arguments[1:], monkeypatch)
    elif program == "bash":
        assert Path(arguments[0]).is_file()


def parse_verb(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    verb, *arguments = words
    if verb == "train" and arguments not in (["--help"], []):
        command_line.find_own_modules(arguments)
        config.parse(arguments)
    elif verb == "evaluate" and "--programs" in arguments:
        foreign_programs.parser().parse_args(arguments)
    elif verb == "evaluate":
        command_line.make_plan(command_line.parse_evaluation(arguments))
    elif verb == "compare":
        command_line.parse_comparison(arguments)
    elif verb == "report":
        command_line.parse_report(arguments)
    elif verb != "train":  # the verbs on files, whose work begins when a model is loaded
        monkeypatch.setattr(applying, "load", stop)
        commands.main(words)
        assert verb == "--help"


def parse_script(script: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    verb = {"svi_train": "train"}.get(script.stem, script.stem)
    if script.parent == Path("scripts") and verb in commands.VERBS:
        parse_verb([verb, *arguments], monkeypatch)
        return
    understand = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        stop(understand(parser, *args, **kwargs))

    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", only_parse)
        runpy.run_path(str(script), run_name="__main__")


def stop(*args: Any, **kwargs: Any) -> None:
    raise Parsed


EXTENDING = ROOT / "docs/extending.md"
SECTION = re.DOTALL | re.MULTILINE
OWN_FILES = {
    "prior": "priors",
    "likelihood": "likelihoods",
    "posterior": "posteriors",
    "network": "networks",
    "objective": "objectives",
}


@pytest.mark.parametrize("part", OWN_FILES)
def test_a_part_of_ones_own_is_trained_and_evaluated(part: str, folder: Path) -> None:
    write_titled(EXTENDING, folder)
    (section,) = re.findall(rf"^## An? {part}\n.*?(?=^## )", EXTENDING.read_text(), SECTION)
    for words in called(section):
        if words[1] == "evaluate":
            commands.main([*words[1:], "--checks", "0", "--draws", "0"])
            continue
        command_line.find_own_modules(words)
        out = dict(pairwise(words)).get("--out", "runs/own")
        train(words[2:], Path(out))
    (saved,) = Path("runs").glob("*/config.yaml")
    assert f"my_{OWN_FILES[part]}." in saved.read_text()


def test_parts_of_ones_own_are_short() -> None:
    own = [text for _, text in blocks(EXTENDING.read_text(), "python")]
    assert len(own) == 11
    assert max(len([line for line in text.splitlines() if line.strip()]) for text in own) < 20


def test_readme_takes_three_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 60
