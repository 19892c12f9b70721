"""The command `pyro-vae`: its verbs, and what it says of others."""

import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest
from conftest import ROOT

from pyro_vae.runs import commands


@pytest.fixture(autouse=True)
def _called_as_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pyro-vae"])


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_all_verbs_are_listed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    commands.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: pyro-vae VERB .."
    for name, verb in commands.VERBS.items():
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert line.endswith((verb.__doc__ or "").splitlines()[0])


@pytest.mark.parametrize("verb", commands.VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        commands.main([verb, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: pyro-vae {verb} ")


@pytest.mark.parametrize("verb", commands.VERBS)
def test_the_help_of_every_verb_ends_with_examples(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The options that they use exist."""
    with pytest.raises(SystemExit):
        commands.main([verb, "--help"])
    text, _, examples = capsys.readouterr().out.partition("\nexamples:\n")
    assert "--quiet" in text
    assert examples.splitlines()
    for example in examples.splitlines():
        program, first, *words = shlex.split(example)
        assert (program, first) == ("pyro-vae", verb)
        options = {word.partition(".")[0] for word in words if word.startswith("--")}
        own = {"--programs"} if "--programs" in options else set()  # another parser knows it
        assert own <= options and all(f"{option} " in text for option in options - own)


PRINTED_BY = """
import sys
from pyro_vae.runs import speaking
from pyro_vae.runs.parser import Parser

class Terminal:
    def isatty(self): return True
    def write(self, text): sys.stdout.write(text)
    def flush(self): pass

sys.stderr = Terminal()
for arguments in ([], ["--quiet"]):
    parser = Parser()
    speaking.add_quiet(parser)
    parser.parse_args(arguments)
    parser.parse_args([])  # as a file of options is parsed after the command line
    speaking.note("a note")
    print(speaking.is_quiet(), speaking.shows_progress())
"""


def test_quiet_turns_off_notes_and_progress() -> None:
    out = subprocess.check_output([sys.executable, "-c", PRINTED_BY], cwd=ROOT, text=True)
    assert out.splitlines() == ["a note", "False True", "True False"]


def test_an_interruption_while_a_verb_imports_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def imports(arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(commands.VERBS, "score", imports)
    with pytest.raises(SystemExit) as stop:
        commands.main(["score"])
    assert stop.value.code == 130 and capsys.readouterr().err == "\ninterrupted\n"


def test_the_arguments_reach_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setitem(commands.VERBS, "train", given.append)
    commands.main(["train", "--epochs", "3"])
    monkeypatch.setattr(sys, "argv", ["pyro-vae", "train", "--lr", "1"])
    commands.main()
    assert given == [["--epochs", "3"], ["--lr", "1"]]


def test_other_words(capsys: pytest.CaptureFixture[str]) -> None:
    commands.main(["--version"])
    assert capsys.readouterr().out == f"pyro-vae {version('pyro_vae')}\n"
    with pytest.raises(SystemExit) as stop:
        commands.main(["trian"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: there is no verb trian: choose train, ")
    with pytest.raises(SystemExit) as stop:
        commands.main(["evaluate", "nowhere"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: nowhere is not the folder of a run")


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "pyro_vae", "compare", "--help"]
    out = subprocess.check_output(command, cwd=ROOT, text=True)
    assert out.startswith("usage: pyro-vae compare ")
