"""`import pyro_vae` is light: heavy packages are imported where they are used, not before."""

import importlib
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pyro_vae
from pyro_vae import bounds, runs
from pyro_vae.runs import commands

HEAVY = [
    "arviz",
    "matplotlib",
    "pandas",
    "PIL",
    "scipy",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "torch._inductor",
    "torch.fx.experimental.symbolic_shapes",
    "torchvision",
    "xarray",
]
# Each stage prints the modules that it adds. Pyro and PyTorch's Adam come first, each before the
# stage that uses it, because what they import themselves is not our doing: Adam imports Inductor.
STAGES = """
import contextlib, io, json, runpy, sys

def added(before):
    return sorted(set(sys.modules) - before)

before = set(sys.modules)
import pyro_vae
stages = {"alone": added(before)}

import pyro
before = set(sys.modules)
from pyro_vae import VAE
stages["import"] = added(before)

sys.argv = ["svi_train.py", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as help_text:
    runpy.run_path(SCRIPT, run_name="__main__")
assert "--latent_dim" in help_text.getvalue()
stages["help"] = added(before)

import torch
weight = torch.nn.Parameter(torch.zeros(3))
optimizer = torch.optim.Adam([weight])
weight.sum().backward()
optimizer.step()
before = set(sys.modules)
from pyro_vae import VAE, likelihoods, objectives, posteriors, priors, training
vae = VAE(
    priors.StandardNormal(2), likelihoods.Bernoulli(2, [3, 4]), posteriors.Normal([3, 4], 2)
)
training.EagerEngine(vae.model, vae.guide, objectives.ELBO()).step(torch.ones(5, 3, 4))
stages["step"] = added(before)
print(json.dumps(stages))
"""


@pytest.fixture(scope="module")
def stages() -> dict[str, list[str]]:
    script = Path(__file__).parent.parent / "scripts" / "svi_train.py"
    code = STAGES.replace("SCRIPT", repr(str(script)))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("stage", ["import", "help", "step"])
def test_nothing_heavy_is_imported(stages: dict[str, list[str]], stage: str) -> None:
    added = [
        module
        for module in stages[stage]
        if any(module == heavy or module.startswith(f"{heavy}.") for heavy in HEAVY)
    ]
    assert not added


@pytest.mark.parametrize("stage", ["alone", "import"])
def test_importing_the_package_adds_only_its_own_modules(
    stages: dict[str, list[str]], stage: str
) -> None:
    packages = {module.partition(".")[0] for module in stages[stage]}
    assert packages - {"pyro_vae"} <= sys.stdlib_module_names


def test_the_package_alone_imports_neither_pyro_nor_its_own_parts(
    stages: dict[str, list[str]],
) -> None:
    own = [module for module in stages["alone"] if module.startswith("pyro_vae")]
    assert own == ["pyro_vae", "pyro_vae.errors"]


@pytest.mark.parametrize("package", [pyro_vae, bounds, runs], ids=lambda each: each.__name__)
def test_every_public_name_resolves_and_is_listed(package: ModuleType) -> None:
    for name in package.__all__:
        found = getattr(package, name)
        assert getattr(found, "__name__", name).rpartition(".")[2] in (name, "training")
        assert name in dir(package)
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'no'"):
        _ = package.no


@pytest.mark.parametrize("made", [bounds.Settings(chains=3), pyro_vae.InputError("no", "lr")])
def test_classes_that_are_imported_late_can_be_pickled(made: object) -> None:
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is type(made) and vars(again) == vars(made)


def test_old_and_short_names_are_the_modules() -> None:
    from pyro_vae.diagnostics import refinement
    from pyro_vae.programs import compiling

    assert pyro_vae.svi is pyro_vae.training
    assert pyro_vae.refinement is refinement and pyro_vae.compiling is compiling
    for old, new in (("svi", "training"), ("compiling", "programs.compiling")):
        module = importlib.import_module(f"pyro_vae.{old}")
        assert module is importlib.import_module(f"pyro_vae.{new}")
        assert module.__spec__.name == f"pyro_vae.{new}"


TORCH_REFUSED = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "pyro", "matplotlib", "pandas"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refused())
from pyro_vae.__main__ import main
main(sys.argv[1:])
"""


def run_without_torch(*arguments: str) -> str:
    command = [sys.executable, "-c", TORCH_REFUSED, *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_report_of_a_run_needs_no_pytorch(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(Path(__file__).parent / "fixtures" / "old_run", run)
    assert run_without_torch("report", str(run)).strip() == str(run / "report.html")
    assert "<html" in (run / "report.html").read_text()


@pytest.mark.parametrize("verb", commands.VERBS)
def test_help_needs_no_pytorch(verb: str) -> None:
    assert f"usage: pyro-vae {verb}" in run_without_torch(verb, "--help")
