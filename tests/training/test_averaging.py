"""Averages of parameters: what they are, and that they are what is evaluated and saved."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from small_training import VALIDATION, equal, make_engine, parameters, train
from torch import Tensor, nn

from pyro_vae import InputError, checkpoint
from pyro_vae.objectives import ELBO
from pyro_vae.programs.random_streams import stream_seed
from pyro_vae.training import EMA, Averaging, Callback, EagerEngine, TailMean, Training, fit


class Steps(Callback):
    """Records the parameters that are trained, after each step."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    @contextlib.contextmanager
    def around_step(self, training: Training) -> Iterator[None]:
        yield
        self.seen.append(parameters(training.engine))


def averaged(*callbacks: Callback, folder: Path | None = None) -> tuple[EagerEngine, list]:
    engine, steps = make_engine(), Steps()
    train(engine, 3, folder, *callbacks, steps)  # 4 steps an epoch
    return engine, steps.seen


def test_training_is_not_changed_by_averaging(tmp_path: Path) -> None:
    plain, expected = averaged()
    engine, found = averaged(EMA(0.9), folder=tmp_path)
    assert len(found) == 12
    assert all(equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not equal(parameters(engine), parameters(plain))
    state = checkpoint.load(tmp_path / "checkpoint.pt")["callbacks"]["EMA"]
    assert state["count"] == 12 and equal(state["trained"], parameters(plain))


@pytest.mark.parametrize(
    ("average", "weights"),
    [
        # 1/2 and 1/3 are larger than 0.3: until then the mean of all steps.
        (EMA(0.7), [1 / 3 * 0.7**9] * 3 + [0.3 * 0.7 ** (8 - i) for i in range(9)]),
        (EMA(0.0), [0.0] * 11 + [1.0]),
        (TailMean(0.25), [0.0] * 9 + [1 / 3] * 3),
        (TailMean(0.0), [0.0] * 11 + [1.0]),
        (TailMean(1.0), [1 / 12] * 12),
    ],
)
def test_the_average(average: Averaging, weights: list[float]) -> None:
    assert sum(weights) == pytest.approx(1)
    engine, steps = averaged(average)
    for i, found in enumerate(parameters(engine)):
        expected = sum(w * step[i] for w, step in zip(weights, steps, strict=True))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_average_is_validated_and_saved(tmp_path: Path) -> None:
    engine, _ = averaged(EMA(0.9), folder=tmp_path)
    history = checkpoint.load(tmp_path / "checkpoint.pt")["history"]
    best = checkpoint.load(tmp_path / "best.pt")
    assert best["epoch"] == 3  # so it is that of the engine now
    assert equal(list(best["model"].values()), list(engine.model.state_dict().values()))
    assert equal(list(best["guide"].values()), list(engine.guide.state_dict().values()))
    torch.manual_seed(stream_seed(0, 0))
    bound = -engine.evaluate_loss(VALIDATION) / len(VALIDATION)
    assert bound == history[-1]["validation_bound"]


def test_an_interrupted_epoch_leaves_the_average() -> None:
    class Stop(Callback):
        @contextlib.contextmanager
        def around_step(self, training: Training) -> Iterator[None]:
            yield
            if training.step == 6:
                raise KeyboardInterrupt

    average, steps, engine = TailMean(1.0), Steps(), make_engine()
    with pytest.raises(KeyboardInterrupt):
        train(engine, 3, None, Stop(), average, steps)
    for i, found in enumerate(parameters(engine)):
        expected = sum(step[i] for step in steps.seen) / 6
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.norm(z), 1.0).to_event(1), obs=x)


def guide(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(3))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def test_what_is_refused() -> None:
    x = torch.randn(6, 3)
    model = Normalised()
    with pytest.raises(InputError, match="BatchNorm1d has batch statistics"):
        fit(EagerEngine(model, guide, ELBO()), x, epochs=1, batch_size=3, callbacks=[EMA()])
    model.norm = nn.Identity()
    with pytest.raises(InputError, match=r"have a pyro\.param"):
        fit(EagerEngine(model, guide, ELBO()), x, epochs=1, batch_size=3, callbacks=[EMA()])
    for make in (lambda: EMA(1.1), lambda: EMA(math.nan), lambda: TailMean(-0.1)):
        with pytest.raises(InputError, match="has to be between 0 and 1"):
            make()
