"""Work in batches: the same results however it is interrupted, and only from what fits."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_vae.bounds.batches import in_batches


def run(
    x: Tensor, keep: Path | None = None, stop_at: int | None = None, **changes: Any
) -> tuple[Tensor, int]:
    """Add noise to x, and say how many batches that took; perhaps be stopped before it is done."""
    done = 0

    def work(batch: Tensor, advance: Callable[[int], Any]) -> dict[str, Tensor]:
        nonlocal done
        if done == stop_at:
            raise KeyboardInterrupt
        done += 1
        return {"x": batch + torch.randn(len(batch))}

    arguments = {
        "batch_size": 3,
        "seed": 1,
        "units": 1,
        "unit": "x",
        "description": "test",
        "progress": False,
        "depends_on": [],
        **changes,
    }
    return in_batches(work, x, keep=keep, **arguments)["x"], done


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every batch."""
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr("pyro_vae.bounds.batches.time.monotonic", lambda: next(clock))


@pytest.mark.usefixtures("impatient")
def test_what_was_interrupted_goes_on(tmp_path: Path) -> None:
    x, keep = torch.arange(10.0), tmp_path / "kept.pt"
    before = torch.get_rng_state()
    whole, count = run(x)
    assert count == 4 and torch.equal(before, torch.get_rng_state())
    for stop in (2, 1):
        with pytest.raises(KeyboardInterrupt):
            run(x, keep, stop)
    again, count = run(x, keep)
    assert torch.equal(again, whole) and count == 1
    again, count = run(x, keep)  # it is the caller who removes the file
    assert torch.equal(again, whole) and count == 0


@pytest.mark.usefixtures("impatient")
def test_nothing_goes_on_from_what_is_different(tmp_path: Path) -> None:
    x, keep = torch.arange(10.0), tmp_path / "kept.pt"
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)
    function = partial(max, module, key=1)
    run(x, keep, depends_on=[module, "a", function])
    assert run(x, keep, depends_on=[module, "a", partial(max, module, key=1)])[1] == 0
    for changes in (
        {"depends_on": [other, "a", function]},
        {"depends_on": [module, "b", function]},
        {"depends_on": [module, "a", partial(max, other, key=1)]},
        {"depends_on": [module, "a", partial(max, module, key=2)]},
        {"depends_on": [module, "a", function], "seed": 2},
        {"depends_on": [module, "a", function], "batch_size": 4},
    ):
        assert run(x, keep, **changes)[1] > 0
        run(x, keep, depends_on=[module, "a", function])
    assert run(x + 1, keep, depends_on=[module, "a", function])[1] > 0
    keep.write_bytes(b"cut short")
    assert run(x, keep, depends_on=[module, "a", function])[1] == 4


def test_batches_have_noise_of_their_own() -> None:
    found, _ = run(torch.zeros(9))
    assert found.unique().numel() == 9
    assert not torch.equal(found, run(torch.zeros(9), seed=2)[0])
