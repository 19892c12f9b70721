"""Kinds as plain data, so that a file can hold them: numbers, strings, lists and tensors."""

from typing import Any

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
    except (AttributeError, KeyError, TypeError, ValueError) as error:
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
        return make([(from_state(part), at) for part, at in state["parts"]], state["names"])
    total_is_known = state.pop("total_is_known", False)
    kind: Kind = make(**state)
    if isinstance(kind, Counts) and total_is_known:
        kind.total_is_known = True
    return kind
