"""Kinds as plain data, so that a file can hold them: numbers, strings, lists and tensors."""

from typing import Any

import torch

from pyro_vae.errors import InputError
from pyro_vae.kinds.binary import Binary
from pyro_vae.kinds.categories import Categories, Ordered
from pyro_vae.kinds.columns import Columns
from pyro_vae.kinds.conditional import Conditional
from pyro_vae.kinds.counts import Counts
from pyro_vae.kinds.incomplete import Incomplete
from pyro_vae.kinds.kind import Kind
from pyro_vae.kinds.levels import Levels
from pyro_vae.kinds.pixels import Pixels
from pyro_vae.kinds.positive import Positive
from pyro_vae.kinds.real import Real
from pyro_vae.kinds.standardised import Standardised
from pyro_vae.kinds.unit_interval import UnitInterval

CLASSES: dict[str, type[Kind]] = {
    each.__name__: each
    for each in (
        Binary,
        Categories,
        Columns,
        Conditional,
        Counts,
        Incomplete,
        Levels,
        Ordered,
        Positive,
        Real,
        UnitInterval,
    )
}


def to_state(kind: Kind) -> dict[str, Any]:
    """Return a kind, with its statistics, as plain data.

    Args:
        kind: a kind of this package, which may hold others.

    Raises:
        InputError: if it is of another class.
    """
    name = type(kind).__name__
    if CLASSES.get(name) is not type(kind):
        raise InputError(
            f"the kind {name} is not one of pyro_vae.kinds, and cannot be saved with a run: such a "
            "run is opened with its data"
        )
    state: dict[str, Any] = {"class": name}
    if kind.usual is not type(kind) and CLASSES.get(kind.usual.__name__) is kind.usual:
        state["usual"] = kind.usual.__name__
    if isinstance(kind, Conditional):
        return {**state, "of": to_state(kind.of), "given": to_state(kind.given)}
    if isinstance(kind, Incomplete):
        return {**state, "whole": to_state(kind.whole)}
    state["names"] = None if kind.names is None else list(kind.names)
    if isinstance(kind, Columns):
        return {**state, "parts": [[to_state(part), list(places)] for part, places in kind.parts]}
    state["shape"] = list(kind.shape)
    if isinstance(kind, Categories):
        state["categories"] = [list(names) for names in kind.categories]
    if isinstance(kind, Pixels):
        state["levels"] = kind.levels
    if isinstance(kind, Standardised):
        state |= {"loc": kind.loc.cpu().clone(), "scale": kind.scale.cpu().clone()}
    if isinstance(kind, Counts):
        state["total_is_known"] = kind.total_is_known
    return state


def from_state(state: dict[str, Any]) -> Kind:
    """Return the kind that `to_state` returned as plain data.

    Raises:
        InputError: if the data are not those of a kind.
    """
    try:
        kind = _make(dict(state))
        if "usual" in state:
            kind.usual = CLASSES[state["usual"]]
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"what the data are cannot be read from their description ({error!r}): it was written "
            "by a newer version, or is damaged"
        ) from error
    return kind


def _make(state: dict[str, Any]) -> Kind:
    state.pop("usual", None)
    make: Any = CLASSES[state.pop("class")]
    if make is Conditional:
        return make(from_state(state["of"]), from_state(state["given"]))
    if make is Incomplete:
        return make(from_state(state["whole"]))
    if make is Columns:
        parts = [(from_state(part), _all(int, at)) for part, at in state["parts"]]
        kind: Kind = make(parts, _names(state, sum(len(at) for _, at in parts)))
        return kind
    total_is_known = state.pop("total_is_known", False)
    _check(state)
    kind = make(**state)
    if isinstance(kind, Counts) and total_is_known:
        kind.total_is_known = True
    return kind


def _check(state: dict[str, Any]) -> None:
    """Raise an error if values are not of the types that `to_state` returns: files may be changed.

    Raises:
        TypeError, ValueError: if one is not.
    """
    shape = _all(int, state["shape"])
    if not all(0 < size < 2**31 for size in shape):
        raise ValueError(f"the shape {shape}")
    _names(state, shape[0] if len(shape) == 1 else None)
    for names in state.get("categories", ()):
        _all(str, names)
    if type(state.get("levels", 2)) not in (int, type(None)):
        raise TypeError("the number of levels")
    if ("loc" in state) != ("scale" in state):
        raise KeyError("loc without scale, or scale without loc")
    for name in ("loc", "scale"):
        value = state.get(name, torch.ones(()))
        if not value.is_floating_point() or value.shape not in ((), tuple(shape)):
            raise ValueError(f"{name} of the shape {value.shape}")
        if not value.isfinite().all() or (name == "scale" and not (value > 0).all()):
            raise ValueError(f"{name} {value}")


def _names(state: dict[str, Any], count: int | None) -> list[str] | None:
    """Return the names of columns; None if they have none."""
    names = state["names"]
    if names is not None and len(_all(str, names)) != count:
        raise ValueError(f"{len(names)} names for {count} columns")
    return names


def _all(of: type, values: Any) -> list[Any]:
    """Return a list, all of whose values have a type."""
    if not isinstance(values, list) or any(type(value) is not of for value in values):
        raise TypeError(f"{values!r:.50} is not a list of {of.__name__}")
    return values
