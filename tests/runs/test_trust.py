"""A file of options that comes from a stranger executes nothing, and takes little time."""

import copy
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml
from conftest import ROOT

from pyro_vae import InputError, likelihoods, networks, objectives, posteriors, priors
from pyro_vae.runs import config, part_names, trust
from pyro_vae.runs.run import Run

OLD_RUN = ROOT / "tests/fixtures/old_run"
ALIASES = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
ALIASES += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 12)]
BOMB = "\n".join(ALIASES)
NESTED = "{class_path: Hierarchical, init_args: {top: "
OWN = """
from pathlib import Path
from pyro_vae.priors import StandardNormal
Path("executed").touch()
class Own(StandardNormal):
    def forward(self):
        if Path("mine").exists():
            raise KeyboardInterrupt
        return super().forward()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is a stranger's: a run, and modules beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    shutil.copytree(OLD_RUN, tmp_path / "run")
    text = (OLD_RUN / "config.yaml").read_text()
    text = text.replace("pyro_vae.priors.Vamp", "own.Own").replace("components: 3", "{}")
    text = text.replace("    {}\n    start: images\n    learn_weights: false\n", "    {}\n")
    (tmp_path / "run/config.yaml").write_text(text)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "anndata.py").write_text('open("executed", "w")')  # a module that may be missing
    return tmp_path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` in the current folder."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    "arguments",
    [
        ["scripts/evaluate.py", "run"],
        ["scripts/svi_train.py", "--resume", "run"],
        ["scripts/svi_train.py", "--config", "run/config.yaml"],
        ["scripts/svi_train.py", "--config=run/config.yaml", "--prior", "Vamp"],
        ["-m", "pyro_vae", "evaluate", "run"],
    ],
    ids=" ".join,
)
def test_a_module_beside_a_run_is_not_executed(folder: Path, arguments: list[str]) -> None:
    before = sorted(folder.rglob("*"))
    script = [str(ROOT / each) if each.startswith("scripts/") else each for each in arguments]
    result = run(*script)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(
        "error: run/config.yaml names own.Own, which is not a public class"
    )
    assert "--trust_code" in result.stderr and result.stderr.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_code_that_is_trusted_is_executed(folder: Path) -> None:
    with pytest.raises(InputError, match=r"own\.Own.*trust_code=True"):
        Run.open("run")
    assert not (folder / "executed").exists()
    result = run(str(ROOT / "scripts/evaluate.py"), "run", "--trust_code")
    assert "best.pt does not fit" in result.stderr  # its prior was another
    assert (folder / "executed").exists()


def test_what_is_typed_is_not_asked_about(folder: Path) -> None:
    """A user's own class needs no more words; the run that it makes does, and says so."""
    train = str(ROOT / "scripts/svi_train.py")
    result = run(train, "--prior", "own.Own", "--out", "mine")
    assert result.returncode == 130
    assert "continue with: pyro-vae train --resume mine --trust_code" in result.stderr
    refused = run(train, "--resume", "mine")
    assert refused.returncode == 2 and "add --trust_code" in refused.stderr


def test_a_style_beside_a_run_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could have LaTeX run on texts of its own."""
    shutil.copytree(OLD_RUN, tmp_path / "run")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: module://own\n")
    monkeypatch.chdir(tmp_path)
    result = run(str(ROOT / "scripts/evaluate.py"), "run", "--checks", "0", "--draws", "0")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run/figures/bounds.png").exists()


@pytest.mark.parametrize(
    ("arguments", "typed"),
    [
        (["--prior", "own.Own"], True),
        (["--likelihood.decoder=own.Net"], True),
        (["--prior", "{class_path: own.Own}"], True),
        (["--prior", "pyro_vae.priors.Vamp", "--lr", "1.5"], False),
        (["--data", "own.npy", "--config", "own.yaml", "--prior.help", "Vamp"], False),
    ],
)
def test_which_names_are_typed(arguments: list[str], typed: bool) -> None:
    assert trust.types_names_of_others(arguments) == typed


def test_every_public_part_may_be_named() -> None:
    parts = part_names.PARTS.values()
    bases = tuple(resolve_name(f"{each.package}:{each.base}") for each in parts)
    for package in (priors, likelihoods, posteriors, networks, objectives):
        for name in package.__all__:
            found = getattr(package, name)
            is_part = isinstance(found, type) and issubclass(found, bases)
            assert (f"{package.__name__}.{name}" in trust.classes()) == is_part
    assert "pyro_vae.priors.Vamp" in trust.classes()
    assert "pyro_vae.priors.check_support" not in trust.classes()


LIMITS = {
    "aliases": (BOMB, "aliases"),
    "an anchor of itself": ("prior: &a [*a]", "aliases"),
    "aliases in a text": (json.dumps({"lr": "{" + ", ".join(ALIASES) + "}"}), "aliases"),
    "a huge file": ("x" * 2_000_000, "more than 1000000 bytes"),
    "a long list": ("drop: [" + "1," * 400_000 + "]", "is not a file of options"),
    "many keys": ("".join(f"a{i}: 1\n" for i in range(50_000)), "is not a file of options"),
    "flow levels": ("prior: " + "[" * 400_000, "not a YAML file|not a file of options"),
    "block levels": ("\n".join(" " * i + "a:" for i in range(1_300)), "not a file of options"),
    "nested parts": ("prior: " + NESTED * 14 + "Vamp" + "}}" * 14, "not a file of options"),
    "a long number": ("seed: " + "1" * 90_000, "too large"),
    "base 60": ("seed: 1" + ":1" * 49_000, "in another base"),
    "base 60 in a text": ('seed: "1' + ":1" * 49_000 + '"', "too large"),
    "a long text": ("data: " + "x" * 200_000, "more than 100000 characters"),
    "a tag": ("prior: !!python/object/apply:os.system ['touch executed']", "YAML tag"),
    "a tag for bytes": ("data: !!binary YQ==", "YAML tag"),
    "another file": ("config: other.yaml", "sets config"),
    "its own trust": ("trust_code: true\nprior: own.Own", "sets trust_code"),
    "no text": ("\udcff", "UTF-8"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_too_much_is_refused_at_once(name: str, tmp_path: Path) -> None:
    text, said = LIMITS[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    started = time.process_time()
    with pytest.raises(InputError, match=said) as error:
        config.parse(["--config", str(path)])
    assert time.process_time() - started < 5  # quadratic work would take minutes
    assert len(str(error.value)) < 1500


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(InputError, match=r"is not a file|is not the folder of a run"):
        config.read(tmp_path / "config.yaml")


def test_odd_names_of_data_are_read(tmp_path: Path) -> None:
    """Files and columns may have names that look like YAML."""
    columns = {"a.b, c": "real", "&d": "real"}
    given = {"data": "*a & b.csv", "drop": "[x], {y}, &z", "columns": columns}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(given))
    parsed = config.parse(["--config", str(tmp_path / "config.yaml")])
    assert (parsed.data, parsed.drop) == (given["data"], given["drop"])
    assert dict(parsed.columns) == columns


# What a stranger might name: functions that do something, and modules that would be imported.
CODE = ["os.system", "subprocess.call", "subprocess.Popen", "builtins.exec", "builtins.eval"]
CODE += ["posix.system", "os.mkdir", "pathlib.Path", "shutil.rmtree", "runpy.run_path"]
CODE += ["torch.load", "torch.hub.load", "pyro_vae.checkpoint.write", "pyro_vae.os.system"]
CODE += ["pyro_vae.runs.malloc.ctypes.CDLL", "pyro_vae.priors.os.system", "pyro_vae.canary.Own"]
CODE += ["Vamp", "MLP", "IWAE", "Own", "pyro_vae.priors.Mixture", "pyro_vae.networks.Linear"]
CODE += ["own.Own", "canary.Own", "canary.make", "canary", "antigravity.fly", "this.s"]
ARGUMENTS = [{"command": "touch executed"}, {"args": ["touch", "executed"]}, ["touch executed"]]
ARGUMENTS += [{"name": "executed", "path": "executed"}, "open('executed', 'w')", None]
PARTS = ["class_path", "prior", "likelihood", "posterior", "objective", "encoder", "decoder"]
TAGS = ["!!python/object/apply:os.system", "!!python/name:canary.Own", "!!python/module:canary"]
TAGS += ["!!python/object/new:canary.Own", "!own", "!!set", "!!binary"]
KEYS = ["class_path", "init_args", "dict_kwargs", "__path__", "<<", "prior.top", "top.class_path"]
KEYS += ["prior+", "config", "resume", "$schema", "network", "whole", "kind", "objective.group"]


def name_of_code(rng: random.Random) -> Any:
    """Return a form in which jsonargparse takes the name of a class or function."""
    name, arguments = rng.choice(CODE), copy.deepcopy(rng.choice(ARGUMENTS))
    if rng.random() < 0.5:  # what would be found: it is on the path
        name, arguments = rng.choice(["own.Own", "canary.Own", "canary.make"]), {}
    specification = {"class_path": name, "init_args": arguments}
    forms = [name, specification, {**specification, "dict_kwargs": arguments}]
    forms += [json.dumps(specification), yaml.safe_dump(specification), [name], [specification]]
    specification = copy.deepcopy(specification)
    forms += [{"class_path": name}, name, {"class_path": name, "init_args": {}}]
    forms += [f" {name} ", f"{name}\n", f"{name}()", {"Own": specification}, f"lambda: {name}"]
    return rng.choice(forms)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return the containers in a value, at any depth, with each key or index."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    else:
        return []
    inner = [place for key in keys for place in places(value[key])]
    return [(value, key) for key in keys] + inner


def mutate(options: dict[str, Any], rng: random.Random) -> str:
    """Return options as YAML, with a few things that a stranger might write."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        everywhere = places(options)
        parts = [(each, key) for each, key in everywhere if key in PARTS]
        container, key = rng.choice(parts if parts and rng.random() < 0.5 else everywhere)
        change = rng.choice([0, 0, 1, 2, 3])
        if change == 0:
            container[key] = name_of_code(rng)
        elif change == 1 and isinstance(container, dict):
            container[rng.choice(KEYS)] = name_of_code(rng)
        elif change == 2 and isinstance(container, dict):
            container[f"{key}.{rng.choice(KEYS)}"] = name_of_code(rng)
        else:
            container[key] = {"top": {"class_path": "Hierarchical", "init_args": container[key]}}
            container[key]["top"]["init_args"] = name_of_code(rng)
    text = yaml.safe_dump(options, default_flow_style=rng.random() < 0.3, sort_keys=False)
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    change = rng.randrange(24)
    if change == 0:
        lines[at] = lines[at].replace(": ", f": {rng.choice(TAGS)} ", 1)
    elif change == 1:
        lines[at] = lines[at].replace(": ", ": &own ", 1)
        lines.append("prior: *own")
    elif change == 2:
        lines += [*ALIASES[: rng.randint(1, 12)], "prior: *a0"]
    elif change == 3:
        lines[at] = lines[at][: rng.randint(0, len(lines[at]))]
    return "\n".join(lines)


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_nothing_in_hundreds_of_files_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with all these modules on the path. A file may be understood: then it names our own."""
    rng = random.Random(0)
    for name in ("own", "canary"):
        (tmp_path / f"{name}.py").write_text(OWN + "\ndef make(*_, **__): return Own(2)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    base = (OLD_RUN / "config.yaml").read_text()
    path = tmp_path / "config.yaml"
    before = sorted(tmp_path.iterdir())
    understood, slowest, memory = 0, 0.0, peak_memory()
    for number in range(300):
        path.write_text(mutate(yaml.safe_load(base), rng))
        started = time.perf_counter()
        try:
            config.instantiate(
                config.read(path) if number % 2 else config.parse([f"--config={path}"])
            )
            understood += 1
        except InputError as error:
            assert str(error)
        slowest = max(slowest, time.perf_counter() - started)
        path.unlink()
        assert sorted(tmp_path.iterdir()) == before
    for name in ("own", "canary", "antigravity", "this"):
        assert name not in sys.modules
    assert slowest < 10 and understood > 0
    assert peak_memory() - memory < 2**31
