"""Schedules: the learning rates of all steps, and the batch sizes of all epochs."""

import math

import pytest
import torch
from small_training import Rates, Recorder

from pyro_vae import InputError
from pyro_vae.training import BatchDoubling, Constant, Cosine, Schedule, Stages, fit


def rates(schedule: Schedule, epochs: int = 4) -> list[float]:
    """Return the learning rates of all steps, five in an epoch."""
    engine = Rates()
    fit(
        engine, torch.zeros(9, 1), epochs=epochs, batch_size=2, callbacks=[schedule], progress=False
    )
    return engine.rates


def test_learning_rates() -> None:
    assert rates(Constant(0.3)) == [0.3] * 20
    half = [0.2 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    assert rates(Cosine(0.2)) == pytest.approx(half, rel=1e-12)
    assert rates(Cosine(0.2, last=0.1)) == pytest.approx([0.02 + 0.9 * lr for lr in half])
    # Two stages of 1/4 and 3/4 of the training.
    assert rates(Stages(0.3, stages=2, last=0.5)) == pytest.approx([0.3] * 5 + [0.15] * 15)


def test_warmup() -> None:
    assert rates(Constant(0.3, warmup=6)) == pytest.approx(
        [0.3 * min(step / 6, 1) for step in range(1, 21)]
    )
    cold, warm = rates(Cosine(1.0)), rates(Cosine(1.0, warmup=6))
    assert warm == pytest.approx([lr * min((i + 1) / 6, 1) for i, lr in enumerate(cold)])


def test_stages_of_burda_et_al() -> None:
    """Stage i of 0 .. 7 has 3^i passes with a learning rate of 10^-3 * 10^(-i/7)."""
    schedule = Stages(1e-3)
    found = [1e-3 * schedule.factor(epoch / 3280) for epoch in range(3280)]
    expected = [1e-3 * 10 ** (-i / 7) for i in range(8) for _ in range(3**i)]
    assert found == pytest.approx(expected, rel=1e-12)
    inside = [1e-3 * schedule.factor((epoch + 0.999) / 3280) for epoch in range(3280)]
    assert inside == found


def test_batches_are_doubled_after_equal_parts() -> None:
    for times, sizes in (
        (1, [3, 3, 3, 6, 6, 6]),
        (2, [3, 3, 6, 6, 12, 12]),
        (9, [3, 6, 24, 40, 40, 40]),  # there are 40 examples
    ):
        engine = Recorder()
        doubling = BatchDoubling(times)
        fit(
            engine,
            torch.arange(40.0)[:, None],
            epochs=6,
            batch_size=3,
            callbacks=[doubling],
            progress=False,
        )
        found = [len(batch) for batch in engine.batches]
        expected = [
            length
            for size in sizes
            for length in [size] * (40 // size) + [40 % size] * (40 % size > 0)
        ]
        assert found == expected


def test_settings_that_are_refused() -> None:
    for said, make in (
        ("learning rate has to be positive", lambda: Constant(0.0)),
        ("warmup has to be between 0", lambda: Constant(1.0, warmup=-1)),
        ("last has to be between 0 and 1", lambda: Cosine(1.0, last=1.5)),
        ("stages has to be between 2", lambda: Stages(1.0, stages=1)),
        ("growth has to be between", lambda: Stages(1.0, growth=0.0)),
        ("last has to be between 0 and 1", lambda: Stages(1.0, last=-1.0)),
        ("can be doubled 1 to 30 times, but 0", lambda: BatchDoubling(0)),
        ("can be doubled 1 to 30 times, but 31", lambda: BatchDoubling(31)),
    ):
        with pytest.raises(InputError, match=said):
            make()
