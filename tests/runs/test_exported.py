"""Encoder and decoder, exported: they give the same numbers where pyro_vae is not there."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae
from pyro_vae import InputError
from pyro_vae.kinds import Conditional
from pyro_vae.runs import applying, commands, config
from pyro_vae.runs.applying.decoding import moments, typical
from pyro_vae.runs.run import Run

SMALL = "--num_samples 5 --num_examples 20 --diagnose_every 0 --epochs 1 --device cpu "
SMALL += "--engine eager --latent_dim 3"
draw = np.random.default_rng(0)
ALONE = """
import sys, json, pathlib, torch

class Guard:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] not in ("pyro_vae", "pyro"), name

sys.meta_path.insert(0, Guard())
folder = pathlib.Path(sys.argv[1])
about = json.loads((folder / "out/model.json").read_text())
given = torch.load(folder / "given.pt", weights_only=True)
features = torch.export.load(folder / "out" / about["features"]["program"]).module()
encoder = torch.export.load(folder / "out" / about["encoder"]["program"]).module()
decoder = torch.export.load(folder / "out" / about["decoder"]["program"]).module()
found = features(given["x"])
assert list(found.shape[1:]) == about["features"]["shape"]
assert list(given["x"].shape[1:]) == about["x"]["shape"]
mean, scale = encoder(found)
x = decoder(mean, *given["y"])
assert list(x.shape[1:]) == about["x"]["shape_without_conditions"]
single = decoder(mean[:1], *(y[:1] for y in given["y"]))
torch.save([found, mean, scale, x, single], folder / "found.pt")
assert not {"pyro_vae", "pyro"} & set(sys.modules)
"""


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "height": draw.normal(170, 10, 150),
            "children": draw.poisson(2, 150),
            "city": draw.choice(["Rome", "Oslo"], 150),
            "income": draw.lognormal(3, 1, 150),
        }
    )


CASES = {
    "digits": (None, ""),
    "levels": (None, "--likelihood DiscretizedLogistic --prior Vamp --prior.components 5"),
    "pictures": (None, "--posterior.encoder ConvEncoder --likelihood.decoder ConvDecoder"),
    "labels": (None, "--condition labels"),
    "table": (table(), ""),
    "holes": (table().mask(draw.random((150, 4)) < [0.2, 0.1, 0.1, 0]), ""),
    "given": (table(), "--condition city,income"),
}


def train(folder: Path, rows: pd.DataFrame | None, arguments: str) -> applying.Trained:
    where = "digits"
    if rows is not None:
        rows.to_csv(folder / "train.csv", index=False)
        where = str(folder / "train.csv")
    options = f"{SMALL} --data {where} {arguments}".split()
    run = Run.build(folder / "run", config.parse(options))
    run.create()
    run.fit()
    torch.save(run.test[:7], folder / "x.pt")
    return pyro_vae.load(folder / "run")


@pytest.mark.parametrize("case", CASES)
def test_programs_run_without_the_package(case: str, tmp_path: Path) -> None:
    model = train(tmp_path, *CASES[case])
    with contextlib.chdir(tmp_path):
        commands.main(["export", "run", "--out", "out"])
    x, kind = torch.load(tmp_path / "x.pt"), model.kind
    y = [kind.parted(x)[1]] if isinstance(kind, Conditional) else []
    torch.save({"x": x, "y": y}, tmp_path / "given.pt")
    here = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-I", "-c", ALONE, tmp_path], check=True, env=here, cwd=tmp_path
    )
    found = torch.load(tmp_path / "found.pt")
    with torch.no_grad():
        mean, scale = moments(model.vae, x) or pytest.fail("no moments")
        decoded = typical(model.vae, model.vae.prior.code(mean), x)
    own = kind.parted(decoded)[0] if isinstance(kind, Conditional) else decoded
    expected = [kind.features(x), mean, scale, own, own[:1]]
    for here_, there in zip(expected, found, strict=True):
        torch.testing.assert_close(there, here_.view(there.shape), rtol=1e-5, atol=1e-5)
    text = (tmp_path / "out/model.json").read_text()
    assert json.loads(text) == applying.exported.describe(model)


def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = train(tmp_path, None, "--posterior IAF")
    with pytest.raises(InputError, match="encoder of IAF cannot be exported"):
        applying.export(model, tmp_path / "out")
    for folder, said in (("run", "exists: .*--overwrite"), ("no/out", "there is no folder")):
        with pytest.raises(InputError, match=said):
            applying.export(model, tmp_path / folder, overwrite=False)
    with pytest.raises(InputError, match="is no folder of an export"):
        applying.export(model, tmp_path / "run")
    with pytest.raises(SystemExit) as stop, contextlib.chdir(tmp_path):
        commands.main(["export", "run", "--out", "run"])
    assert stop.value.code == 2 and capsys.readouterr().err.endswith("(option --out)\n")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "x.pt"}
