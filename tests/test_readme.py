"""What the README shows in Python runs, and the prior of one's own works from the command line."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
PRIOR = next(block for block in BLOCKS if "(Prior)" in block)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block != PRIOR])
def test_block(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_prior_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(PRIOR.splitlines()) < 20
    (tmp_path / "my_priors.py").write_text(PRIOR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    command = "svi_train.py --prior my_priors.Logistic --prior.scale 2 --epochs 2 --out run"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--num_samples", "20"])
    runpy.run_path(str(ROOT / "scripts/svi_train.py"), run_name="__main__")
    assert "my_priors.Logistic" in (tmp_path / "run/config.yaml").read_text()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "run"])
    runpy.run_path(str(ROOT / "scripts/evaluate.py"), run_name="__main__")
