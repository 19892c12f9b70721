"""Work in batches gives the same results however often it is interrupted."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import LinearGaussian
from torch import Tensor, nn

from pyro_vae import InputError, bounds
from pyro_vae.bounds import Settings
from pyro_vae.bounds.batches import fastest, in_batches
from pyro_vae.programs.arguments import Arguments


def run(
    x: Tensor, keep: Path | None = None, stop_at: int | None = None, **changes: Any
) -> tuple[Tensor, int]:
    """Add noise to x and count the batches; raise an interrupt after `stop_at` batches."""
    done = 0

    def work(batch: Arguments, advance: Callable[[int], Any]) -> dict[str, Tensor]:
        nonlocal done
        if done == stop_at:
            raise KeyboardInterrupt
        done += 1
        return {"x": batch.args[0] + torch.randn(len(batch))}

    arguments = {
        "batch_size": 3,
        "seed": 1,
        "units": 1,
        "unit": "x",
        "work_name": "test",
        "progress": False,
        "depends_on": [],
        **changes,
    }
    return in_batches(work, Arguments(x), keep=keep, **arguments)["x"], done


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every batch."""
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
    again, count = run(x, keep)  # the caller removes the file
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


def test_noise_of_ones_own() -> None:
    """Each batch, seed, name of work, and module has its own noise."""
    noise, _ = run(torch.zeros(9))
    assert noise.unique().numel() == 9
    for changes in ({"seed": 2}, {"work_name": "other"}, {"depends_on": [nn.Linear(2, 2)]}):
        assert not torch.isin(run(torch.zeros(9), **changes)[0], noise).any()


def test_the_shown_text_does_not_change_the_noise(capsys: pytest.CaptureFixture[str]) -> None:
    plain, _ = run(torch.zeros(9), progress=True)
    described, _ = run(torch.zeros(9), progress=True, description="another text")
    assert torch.equal(plain, described)
    shown = capsys.readouterr().err
    assert "test:" in shown and "another text:" in shown


def test_the_progress_bar_counts_whole_things(capsys: pytest.CaptureFixture[str]) -> None:
    def work(batch: Arguments, advance: Callable[[int], Any]) -> dict[str, Tensor]:
        advance(1234 * len(batch))
        return {"x": batch.args[0]}

    asked: dict[str, Any] = {
        "keep": None,
        "seed": 0,
        "units": 1234,
        "unit": "draw",
        "depends_on": [],
    }
    in_batches(work, Arguments(torch.zeros(9)), work_name="a", batch_size=3, progress=True, **asked)
    shown = capsys.readouterr().err
    assert "| 0/11,106 [" in shown and "| 11,106/11,106 [" in shown


def test_functions_with_a_state_keep_nothing(tmp_path: Path) -> None:
    unknown = object()
    for program in (lambda: unknown, nn.Linear(2, 2).forward):
        with pytest.raises(InputError, match="have to be modules"):
            run(torch.zeros(9), tmp_path / "kept.pt", depends_on=[program])


# Compiling.


def test_bounds_are_the_same_compiled() -> None:
    """By importance sampling and by annealing, with a complete batch and a smaller one."""
    known = LinearGaussian(2)
    x = known.marginal.sample((20,))
    model, guide = known.vae.model, known.vae.guide
    exact = known.marginal.log_prob(x)
    before = torch.get_rng_state()
    importance = bounds.evaluate(model, guide, x, 2000, chunk_size=1500, compile=True)
    plain, annealed = (
        bounds.anneal(model, guide, x, Settings(20), batch_size=15, compile=compile)
        for compile in (False, True)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert abs(importance.iwae[2000].mean - exact.mean()) < 0.01 + 4.5 * importance.gap.mc_se
    assert importance.elbo.mean < importance.iwae[5].mean < importance.iwae[2000].mean
    # HMC's noise is not compiled: the weights are the same up to rounding.
    torch.testing.assert_close(annealed.log_w, plain.log_w, rtol=1e-6, atol=1e-6)


def test_what_cannot_be_compiled_is_said() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            scale = 1.0 if x.mean() > 0 else 2.0  # a structure that depends on the data
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, 1.0))

    x = torch.randn(4)
    with pytest.raises(InputError, match="cannot be compiled"):
        bounds.evaluate(model, guide, x, 3, compile=True)

    def call(arguments: Arguments) -> Any:
        return arguments.call(model)

    with pytest.warns(UserWarning, match="not compiled, and slower"):
        plain = fastest(call, arguments=Arguments(x), pixels=1e10, wanted=None)
    assert plain is call
    assert fastest(call, arguments=Arguments(x), pixels=1.0, wanted=None) is call


@pytest.mark.parametrize(
    "changes", [{"batch_size": 7}, {"batch_size": 200}, {"chunk_size": 30}, {"compile": False}]
)
def test_bounds_do_not_depend_on_batches_chunks_or_order(changes: dict[str, Any]) -> None:
    """Beyond their Monte Carlo error: the differences of the examples are noise."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.4 * x, 0.9))

    torch.manual_seed(0)
    x, order = torch.randn(200), torch.randperm(200)
    first = bounds.evaluate(model, guide, x, 200).bound
    other = bounds.evaluate(model, guide, x[order], 200, **changes).bound
    difference = other.values - first.values[order]
    deviation = (other.mc_variance + first.mc_variance[order]).sqrt()
    assert difference.abs().max() > 0  # the noise is another one
    assert (difference / deviation).square().mean() < 1.4  # 4 deviations of a mean of 200 squares
    assert difference.mean().abs() < 4 * deviation.square().sum().sqrt() / len(x)
