"""Encoder and decoder as programs of `torch.export`, which run without pyro_vae.

| file | program |
|---|---|
| `features.pt2` | x, `float32` [N, *x] -> its features [N, *features] |
| `encoder.pt2` | features -> mean and scale of q(z given x), two tensors [N, latent_dim] |
| `decoder.pt2` | z [N, latent_dim] -> what is typical of p(x given z) |
| `model.json` | shapes, units, and how x and its features are made |

N may be any number above zero. With conditions y the first program takes [N, D + Dy], the values of
x and behind them those of y. The decoder then takes z and y, and returns x alone.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.data import ColumnSpec
from pyro_vae.errors import InputError
from pyro_vae.kinds import (
    Binary,
    Categories,
    Columns,
    Conditional,
    Incomplete,
    Kind,
    Levels,
    Ordered,
    UnitInterval,
)
from pyro_vae.kinds.standardised import Standardised
from pyro_vae.likelihoods import Given
from pyro_vae.runs.applying.decoding import typical_of_x
from pyro_vae.runs.applying.trained import Trained
from pyro_vae.vae import VAE

FILES = ("features.pt2", "encoder.pt2", "decoder.pt2", "model.json")
ROWS = 3  # of the example with which programs are traced


class _Features(nn.Module):
    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return self.kind.features(x)


class _Encoder(nn.Module):
    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.posterior = vae.posterior

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        q = self.posterior(features)
        return q.mean, q.stddev


class _Decoder(nn.Module):
    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        likelihood, code = self.vae.likelihood, self.vae.prior.code(z)
        kind = likelihood.kind
        if isinstance(likelihood, Given) and isinstance(kind, Conditional):
            assert y is not None
            code = torch.cat([code, kind.given.features(y)], -1)
            likelihood, kind = likelihood.whole, kind.of
        return typical_of_x(likelihood, kind, code)


def export(model: Trained, folder: str | Path, *, overwrite: bool = True) -> list[str]:
    """Write encoder and decoder as programs that run without pyro_vae.

    Args:
        model: a trained model, on the CPU.
        folder: the folder to make: it is whole, or it is not there.
        overwrite: whether a folder of an earlier export is replaced.

    Returns:
        The names of the files.

    Raises:
        InputError: if q(z|x) is not a normal distribution with independent dimensions, a part
            cannot be exported, or the folder cannot be written.
    """
    folder = Path(folder)
    _check_place(folder, overwrite)
    kind, vae = model.kind, model.vae
    latent = (ROWS, model.options.latent_dim)
    parts: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "features": (_Features(kind), (kind.filler.expand(kind.shape).expand(ROWS, *kind.shape),)),
        "encoder": (_Encoder(vae), (torch.zeros(ROWS, *kind.feature_shape),)),
        "decoder": (_Decoder(vae), (torch.zeros(latent),)),
    }
    if isinstance(kind, Conditional):
        y = kind.filler[kind.size :].expand(ROWS, -1)
        parts["decoder"] = (_Decoder(vae), (torch.zeros(latent), y.float()))
    with torch.no_grad():
        _check_posterior(vae, parts["encoder"][1][0])
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        for name, (module, inputs) in parts.items():
            torch.export.save(_program(name, module, inputs), unfinished / f"{name}.pt2")
        text = json.dumps(describe(model), indent=2, ensure_ascii=False, allow_nan=False)
        (unfinished / "model.json").write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return list(FILES)


def _program(
    name: str, module: nn.Module, inputs: tuple[Tensor, ...]
) -> torch.export.ExportedProgram:
    """Return the program of a module whose inputs are rows, of any number."""
    rows = torch.export.Dim("rows", min=1)
    inputs = tuple(each.float().contiguous() for each in inputs)
    shapes: Any = tuple({0: rows} for _ in inputs)
    try:
        with torch.no_grad(), pyro.validation_enabled(False):
            return torch.export.export(module.eval(), inputs, dynamic_shapes=shapes, strict=False)
    except InputError:
        raise
    except Exception as error:  # torch raises many, for what it cannot export
        raise InputError(
            f"torch.export cannot export the {name} of this model ({type(error).__name__}): use "
            "the run with pyro_vae"
        ) from error


def _check_place(folder: Path, overwrite: bool) -> None:
    if not folder.absolute().parent.is_dir():
        raise InputError(f"there is no folder {folder.parent}: make it first", "out")
    if not folder.exists():
        return
    if not overwrite:
        raise InputError(
            f"{folder} exists: choose another name, or add --overwrite to replace it", "out"
        )
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - set(FILES):
        raise InputError(f"{folder} is no folder of an export: choose another name", "out")


def _check_posterior(vae: VAE, features: Tensor) -> None:
    """Refuse posteriors that their mean and scale do not describe."""
    base = vae.posterior(features) if vae.posterior.support != "layers" else None
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    if not isinstance(base, torch.distributions.Normal):
        raise InputError(
            f"the encoder of {type(vae.posterior).__name__} cannot be exported: only that of the "
            "posterior Normal can, which gives a mean and a scale"
        )


def describe(model: Trained) -> dict[str, Any]:
    """Return what `model.json` says."""
    kind, form = model.kind, model.form
    is_given = isinstance(kind, Conditional)
    return {
        "format": "pyro_vae export, version 1",
        "run": "" if model.folder is None else model.folder.absolute().name,
        "x": {
            "shape": list(kind.shape),
            "shape_without_conditions": list(form.of_x.shape),
            "dtype": "float32",
            "what": str(kind),
            "from_data": _x_from_data(form.of_x),
            "columns": [_column(spec) for spec in form.columns],
            "names": None if kind.names is None else list(kind.names),
            "conditions": [_column(spec) for spec in form.conditions],
            "base_measure": kind.base_measure().name,
        },
        "features": {
            "program": "features.pt2",
            "shape": list(kind.feature_shape),
            "from_x": _features_from_x(kind),
        },
        "encoder": {
            "program": "encoder.pt2",
            "inputs": ["features"],
            "outputs": ["mean of q(z|x)", "standard deviation of q(z|x)"],
            "latent_dim": model.options.latent_dim,
        },
        "decoder": {
            "program": "decoder.pt2",
            "inputs": ["z", "y, the conditions as in x"] if is_given else ["z"],
            "outputs": [
                "what is typical of p(x|z), without conditions, in the units of x: means of "
                "numbers, and the codes of the most probable categories; of pixels whose "
                "mean has no closed form, a picture"
            ],
        },
    }


def _column(spec: ColumnSpec) -> dict[str, Any]:
    return {**asdict(spec), "categories": list(spec.categories)}


def _x_from_data(kind: Kind) -> str:
    """Return in words how values of the data become x."""
    if isinstance(kind, Incomplete):
        return f"{_x_from_data(kind.whole)}; missing values are NaN"
    if isinstance(kind, Binary):
        chance = "the value" if kind.largest == 1 else f"value / {kind.largest}"
        return f"0 or 1: of values between the ends, 1 is drawn with probability {chance}"
    if isinstance(kind, UnitInterval) and kind.levels is not None:
        return f"(value + u) / {kind.levels}, with u uniform between 0 and 1"
    return "the values; categories are codes 0, 1, .. in the order of their names in columns"


def _features_from_x(kind: Kind) -> dict[str, Any]:
    """Return how x becomes features, with the numbers that this takes."""
    if isinstance(kind, Conditional):
        return {
            "how": "the features of x, and behind them those of the conditions y",
            "x": _features_from_x(kind.of),
            "y": _features_from_x(kind.given),
        }
    if isinstance(kind, Incomplete):
        return {
            "how": "the features, 0 where x is missing; and beside them 1 where x is there, else 0",
            "whole": _features_from_x(kind.whole),
        }
    if isinstance(kind, Columns):
        return {
            "how": "the features of each group of columns, one group behind another",
            "groups": [
                {"columns": list(places), **_features_from_x(part)} for part, places in kind.parts
            ],
        }
    if isinstance(kind, Standardised):
        transform = type(kind).transform.__name__.replace("positive", "identity")
        return {
            "how": "(t(x) - loc) / scale",
            "t": transform,
            "loc": kind.loc.tolist(),
            "scale": kind.scale.tolist(),
        }
    if isinstance(kind, Ordered):
        return {"how": "code / (K - 1), for K categories", "K": list(kind.sizes)}
    if isinstance(kind, Categories):
        return {"how": "one-hot vectors of K entries, one behind another", "K": list(kind.sizes)}
    if isinstance(kind, Levels):
        return {"how": "x / largest", "largest": kind.largest}
    return {"how": "x"}
