"""Encoder and decoder as programs of `torch.export` or ONNX, which run without pyro_vae.

| file | program |
|---|---|
| `features.pt2` | x, `float32` [N, *x] -> its features [N, *features] |
| `encoder.pt2` | features -> the parameters of q(z given x); see `exported_encoders` |
| `top_encoder.pt2` | the same for the upper one of two layers, if there are two |
| `decoder.pt2` | z [N, latent_dim] -> what is typical of p(x given z) |
| `model.json` | shapes, units, and how x and its features are made |

N may be any number above zero. With conditions y the first program takes [N, D + Dy], the values of
x and behind them those of y. The decoder then takes z and y, and returns x alone. Programs of ONNX
have the suffix `.onnx`.
"""

import gc
import importlib.util
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

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
from pyro_vae.runs.applying.exported_encoders import encoder_programs
from pyro_vae.runs.applying.held_folder import held
from pyro_vae.runs.applying.trained import Trained
from pyro_vae.vae import VAE

Format = Literal["torch", "onnx"]
SUFFIXES: dict[Format, str] = {"torch": "pt2", "onnx": "onnx"}
PROGRAMS = ("features", "encoder", "top_encoder", "decoder")
ROWS = 3  # of the example with which programs are traced


class _Features(nn.Module):
    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return self.kind.features(x)


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


def export(
    model: Trained, folder: str | Path, format: Format = "torch", *, overwrite: bool = True
) -> list[str]:
    """Write encoder and decoder as programs that run without pyro_vae.

    Args:
        model: a trained model, on the CPU.
        folder: the folder to make: it is whole, or it is not there.
        format: of the programs: those of `torch.export`, or ONNX.
        overwrite: whether a folder of an earlier export is replaced.

    Returns:
        The names of the files.

    Raises:
        InputError: if a part cannot be exported, packages are missing, or the folder cannot be
            written.
    """
    folder = Path(folder)
    _check_place(folder, overwrite)
    if format == "onnx" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise InputError('the format onnx needs pip install "pyro_vae[onnx]"', "format")
    kind, vae = model.kind, model.vae
    latent = torch.zeros(ROWS, model.options.latent_dim)
    encoders = encoder_programs(vae.posterior, ROWS)
    parts: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "features": (_Features(kind), (kind.filler.expand(kind.shape).expand(ROWS, *kind.shape),)),
        **{name: (each.module, each.inputs) for name, each in encoders.items()},
        "decoder": (_Decoder(vae), (latent,)),
    }
    if isinstance(kind, Conditional):
        y = kind.filler[kind.size :].expand(ROWS, -1)
        parts["decoder"] = (_Decoder(vae), (latent, y.float()))
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    with held(unfinished, folder):
        try:
            for path in unfinished.iterdir():  # of an export that was interrupted
                path.unlink()
            for name, (module, inputs) in parts.items():
                path = unfinished / f"{name}.{SUFFIXES[format]}"
                _save(_program(name, module, inputs), name, path)
            about = describe(model, format)
            text = json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False)
            (unfinished / "model.json").write_text(text + "\n", encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            unfinished.replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return [*(f"{name}.{SUFFIXES[format]}" for name in parts), "model.json"]


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
    finally:
        # torch.export makes a subclass of each module's class, with the same name. Options name
        # classes by their names alone, so they must not stay.
        gc.collect()


def _save(program: torch.export.ExportedProgram, name: str, path: Path) -> None:
    """Write a program, in the format of the suffix."""
    if path.suffix == ".pt2":
        torch.export.save(program, path)
        return
    # Without what no output needs, such as checks of a matrix, which ONNX may not have.
    program.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    try:
        converted = torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:  # torch raises many, for what ONNX does not have
        raise InputError(
            f"ONNX cannot express the {name} of this model ({type(error).__name__}): use the "
            "format torch",
            "format",
        ) from error
    assert converted is not None
    converted.save(path)


def _check_place(folder: Path, overwrite: bool) -> None:
    if not folder.absolute().parent.is_dir():
        raise InputError(f"there is no folder {folder.parent}: make it first", "out")
    if not folder.exists():
        return
    if not overwrite:
        raise InputError(f"{folder} exists: choose another name, or overwrite it", "overwrite")
    files = {f"{name}.{suffix}" for name in PROGRAMS for suffix in SUFFIXES.values()}
    files.add("model.json")
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - files:
        raise InputError(f"{folder} is not the folder of an export: choose another name", "out")


def describe(model: Trained, format: Format = "torch") -> dict[str, Any]:
    """Return what `model.json` says."""
    kind, form, suffix = model.kind, model.form, SUFFIXES[format]
    encoders = encoder_programs(model.vae.posterior, ROWS)
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
            "program": f"features.{suffix}",
            "shape": list(kind.feature_shape),
            "from_x": _features_from_x(kind),
        },
        **{
            name: {"program": f"{name}.{suffix}", **encoder.about}
            for name, encoder in encoders.items()
        },
        "decoder": {
            "program": f"decoder.{suffix}",
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
