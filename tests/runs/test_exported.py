"""Encoder and decoder, exported: they give the same numbers where pyro_vae is not there."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions.transforms import ComposeTransform, ReshapeTransform

import pyro_vae
from pyro_vae import InputError
from pyro_vae.distributions import PowerSpherical
from pyro_vae.kinds import Conditional
from pyro_vae.posteriors import IAF, Hierarchical, Ladder, Posterior, SplineFlow
from pyro_vae.runs import applying, commands, config
from pyro_vae.runs.applying.decoding import typical
from pyro_vae.runs.applying.exported_encoders import encoder_programs
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

def program(path):
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]

    def run(*inputs):
        arrays = [each.numpy() for each in inputs]
        found = session.run(None, dict(zip(names, arrays, strict=True)))
        return [torch.from_numpy(each) for each in found]

    return run

def tensors(found):
    return [found] if isinstance(found, torch.Tensor) else list(found)

def check(folder):
    about = json.loads((folder / "out/model.json").read_text())
    given = torch.load(folder / "given.pt", weights_only=True)
    programs = {
        name: program(folder / "out" / part["program"])
        for name, part in about.items()
        if isinstance(part, dict) and "program" in part
    }
    (features,) = tensors(programs["features"](given["x"]))
    assert list(features.shape[1:]) == about["features"]["shape"]
    assert list(given["x"].shape[1:]) == about["x"]["shape"]
    found = [features]
    for name in ("top_encoder", "encoder"):
        if name in about:
            outputs = tensors(programs[name](features, *given[name]))
            assert len(outputs) == len(about[name]["outputs"])
            assert len(about[name]["inputs"]) == 1 + len(given[name])
            found += outputs
    decoder = programs["decoder"]
    found += tensors(decoder(given["z"], *given["y"]))
    assert list(found[-1].shape[1:]) == about["x"]["shape_without_conditions"]
    found += tensors(decoder(given["z"][:1], *(y[:1] for y in given["y"])))
    torch.save(found, folder / "found.pt")
    assert not {"pyro_vae", "pyro"} & set(sys.modules)

for line in sys.stdin:
    check(pathlib.Path(line.rstrip()))
    print("checked", flush=True)
"""
Elsewhere = subprocess.Popen[str]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    """Start a process without this package, which reads names of folders and runs what is there."""
    here = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        [sys.executable, "-I", "-c", ALONE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=here,
        cwd="/",
        text=True,
    ) as process:
        yield process


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
    "full": (None, "--posterior FullNormal"),
    "low rank": (None, "--posterior LowRankNormal"),
    "flow": (None, "--posterior IAF --prior Flow"),
    "splines": (table(), "--posterior SplineFlow"),
    "sphere": (None, "--posterior PowerSpherical --prior UniformSphere"),
    "bits": (None, "--posterior Bernoulli --prior Bernoulli"),
    "one-hot": (None, "--posterior Categorical --prior Categorical --latent_dim 8"),
    "layers": (None, "--posterior Hierarchical --prior Hierarchical"),
    "ladder": (None, "--posterior Ladder --prior Hierarchical"),
    "flow on top": (None, "--posterior Hierarchical --posterior.top IAF --prior Hierarchical"),
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


def parameters(q: Any, u: Tensor) -> list[Tensor]:
    """Return what an encoder gives of q(z|x), by torch's own names; of a flow a draw from u."""
    match q:
        case dist.TransformedDistribution() if not isinstance(q.transforms[0], ReshapeTransform):
            z = ComposeTransform(q.transforms)(u)
            return [z, q.log_prob(z)]
        case dist.MultivariateNormal():
            return [q.mean, torch.linalg.cholesky(q.covariance_matrix)]
        case dist.LowRankMultivariateNormal():
            return [q.mean, q.cov_factor, q.cov_diag]
        case PowerSpherical():
            return [q.loc, q.concentration]
        case dist.TransformedDistribution():
            return [q.base_dist.base_dist.probs]
        case _ if q.support.is_discrete:
            return [q.mean]
    return [q.mean, q.stddev]


def check(tmp_path: Path, elsewhere: Elsewhere, model: applying.Trained, *options: str) -> None:
    """Export a model, run the programs elsewhere, and compare what they give with the model."""
    with contextlib.chdir(tmp_path):
        commands.main(["export", "run", "--out", "out", *options])
    x, kind, vae = torch.load(tmp_path / "x.pt"), model.kind, model.vae
    y = [kind.parted(x)[1]] if isinstance(kind, Conditional) else []
    with torch.no_grad():
        features, top = kind.features(x), vae.posterior
        given: dict[str, Any] = {"x": x, "y": y, "z": vae.guide(x)}
        below = []
        if isinstance(top, Hierarchical | Ladder):
            z_top = pyro.poutine.trace(top).get_trace(features).nodes["z_top"]["value"]
            q = pyro.poutine.condition(top, {"z_top": z_top})(features)
            given["encoder"], below, top = [z_top], parameters(q, z_top), top.top
        u = torch.randn(len(x), top.latent_dim)
        name = "top_encoder" if below else "encoder"
        given[name] = [u] if isinstance(top, IAF | SplineFlow) else []
        expected = [features, *parameters(top(features), u), *below]
        decoded = typical(vae, vae.prior.code(given["z"]), x)
    own = kind.parted(decoded)[0] if isinstance(kind, Conditional) else decoded
    torch.save(given, tmp_path / "given.pt")
    assert elsewhere.stdin is not None and elsewhere.stdout is not None
    print(tmp_path, file=elsewhere.stdin, flush=True)
    assert elsewhere.stdout.readline() == "checked\n"
    found = torch.load(tmp_path / "found.pt")
    for ours, theirs in zip([*expected, own, own[:1]], found, strict=True):
        torch.testing.assert_close(theirs, ours.view(theirs.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_programs_run_without_the_package(case: str, tmp_path: Path, elsewhere: Elsewhere) -> None:
    model = train(tmp_path, *CASES[case])
    check(tmp_path, elsewhere, model)
    text = (tmp_path / "out/model.json").read_text()
    assert json.loads(text) == applying.exported.describe(model)


@pytest.mark.parametrize("case", ["holes", "low rank", "flow"])
def test_programs_of_onnx_run_without_the_package(
    case: str, tmp_path: Path, elsewhere: Elsewhere
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    check(tmp_path, elsewhere, train(tmp_path, *CASES[case]), "--format", "onnx")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".onnx", ".json"}


def test_onnx_asks_for_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = train(tmp_path, None, "")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pyro_vae\[onnx\]") as caught:
        applying.export(model, tmp_path / "out", "onnx")
    assert caught.value.parameter == "format" and not (tmp_path / "out").exists()


class Odd(Posterior):
    """Student's t, which is none of those that are exported."""

    def forward(self, x: Tensor) -> dist.Distribution:
        return dist.StudentT(5, x.flatten(1)[:, : self.latent_dim], 1.0).to_event(1)


def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = train(tmp_path, None, "")
    with pytest.raises(InputError, match=r"encoder of Odd cannot be exported, .* is StudentT: "):
        encoder_programs(Odd([8, 8], 3), 3)
    for folder, said in (("run", "exists: .* overwrite it"), ("no/out", "there is no folder")):
        with pytest.raises(InputError, match=said):
            applying.export(model, tmp_path / folder, overwrite=False)
    with pytest.raises(InputError, match="is not the folder of an export"):
        applying.export(model, tmp_path / "run")
    with pytest.raises(SystemExit) as stop, contextlib.chdir(tmp_path):
        commands.main(["export", "run", "--out", "run"])
    assert stop.value.code == 2 and capsys.readouterr().err.endswith("(option --overwrite)\n")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "x.pt"}
