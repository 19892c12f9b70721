"""The arguments that the programs of a description are called with."""

from dataclasses import dataclass
from typing import Any

import torch
from constants import Rows
from descriptions import Description
from torch import Tensor

DTYPES = {"float64": torch.float64, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Call:
    """What the programs are called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def call_of(d: Description, rows: Rows, noise: Tensor) -> Call:
    """Return the arguments of the programs, for these examples and these scales of x."""
    parts = parts_of(d, rows, noise)
    if d.arguments == "none":
        return Call((), {})
    if d.arguments == "dict":
        return Call((parts,), {})
    if d.arguments == "keyword":
        return Call((parts.pop("x"),) if len(parts) > 1 else (), parts)
    return Call(tuple(parts.values()), {})


def parts_of(d: Description, rows: Rows, noise: Tensor) -> dict[str, Tensor]:
    """Return the tensors that the programs need, each with the examples along its first dimension.

    The class's symbol and the angle are columns of x. The scales of x belong to no example.
    """
    dtype = torch.bfloat16 if d.dtype.startswith("bfloat16") else DTYPES.get(d.dtype, torch.float32)
    x = rows.x
    if d.mask and d.mask_from == "nans":
        x = x.where(rows.observed, torch.nan)
    columns = [x]
    columns += [rows.symbol[:, None].double()] if d.emission else []
    columns += [rows.angle[:, None]] if d.circle else []
    parts = {"x": torch.cat(columns, 1).to(dtype)}
    if d.covariates == "argument":
        parts["y"] = rows.y.to(dtype)
    if d.mask and d.mask_from == "lengths":
        parts["lengths"] = rows.observed.sum(1)
    elif d.mask and d.mask_from == "argument":
        parts["mask"] = rows.observed
    if d.noise_argument:
        noise = noise.to(DTYPES.get(d.dtype, torch.float32))
        first, last = (parts, {"noise": noise})
        parts = {**first, **last} if d.noise_argument == "last" else {**last, **first}
    return parts
