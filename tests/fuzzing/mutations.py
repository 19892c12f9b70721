"""The library with one of its mends taken out: the fuzzer has to find the fault again.

    python tests/fuzzing/mutations.py --most 500

prints for each mend how many random programs it took until a number was wrong, or an error was
raised, that is right or refused with the mend in its place.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest import mock

import pyro
import torch
from checks import check
from descriptions import Description, random_description
from pyro.distributions.util import scale_and_mask

from pyro_vae.programs.compiling import _run_without_effect as compiling_run
from pyro_vae.programs.looking import look_at


@dataclass(frozen=True)
class Mend:
    """A mend of the library.

    Attributes:
        kind: the kind of the fault that it mends.
        patches: what is put in the place of functions, by their names.
        example: a program that is right or refused with the mend only.
        calls: the calls that can find it; None for all that are quick.
    """

    kind: str
    patches: dict[str, Callable[..., Any]]
    example: Description
    calls: tuple[str, ...] = ("evaluate", "log_weights", "ELBO")

    @contextlib.contextmanager
    def taken_out(self) -> Iterator[None]:
        """Take the mend out."""
        with contextlib.ExitStack() as stack:
            for target, replacement in self.patches.items():
                stack.enter_context(mock.patch(target, replacement))
            yield


def nothing(*_: Any, **__: Any) -> None:
    """Find nothing."""


def no_noise(*_: Any, **__: Any) -> dict[str, str]:
    """Find nothing wrong with auxiliary sites."""
    return {}


def own_mask(site: dict[str, Any], _: Any, scale: Any) -> Any:
    """Use the guide's own mask."""
    return scale_and_mask(site["unscaled_log_prob"], scale, site["mask"])


def run_in_a_scope(function: Callable[..., Any], nest: Any) -> None:
    """Run a function before it is compiled, and forget the parameters that it makes."""
    with pyro.get_param_store().scope():
        compiling_run(function, nest)


@contextlib.contextmanager
def no_care() -> Iterator[None]:
    """Take no care of anything."""
    yield


def unchecked_look(*args: Any, **kwargs: Any) -> Any:
    """Look at programs without Pyro's own check of values."""
    with pyro.validation_enabled(False):
        return look_at(*args, **kwargs)


LOOKING = "pyro_vae.programs.looking"
BROAD = {"shift": 0.3, "widen": 0.3}
MENDS = [
    Mend(
        "vectorisation by position",
        {f"{LOOKING}.between_particles": nothing},
        Description(width=2, position="cumsum"),
    ),
    Mend(
        "covariates by index",
        {f"{LOOKING}.between_batches": nothing},
        Description(covariates="index", batch_size=1),
        ("evaluate",),
    ),
    Mend(
        "points beside draws",
        {f"{LOOKING}.check_change_of_variables": no_noise},
        Description(layers=2, point="AutoGuideList", **BROAD),
        ("evaluate",),
    ),
    Mend(
        "partly observed",
        {"pyro_vae.programs.pair.counted": own_mask, f"{LOOKING}.check_masks": nothing},
        Description(observation="obs_mask", mask="observed", guide="AutoNormal"),
        ("evaluate", "ELBO"),
    ),
    Mend(
        "angles",
        {"pyro_vae.bounds.coordinates.is_circle": lambda *_: False},
        Description(seed=2, examples=5, circle="line", layers=0, **BROAD),
        ("anneal",),
    ),
    Mend(
        "outside the support later",
        {f"{LOOKING}.check_values": nothing, "pyro_vae.bounds.importance.look_at": unchecked_look},
        Description(classes=2, emission="coin", outside="coin", batch_size=1),
        ("evaluate",),
    ),
    Mend(
        "parameters that are not registered",
        {"pyro_vae.training.eager_engine.zero_grads": nothing},
        Description(**BROAD),
        ("training",),
    ),
    Mend(
        "a store of parameters without values",
        {
            "pyro_vae.programs.compiling._no_parameters_made": no_care,
            "pyro_vae.programs.compiling._run_without_effect": run_in_a_scope,
        },
        Description(parameters="pyro.param", **BROAD),
        ("compiled",),
    ),
    Mend(
        "wrong auxiliary sites",
        {f"{LOOKING}.check_change_of_variables": no_noise},
        Description(auxiliary="no jacobian"),
        ("evaluate",),
    ),
    Mend(
        "masks on one side",
        {"pyro_vae.programs.pair.counted": own_mask, f"{LOOKING}.check_masks": nothing},
        Description(mask="guide only", **BROAD),
        ("evaluate", "ELBO"),
    ),
    Mend(
        "draws of other examples",
        {"pyro_vae.programs.pair._subsamples": nothing},
        Description(scale="subsample", position="view", width=2),
        ("IWAE",),
    ),
    Mend(
        "names of plates, with enumeration",
        {f"{LOOKING}._check_names_of_plates": nothing},
        Description(classes=2, enumerate="model", guide_plate="another name", **BROAD),
        ("ELBO",),
    ),
]


def fails_only_without(mend: Mend, d: Description) -> str | None:
    """Return what is wrong with a program when the mend is taken out, and not with it in place."""
    with mend.taken_out():
        failures = check(d, mend.calls).failures
    if not failures or check(d, mend.calls).failures:
        return None
    return "; ".join(f"{call}: {text}" for call, text in failures.items())


def programs_until_found(mend: Mend, most: int, first: int = 0) -> tuple[int, str] | None:
    """Return the number of random programs until the fault is found, and what is wrong then."""
    for count in range(1, most + 1):
        found = fails_only_without(mend, random_description(Random(first + count)))
        if found:
            return count, found
    return None


def main() -> None:
    """Print the number of programs for each mend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for mend in MENDS:
        found = programs_until_found(mend, options.most, options.first)
        count, text = found or (0, f"not found in {options.most} programs")
        print(f"{mend.kind:40} {count or '-':>5}  {text[:150]}", flush=True)


if __name__ == "__main__":
    main()
