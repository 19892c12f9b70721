"""Bounds on log p(x) of anybody's Pyro programs, from the command line.

`pyro-vae evaluate --programs my_file.py:make --data x.npy --trust_code` calls `make()`, which
returns a model and a guide, and evaluates them on the data as `bounds` and `diagnostics` do.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pyro_vae import bounds, checkpoint, diagnostics
from pyro_vae.bounds.estimates import table
from pyro_vae.bounds.for_arviz import save
from pyro_vae.bounds.results import Result
from pyro_vae.errors import InputError
from pyro_vae.programs import ranks
from pyro_vae.runs import speaking
from pyro_vae.runs.parser import Parser, add_trust_code

IN_NETCDF = 50  # examples in bounds.nc


def parser() -> Parser:
    """Return a parser of an evaluation of programs."""
    result = Parser(description="Evaluate Pyro programs of your own: bounds on log p(x).")
    result.add_argument(
        "--programs",
        type=str,
        required=True,
        help="FILE.py:FUNCTION, which makes a model and a guide.",
    )
    result.add_argument(
        "--data",
        type=str,
        required=True,
        help="What both programs are called with: a .npy or .csv file, or a .pt file of a tensor "
        "or of several. Double precision becomes single.",
    )
    result.add_argument("--out", type=str, default="programs", help="The folder of the results.")
    result.add_argument("--num_samples", type=int, default=5000, help="K, the number of draws.")
    result.add_argument(
        "--num_examples", type=int, default=1000, help="How many of the first examples."
    )
    result.add_argument(
        "--method",
        type=Literal["importance", "ais"],
        default="importance",
        help="ais also bounds log p(x) from both sides, by annealing.",
    )
    result.add_class_arguments(bounds.Settings, "ais")
    result.add_argument("--plate", type=str | None, help="The plate of the examples.")
    result.add_argument("--draws", type=int, default=10, help="Draws in bounds.nc; 0 leaves it out")
    result.add_argument("--seed", type=int, default=0, help="The seed of all noise.")
    add_trust_code(result)
    speaking.add_quiet(result)
    return result


def evaluate(options: Any) -> str:
    """Evaluate programs, write `bounds.json` and `bounds.nc`, and return what is printed.

    Args:
        options: what `parser` parsed, with the classes made.

    Raises:
        InputError: if code is not trusted, the programs or the data cannot be read, or no bound
            follows from the programs.
    """
    if not options.trust_code:
        raise InputError(
            f"{options.programs} is code, which would be executed: read it, and add --trust_code"
        )
    x = _read(Path(options.data), options.num_examples)
    model, guide = _make(options.programs)
    for program in (model, guide):
        if isinstance(program, torch.nn.Module):
            program.eval()
    asked = {"plate": options.plate, "seed": options.seed, "progress": speaking.shows_progress()}
    with ranks.together():
        found: dict[str, Result] = {
            "iwae": bounds.evaluate(model, guide, x, options.num_samples, **asked)
        }
        if options.method == "ais":
            found["ais"] = bounds.anneal(model, guide, x, options.ais, **asked)
    sections = [
        f"{name.upper()}:\n\n{table(result.rows())}\n\n{result.verdict}"
        for name, result in found.items()
    ]
    content: dict[str, Any] = {"unit": "nats"}
    for name, result in found.items():
        content |= result.to_dict() if name == "iwae" else {name: result.to_dict()}
    try:
        code = diagnostics.diagnose(model, guide, x, seed=options.seed, plate=options.plate)
        content["code"] = code.to_dict()
        sections.append(str(code))
    except InputError as error:
        sections.append(f"The latent code is not diagnosed: {error}")
    folder = Path(options.out)
    sections.append(f"All results are in {folder}: bounds.*")
    shown = "\n" + "\n\n".join(sections)
    if not ranks.is_first():
        return shown
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    checkpoint.write(folder / "bounds.json", text.encode())
    if options.draws:
        first = bounds.Arguments.of(x).take(slice(IN_NETCDF))
        data = bounds.inference_data(
            model, guide, first, options.draws, seed=options.seed, plate=options.plate
        )
        save(data, folder / "bounds.nc")
    return shown


def _make(name: str) -> tuple[Any, Any]:
    """Return the model and the guide that a function in a file makes."""
    file, _, function = name.rpartition(":")
    path = Path(file)
    if not function.isidentifier() or not path.is_file():
        raise InputError(
            f"{name} has to be FILE.py:FUNCTION, and there is no such file", "programs"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is not a Python file", "programs")
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise InputError(f"{file} has no function {function}", "programs")
    made = getattr(module, function)()
    if not (isinstance(made, tuple) and len(made) == 2 and all(map(callable, made))):
        raise InputError(f"{name} has to return a model and a guide, which can be called")
    return made


def _read(path: Path, most: int) -> Any:
    """Return the first examples of a file: a tensor, or a tuple of tensors."""
    try:
        if path.suffix == ".npy":
            read: Any = torch.from_numpy(np.load(path, allow_pickle=False))
        elif path.suffix == ".csv":
            import pandas as pd

            read = torch.from_numpy(pd.read_csv(path).to_numpy(np.float32))
        elif path.suffix == ".pt":
            read = torch.load(path, weights_only=True)
        else:
            raise InputError(f"{path} cannot be read: give a .npy, .csv or .pt file", "data")
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}", "data") from error
    except Exception as error:  # readers raise many types of errors
        raise InputError(f"{path} cannot be read as tensors of numbers: {error}", "data") from error
    tensors = tuple(read) if isinstance(read, list | tuple) else (read,)
    if not all(isinstance(each, torch.Tensor) and each.dim() for each in tensors):
        raise InputError(f"{path} holds something other than tensors with rows", "data")
    first = tuple((each.float() if each.is_floating_point() else each)[:most] for each in tensors)
    return first if len(first) > 1 else first[0]
