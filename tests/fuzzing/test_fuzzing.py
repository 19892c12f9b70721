"""Random programs: each number is right, or refused in a sentence.

`longer_run.py` runs more of them, and counts them by kind; `mutations.py` tells how many programs
it takes to find a fault again when its mend is taken out.
"""

from random import Random

import pytest
import torch
from checks import CALLS, check
from descriptions import (
    WRONG_AUXILIARIES,
    Description,
    descriptions,
    random_description,
)
from hypothesis import HealthCheck, Phase, given, settings
from mutations import MENDS, Mend, fails_only_without
from pyro import poutine
from references import Case, quiet

FOUND = [  # each was wrong once
    Description(guide="AutoDiagonalNormal", batch_size=1),
    Description(examples=60, guide="AutoDiagonalNormal"),
    Description(examples=1, guide="AutoDiagonalNormal", named=True),
    Description(width=2, position="cumsum"),
    Description(width=2, position="view"),
    Description(sequential=True, batch_size=2),
    Description(global_width=2, tables="whole", batch_size=2),
    Description(global_width=1, classes=2, layers=0, tables="whole"),
    Description(examples=1, classes=3, layers=0, observation="factor", enumerate="model"),
    Description(classes=2, width=0, in_features=True, observation="plate", enumerate="model"),
    Description(dtype="float32", guide="AutoIAFNormal", named=True),
    Description(classes=2, width=0, positive=True, sequential=True, point="first layer"),
    Description(classes=2, emission="words", position="softmax", enumerate="model"),
    Description(examples=5, layers=0, width=2, features=3, noise_argument="first", scale="sized"),
    Description(examples=2, position="len"),
    Description(examples=9, covariates="one", batch_size=2),
    Description(auxiliary="folded"),
    Description(examples=2, dtype="bfloat16 data", classes=3, emission="coin", enumerate="model"),
    Description(width=0, in_features=True, observation="plate", noise_argument="first"),
    Description(
        examples=5,
        width=0,
        in_features=True,
        features=3,
        observation="plate",
        guide_plate="another name",
    ),
    Description(
        examples=2, width=0, in_features=True, observation="plate", guide_plate="another name"
    ),
    Description(
        examples=2,
        width=0,
        in_features=True,
        observation="plate",
        scale="sized",
        guide_plate="unsized",
    ),
    Description(classes=2, layers=2, circle="line", guide_plate="unsized", enumerate="guide"),
    Description(width=2, position="view", scale="subsample", named=True),
    Description(examples=1, classes=3, guide="full", tables="index", enumerate="guide"),
    Description(classes=2, enumerate="model", guide_plate="another name", shift=0.3, widen=0.3),
]


def calls_for(d: Description) -> tuple[str, ...]:
    """Return `evaluate` and three others of the calls: all take too long for every program."""
    others = [name for name in CALLS if name != "evaluate"]
    return ("evaluate", *Random(d.seed).sample(others, 3))


@settings(
    max_examples=45,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # the description names the program: no search for a smaller one
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(descriptions())
def test_a_number_is_right_or_refused(d: Description) -> None:
    outcome = check(d, calls_for(d))
    assert not outcome.failures, str(outcome)


@pytest.mark.parametrize("d", FOUND, ids=repr)
def test_what_was_wrong_once(d: Description) -> None:
    outcome = check(d)
    assert not outcome.failures, str(outcome)


@pytest.mark.parametrize("mend", MENDS, ids=lambda mend: mend.kind)
def test_a_fault_is_found_again_when_its_mend_is_taken_out(mend: Mend) -> None:
    assert fails_only_without(mend, mend.example)


def test_closed_forms_agree_with_runs_of_one_particle() -> None:
    """The evidence and the ELBO, by importance sampling in plain Pyro, one draw at a time."""
    compared = 0
    for number in range(60):
        d = random_description(Random(5000 + number))
        wrong = d.must_refuse or d.scale or d.auxiliary in WRONG_AUXILIARIES or d.mask
        if wrong or d.enumerate or d.dtype.startswith("bfloat16") or d.guide == "AutoIAFNormal":
            continue
        with quiet():
            case = Case(d)
            log_w = torch.tensor([_one_log_weight(case) for _ in range(60)]).double()
        reference, known = case.log_w_of(1), case.elbo_of(1)
        assert reference is not None and known is not None
        tolerance = 10 * case.tolerance
        error = reference.std() / len(log_w) ** 0.5 + tolerance
        assert (log_w.mean() - known[0]).abs() < 5 * error, d
        true = case.evidence.sum()
        if (reference - true).exp().std() < 2:
            ratio = (log_w - true).exp()
            error = (reference - true).exp().std() / len(log_w) ** 0.5 + tolerance
            assert (ratio.mean() - 1).abs() < 6 * error, d
        compared += 1
    assert compared > 15


def _one_log_weight(case: Case) -> float:
    call = case.call
    guide = poutine.trace(case.guide).get_trace(*call.args, **call.kwargs)
    model = poutine.trace(poutine.replay(case.model, trace=guide))
    log_p = model.get_trace(*call.args, **call.kwargs).log_prob_sum()
    return (log_p - guide.log_prob_sum()).item()


def test_a_description_prints_itself() -> None:
    d = random_description(Random(1))
    assert eval(repr(d)) == d
    assert repr(Description()) == "Description()"
