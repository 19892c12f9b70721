"""What the README shows in Python runs, and parts of one's own work from the command line."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
OWN = {
    name: next(block for block in BLOCKS if f"({name})" in block)
    for name in ("Prior", "Likelihood")
}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in OWN.values()])
def test_block(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize(
    ("kind", "name"), [("Prior", "my_priors.Logistic"), ("Likelihood", "my_likelihoods.Cauchy")]
)
def test_part_of_ones_own(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(OWN[kind].splitlines()) < 22
    (tmp_path / name.replace(name.rpartition(".")[2], "py")).write_text(OWN[kind])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    command = f"svi_train.py --{kind.lower()} {name} --{kind.lower()}.scale 2 --epochs 2 --out run"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--num_samples", "20"])
    runpy.run_path(str(ROOT / "scripts/svi_train.py"), run_name="__main__")
    assert name in (tmp_path / "run/config.yaml").read_text()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "run", "--trust_code"])
    runpy.run_path(str(ROOT / "scripts/evaluate.py"), run_name="__main__")
