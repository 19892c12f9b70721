"""A checkpoint in which somebody changed a value is refused, or training goes on from it.

CHANGES_OF_EACH=10 pytest -n 0 tests/training/test_changed_checkpoints.py
"""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import IMAGES
from test_everything_at_once import Interrupt, trained

from pyro_vae import DivergenceError, InputError, checkpoint
from pyro_vae.training import EagerEngine

CHANGES_OF_EACH = int(os.environ.get("CHANGES_OF_EACH", "1"))
ODD = (None, 3, "x", [], {}, torch.zeros(2), torch.full((3,), torch.nan), -1.5, 10**30)


def places(state: Any, *before: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to each value in nested dictionaries and lists."""
    if isinstance(state, dict | list):
        for key in [*state] if isinstance(state, dict) else range(len(state)):
            yield (*before, key)
            yield from places(state[key], *before, key)


@pytest.mark.filterwarnings("ignore")  # of what training warns about does not matter here
def test_no_change_ends_in_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    with pytest.raises(KeyboardInterrupt):
        trained(EagerEngine, tmp_path / "whole", {"warmup": 2.5}, Interrupt([22]))
    path = tmp_path / "whole/checkpoint.pt"
    whole = checkpoint.load(path)
    assert 0 < whole["place"]["examples"] < len(IMAGES) and len(whole["history"]) > 1
    ended = {"refused": 0, "went on": 0}
    for number, (*keys, last) in enumerate(places(whole)):
        every = [*ODD, "deleted"]
        odd = [every[(3 * number + shift) % len(every)] for shift in range(CHANGES_OF_EACH)]
        for value in odd:
            state = copy.deepcopy(whole)
            holder = state
            for key in keys:
                holder = holder[key]
            if value == "deleted":
                del holder[last]
            else:
                holder[last] = value
            checkpoint.save(path, state)
            try:
                trained(EagerEngine, path.parent, {"warmup": 2.5})
                ended["went on"] += 1
            except (InputError, DivergenceError):
                ended["refused"] += 1
            except Exception as error:
                raise AssertionError(f"{[*keys, last]} is {value!r}") from error
    assert ended["refused"] > ended["went on"] > 0, ended
