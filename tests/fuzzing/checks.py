"""What is asked of the library for each program, and how the answer is judged.

Each call gives `right`, `refused: ..`, or what is wrong. A refusal is an `InputError` or a
`ValueError` in one sentence. Any other error is a failure, unless Pyro's own ELBO raises one, too.

Numbers are compared within `SIGMA` standard errors. The errors come from log-weights that are drawn
from the closed forms; the results' own errors are used only where the guide's law is unknown.
"""

import inspect
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any
from unittest import mock

import closed_forms
import pyro
import torch
from calls import call_of
from constants import Rows
from descriptions import Description
from references import Case, quiet
from torch import Tensor

from pyro_vae import bounds, objectives, training
from pyro_vae.bounds import Arguments
from pyro_vae.programs.compiling import CannotCompile, Compiled

SIGMA = 4.5
SINGLE_SIGMA = 5.5  # for the largest of several numbers, or with an error from a few repeats
DRAWS = 120
COMPILED_DRAWS = 8  # a graph of programs that are not vectorised grows with them
LONGEST_SENTENCE = 400


class Wrong(AssertionError):
    """A number that is wrong."""


class NotAsked(Exception):
    """A call for which there is no reference."""


@dataclass
class Outcome:
    """What came of a program.

    Attributes:
        d: the description.
        calls: the judgement on each call.
        pyro_takes: whether Pyro's own ELBO takes the program.
    """

    d: Description
    calls: dict[str, str] = field(default_factory=dict)
    pyro_takes: bool = True

    @property
    def failures(self) -> dict[str, str]:
        """The calls that are wrong, or raised what they should not."""
        good = ("right", "refused", "not asked", "Pyro refuses")
        return {k: v for k, v in self.calls.items() if not v.startswith(good)}

    @property
    def refused(self) -> dict[str, str]:
        """The calls that were refused."""
        return {k: v for k, v in self.calls.items() if v.startswith("refused")}

    @property
    def counts_for_the_share(self) -> bool:
        """Whether a refusal of this program is one too many."""
        whole = bool(self.d.batch_size) and (self.d.needs_the_whole or self.d.is_automatic)
        impossible = whole or self.d.asks_for_parts_of_one_evidence
        return self.pyro_takes and self.d.may_refuse is None and not impossible

    def __str__(self) -> str:
        lines = [repr(self.d)]
        lines += [f"    {name}: {text}" for name, text in self.calls.items()]
        return "\n".join(lines)


def check(d: Description, only: tuple[str, ...] | None = None) -> Outcome:
    """Ask the library everything about one program."""
    outcome = Outcome(d)
    with quiet(), pyro.validation_enabled(True):
        case = Case(d)
        outcome.pyro_takes = case.pyro_error is None
        for name, call in CALLS.items():
            if only is None or name in only:
                outcome.calls[name] = _judge(case, call)
    return outcome


def _judge(case: Case, call: Callable[[Case], None]) -> str:
    torch.manual_seed(case.d.seed)
    try:
        call(case)
    except NotAsked:
        return "not asked"
    except Wrong as error:
        return f"WRONG: {error}"
    except ValueError as error:
        text = str(error)
        if "\n" in text or len(text) > LONGEST_SENTENCE:
            if case.pyro_error is not None:
                return f"Pyro refuses: {type(error).__name__}"
            return f"NOT ONE SENTENCE: {type(error).__name__}: {text[:200]!r}"
        return f"refused: {text}"
    except Exception as error:
        if case.pyro_error is not None:
            return f"Pyro refuses: {type(error).__name__}"
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:160]
        return f"ERROR: {type(error).__name__}: {text} ({where.filename}:{where.lineno})"
    return "right"


def data_of(case: Case) -> Any:
    """Return the arguments of the programs, as `bounds` takes them."""
    args, kwargs = case.call.args, case.call.kwargs
    if kwargs or not args:
        return Arguments(*args, **kwargs)
    return args[0] if len(args) == 1 else args


def options_of(case: Case, function: Callable[..., Any]) -> dict[str, Any]:
    """Return the optional arguments: the plate's name and the batch size."""
    options: dict[str, Any] = {}
    if case.d.named:
        options["plate"] = case.d.plate
    if case.d.batch_size and case.d.arguments != "none":
        if "batch_size" in inspect.signature(function).parameters:
            options["batch_size"] = case.d.batch_size
    return options


def is_exact(case: Case) -> bool:
    """Whether all log-weights are log p(x), but for rounding."""
    return case.log_w is not None and bool((case.log_w.std(0) < 1e-5).all())


def refuse_numbers(case: Case) -> None:
    """Say that a number was returned where there is no right one."""
    reason = case.d.must_refuse or case.d.has_no_right_number
    if reason:
        raise Wrong(f"a number, and there is none: {reason}")


def near(name: str, found: Tensor, true: Tensor, error: Tensor, tolerance: float) -> None:
    """Compare numbers, and their mean, with the true ones.

    Args:
        name: what they are.
        found: numbers, [G].
        true: the same.
        error: their standard errors, [G].
        tolerance: how far rounding may move a number.
    """
    found, true = found.double(), true.double()
    away = (found - true).abs()
    if not bool(torch.isfinite(found).all()):
        raise Wrong(f"{name} {found.tolist()} for {true.tolist()}")
    if (away > SINGLE_SIGMA * error + tolerance).any():
        sigma = (away / (error + tolerance / SINGLE_SIGMA)).max()
        raise Wrong(f"{name} {_shown(found)} for {_shown(true)}, {sigma:.1f} standard errors away")
    mean_error = error.square().sum().sqrt() / len(error)
    if (found.mean() - true.mean()).abs() > SIGMA * mean_error + tolerance:
        raise Wrong(f"{name}, mean {found.mean():.5g} for {true.mean():.5g} +- {mean_error:.2g}")


def _shown(values: Tensor) -> str:
    return "[" + ", ".join(f"{v:.5g}" for v in values.tolist()) + "]"


def not_above(name: str, found: Tensor, true: Tensor, error: Tensor, tolerance: float) -> None:
    """Say that lower bounds are above what they bound."""
    if not bool(torch.isfinite(found).all()):
        raise Wrong(f"{name} {found.tolist()} for {true.tolist()}")
    if (found - true > SINGLE_SIGMA * error + tolerance).any():
        raise Wrong(f"{name} {_shown(found)} above {_shown(true)} +- {_shown(error)}")


def unbiased(name: str, case: Case, log_mean: Tensor, own_error: Tensor, count: int) -> None:
    """Check that a mean weight has the expectation p(x).

    Args:
        name: what the mean is of.
        case: the program.
        log_mean: the logarithms of mean weights, [G].
        own_error: their errors by the result itself, [G], used if no other is known.
        count: the number of weights in a mean.
    """
    parts = len(log_mean)
    true = case.evidence_of(parts)
    if true is None:
        raise Wrong(f"{name}: {parts} numbers, where there is evidence of {len(case.evidence)}")
    ratio = (log_mean.double() - true).exp()
    log_w = case.log_w_of(parts)
    if log_w is not None:
        error = (log_w - true).exp().std(0) / count**0.5
    else:
        error = 0.1 + own_error * ratio.clamp(min=1)
    heavy = log_w is not None and bool(((log_w - true).exp().mean(0) - 1).abs().max() > 0.3)
    if (
        heavy or (error > 0.25).any()
    ):  # too heavy a tail to judge by, but for numbers that are far away
        not_above(name, log_mean.double(), true, 3 + 0 * error, case.tolerance)
        return
    near(f"{name}, on the scale of w / p(x),", ratio, torch.ones_like(ratio), error, case.tolerance)


def check_elbo(name: str, case: Case, values: Tensor, own_error: Tensor, count: int) -> None:
    """Check estimates of the ELBO from so many draws each."""
    parts = len(values)
    evidence = case.evidence_of(parts)
    if evidence is None:
        raise Wrong(f"{name}: {parts} numbers, where there is evidence of {len(case.evidence)}")
    known, log_w = case.elbo_of(parts), case.log_w_of(parts)
    if known is None or log_w is None:
        not_above(name, values, evidence, own_error, case.tolerance)
        return
    error = (log_w.var(0) / count + known[1].square()).sqrt()
    near(name, values, known[0], error, case.tolerance)


def check_evaluate(case: Case) -> None:
    """`bounds.evaluate`: the row of the ELBO, and the last rung."""
    d = case.d
    draws = 5 if is_exact(case) else DRAWS
    state = torch.get_rng_state()
    result = bounds.evaluate(
        case.model,
        case.guide,
        data_of(case),
        draws,
        ladder=(1,),
        seed=d.seed,
        **options_of(case, bounds.evaluate),
    )
    if not torch.equal(state, torch.get_rng_state()):
        raise Wrong("the global random state is another one")
    refuse_numbers(case)
    top = result.iwae[draws]
    own = _nan_to(top.mc_variance.sqrt(), 1.0)
    said = getattr(result, "evidence_of", None)
    if said is not None:
        parts = "each example" if len(top.values) == d.examples and d.examples > 1 else None
        if d.has_one_evidence and said == "each example":
            raise Wrong("the evidence is said to be of each example, and is of the data set")
        if parts and said != parts:
            raise Wrong(f"{len(top.values)} numbers are said to be the evidence of {said}")
    check_elbo(
        "ELBO", case, result.elbo.values, _nan_to(result.elbo.mc_variance.sqrt(), 1.0), draws
    )
    unbiased(f"IWAE_{draws}", case, top.values, own, draws)
    _check_own_error(case, top, draws)


def _nan_to(values: Tensor, number: float) -> Tensor:
    return values.double().nan_to_num(number, posinf=number)


def _check_own_error(case: Case, top: Any, draws: int) -> None:
    """Check the Monte Carlo error that the result states, where it can be estimated well."""
    log_w, true = case.log_w_of(len(top.values)), case.evidence_of(len(top.values))
    if log_w is None or true is None or is_exact(case) or not math.isfinite(top.mc_se):
        return
    variances = (log_w - true).exp().var(0)
    if variances.max() > 1:
        return
    error = (variances.sum() / draws).sqrt().item() / len(variances)
    if not (error - case.tolerance) / 2.5 < top.mc_se < 2.5 * (error + case.tolerance):
        raise Wrong(f"the stated Monte Carlo error is {top.mc_se:.3g} for {error:.3g}")


def check_log_weights(case: Case) -> None:
    """`bounds.log_weights`: the mean, and the mean of the weights."""
    draws = 5 if is_exact(case) else DRAWS // 2
    options = options_of(case, bounds.log_weights)
    with torch.no_grad():
        log_w = bounds.log_weights(case.model, case.guide, data_of(case), draws, **options)
    refuse_numbers(case)
    log_w = log_w.double()
    if log_w.dim() != 2 or len(log_w) != draws:
        raise Wrong(f"log-weights of shape {list(log_w.shape)} for {draws} draws")
    own = log_w.std(0) / draws**0.5
    check_elbo("the mean log-weight", case, log_w.mean(0), own, draws)
    ratio_error = (log_w - log_w.logsumexp(0) + math.log(draws)).exp().std(0) / draws**0.5
    unbiased("mean weight", case, bounds.iwae(log_w), ratio_error, draws)


def check_anneal(case: Case) -> None:
    """`bounds.anneal`: both bounds, and the mean weight of the chains."""
    settings = bounds.Settings(temperatures=4, chains=40, leapfrog=2)
    if case.d.circle and case.d.position:  # one run for each chain and move: minutes
        raise NotAsked
    if case.d.circle:  # chains need many moves to get around it
        settings = bounds.Settings(temperatures=30, chains=100, leapfrog=3)
    result = bounds.anneal(
        case.model,
        case.guide,
        data_of(case),
        settings,
        seed=case.d.seed,
        **options_of(case, bounds.anneal),
    )
    refuse_numbers(case)
    log_w = result.log_w.double()
    chains, parts = log_w.shape
    true = case.evidence_of(parts)
    if true is None:
        raise Wrong(f"AIS: {parts} numbers, where there is evidence of {len(case.evidence)}")
    weights = (log_w - true).exp()
    error = weights.std(0) / chains**0.5
    first = case.log_w_of(parts)  # the weights of chains without a move: their tails are heavier
    rough = error if first is None else (first - true).exp().std(0) / chains**0.5
    heavy = first is not None and bool(((first - true).exp().mean(0) - 1).abs().max() > 0.3)
    if heavy or (error > 0.2).any() or (rough > 0.3).any():
        not_above("AIS, lower", result.lower.values, true, 3 + 0 * error, case.tolerance)
        return
    ratio = weights.mean(0)
    near("AIS, on the scale of w / p(x),", ratio, torch.ones(parts), error, case.tolerance)
    upper = result.upper
    low = (upper.values - true) / (upper.mc_variance.sqrt() + case.tolerance)
    if (low < -SINGLE_SIGMA).any():
        raise Wrong(f"AIS, upper {_shown(upper.values)} below {_shown(true)}")


def check_elbo_loss(case: Case, objective: Any = None) -> None:
    """`objectives.ELBO`'s loss: minus the ELBO of all examples, or what Pyro's ELBO is."""
    subsampled = case.d.scale == "subsample"
    particles = 3 if is_exact(case) and case.scale and not objective else DRAWS
    objective = objective or objectives.ELBO(num_particles=particles)
    repeats = 30 if subsampled else 1  # all draws of a loss are of the same examples
    found = -torch.tensor(
        [
            objective.loss(case.model, case.guide, *case.call.args, **case.call.kwargs)
            for _ in range(repeats)
        ]
    ).double()
    if case.d.outside:
        refuse_numbers(case)
    log_w, known = case.log_w_of(1), case.elbo_of(1)
    has_reference = case.scale is None or case.d.point
    if has_reference and case.d.masks_the_model_alone:
        raise NotAsked  # Pyro leaves the guide's sites without this mask
    if has_reference:
        _compare_with_pyro(case, found, repeats if subsampled else particles)
        return
    refuse_numbers(case)
    scale = case.scale or 1.0
    if log_w is None or known is None:
        own = log_w.std() if log_w is not None else torch.tensor(5.0)
        evidence = case.evidence.sum()[None]
        error = own / particles**0.5
        not_above("ELBO", found, scale * evidence, scale * error[None], case.tolerance)
        return
    error = (log_w.var(0) / particles + known[1].square()).sqrt()
    near("ELBO", found, scale * known[0], scale * error, case.tolerance * scale)


def _compare_with_pyro(case: Case, found: Tensor, draws: int) -> None:
    """Compare ELBOs of so many draws in all with Pyro's, one draw at a time.

    The spread of a few losses is often too small, since most have a long tail: a difference counts
    if it is there with many more of Pyro's draws, whose spread is then known.
    """
    for count in (60, 1000):
        losses = torch.tensor([case.pyro_loss() for _ in range(count)]).double()
        error = losses.std() * (1 / count + 1 / draws) ** 0.5
        try:
            near("ELBO", found.mean()[None], -losses.mean()[None], error[None], case.tolerance)
            return
        except Wrong:
            if count > 60:
                raise


def check_iwae_loss(case: Case) -> None:
    """`objectives.IWAE`'s loss, the mean over repeats, against log-weights of the closed forms."""
    subsampled = case.d.scale == "subsample"
    draws, repeats = 5, 1 if is_exact(case) and not subsampled else 30
    objective = iwae_of(case, draws)
    losses = [
        objective.loss(case.model, case.guide, *case.call.args, **case.call.kwargs)
        for _ in range(repeats)
    ]
    if subsampled and not case.d.must_refuse:  # the mean over the examples that runs take
        _check_subsampled(case, draws, -torch.tensor(losses).double())
        return
    refuse_numbers(case)
    if case.scale is None and case.d.scale != "sized":
        raise Wrong("a number, where the scales of sites differ")
    if case.log_w is None or case.d.enumerate == "guide" or case.scale is None:
        return
    found = -torch.tensor(losses).double() / case.scale
    of_parts, of_whole = (_iwae(log_w, draws) for log_w in (case.log_w, case.log_w_of(1)))
    whole_error = (of_whole.var() / len(of_whole) + of_whole.var() / repeats).sqrt()
    if case.d.is_automatic and not case.d.has_one_evidence:
        # A bound of each example is above that of the data set. The first has no reference here.
        error = found.std() / repeats**0.5 if repeats > 1 else torch.zeros(())
        true = case.evidence.sum()[None]
        not_above("IWAE", found.mean()[None], true, error[None], case.tolerance)
        not_above("IWAE", of_whole.mean()[None], found.mean()[None], whole_error, case.tolerance)
        return
    try:
        error = (of_parts.var() / len(of_parts) + of_parts.var() / repeats).sqrt()
        near("IWAE", found.mean()[None], of_parts.mean()[None], error[None], case.tolerance)
    except Wrong:
        if case.d.guide_plate != "another name" and not case.d.sequential:
            raise
        near("IWAE", found.mean()[None], of_whole.mean()[None], whole_error[None], case.tolerance)


def iwae_of(case: Case, draws: int) -> objectives.IWAE:
    """Return the objective, with the name of the plate if bounds get it too."""
    return objectives.IWAE(draws, plate=case.d.plate if case.d.named else None)


def _check_subsampled(case: Case, draws: int, found: Tensor) -> None:
    """Check the mean of a bound over runs that take other examples each."""
    if case.log_w is None or case.d.enumerate == "guide":
        return
    of_parts = _iwae(case.log_w, draws)
    error = (of_parts.var() / len(of_parts) + found.var() / len(found)).sqrt()
    near("mean IWAE", found.mean()[None], of_parts.mean()[None], error[None], case.tolerance)


def _iwae(log_w: Tensor | None, draws: int) -> Tensor:
    """Return sums over the parts of IWAE of so many draws each, from [DRAWS, parts] weights."""
    assert log_w is not None
    groups = log_w.reshape(-1, draws, log_w.shape[1])
    return (groups.logsumexp(1) - math.log(draws)).sum(1)


def check_gradient(case: Case) -> None:
    """`objectives.ELBO`'s gradient, against that of the closed form."""
    d = case.d
    if not _has_gradient(case):
        raise NotAsked
    bias = case.constants.bias.clone().requires_grad_()
    shift, widen = case.parameters()
    p = closed_forms.posterior(d, case.constants, case.rows, bias)
    with torch.no_grad():
        fixed = closed_forms.posterior(d, case.constants, case.rows)
    value = closed_forms.elbo(d, case.constants, case.rows, p, case.law_of(fixed, shift, widen))
    true = torch.autograd.grad(-(case.scale or 1) * value.sum(), [bias, shift, widen])
    _compare_gradients(case, objectives.ELBO(num_particles=8), [true], 24)


def check_iwae_gradient(case: Case) -> None:
    """`objectives.IWAE`'s gradient, against that of log-weights of the closed forms."""
    d, draws = case.d, 4
    if d.classes or d.circle or not _has_gradient(case):
        raise NotAsked
    bias = case.constants.bias.clone().requires_grad_()
    shift, widen = case.parameters()
    p = closed_forms.posterior(d, case.constants, case.rows, bias)
    with torch.no_grad():
        fixed = closed_forms.posterior(d, case.constants, case.rows)
    law = case.law_of(fixed, shift, widen)
    log_w = closed_forms.log_weights(d, case.constants, case.rows, p, law, 4000)
    losses = [-(case.scale or 1) * _iwae(part, draws).mean() for part in log_w.chunk(25)]
    true = [torch.autograd.grad(x, [bias, shift, widen], retain_graph=True) for x in losses]
    objective = iwae_of(case, draws)
    _compare_gradients(case, objective, true, 30)


def _has_gradient(case: Case) -> bool:
    """Whether the guide has the parameters whose gradient is known."""
    d = case.d
    known = case.scale and not d.is_automatic and d.guide == "mean field" and not d.enumerate
    is_right = not d.must_refuse and not d.has_no_right_number
    return bool(known and is_right and d.layers) and d.guide_plate != "another name"


def _compare_gradients(
    case: Case, objective: Any, true: Sequence[Sequence[Tensor]], repeats: int
) -> None:
    """Compare the mean gradient of an objective with the mean of true ones."""
    drawn = [_gradient(case, objective) for _ in range(repeats)]
    for name, expected, found in zip(
        ("bias", "shift", "widen"),
        zip(*true, strict=True),
        zip(*drawn, strict=True),
        strict=True,
    ):
        expected, found = torch.stack(expected).double(), torch.stack(found).double()
        variance = found.var(0) / repeats
        if len(expected) > 1:
            variance = variance + expected.var(0) / len(expected)
        error = variance.sqrt()
        away = (found.mean(0) - expected.mean(0)).abs()
        if not (away < 7 * error + 10 * case.tolerance * (case.scale or 1)).all():
            raise Wrong(
                f"gradient of {name} {_shown(found.mean(0))} for {_shown(expected.mean(0))}, +- "
                f"{_shown(error)}"
            )


def _owned(case: Case) -> list[Tensor]:
    """Return the parameters: bias, shift, widening."""
    if case.d.parameters == "pyro.param":
        store = pyro.get_param_store()
        return [store[name].unconstrained() for name in ("bias", "shift", "widen")]
    return [case.model.own_bias, case.guide.shift, case.guide.widen]


def _gradient(case: Case, objective: Any) -> list[Tensor]:
    """Return the gradients of bias, shift and widening of one call."""
    objective.loss_and_grads(case.model, case.guide, *case.call.args, **case.call.kwargs)
    owned = _owned(case)
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in owned]
    for parameter in owned:
        parameter.grad = None
    return found


def check_later_batch(case: Case) -> None:
    """`objectives.ELBO`, after a batch in which nothing is masked or outside the support."""
    d = case.d
    changes = d.mask == "guide only" or d.outside or (d.batch_size and d.position)
    if d.arguments == "none" or not changes or d.is_automatic:
        raise NotAsked
    harmless = replace(case.rows, observed=torch.ones_like(case.rows.observed))
    first = call_of(d, harmless, case.constants.noise)
    if d.batch_size and d.tables == "arguments" and d.covariates != "index":
        last = {f.name: getattr(harmless, f.name)[-d.batch_size :] for f in fields(harmless)}
        first = call_of(d, Rows(**last), case.constants.noise)
    objective = objectives.ELBO(num_particles=DRAWS)
    objective.loss(case.model, case.guide, *first.args, **first.kwargs)
    loss = objective.loss(case.model, case.guide, *case.call.args, **case.call.kwargs)
    if not math.isnan(loss):  # a loss that is not finite stops training, with a message
        check_elbo_loss(case, objective)


def check_other_objectives(case: Case) -> None:
    """All other objectives, where all weights are p(x)."""
    if not is_exact(case) or case.scale != 1:
        raise NotAsked
    for name in ("MIWAE", "PIWAE", "CIWAE", "Renyi", "CUBO", "TVO", "RWS"):
        objective = getattr(objectives, name)(plate=case.d.plate if case.d.named else None)
        loss = objective.loss(case.model, case.guide, *case.call.args, **case.call.kwargs)
        refuse_numbers(case)
        found, zero = torch.tensor([-loss]), torch.zeros(1)
        near(name, found, case.evidence.sum()[None], zero, 3 * case.tolerance)


def check_gaussian(case: Case) -> None:
    """`bounds.gaussian`: the evidence."""
    d = case.d
    found = bounds.gaussian(case.model, data_of(case), **options_of(case, bounds.gaussian))
    if d.outside or d.has_no_right_number:
        refuse_numbers(case)
    true = case.evidence_of(len(found))
    if true is None:
        raise Wrong(f"{len(found)} numbers, where there is evidence of {len(case.evidence)}")
    near("log p(x)", found, true, torch.zeros(len(found)), case.tolerance)


def check_bidirectional(case: Case) -> None:
    """`bounds.bidirectional`: no gap, where the guide is the posterior of any data."""
    if not is_exact(case) or case.d.tables != "arguments" or case.d.is_automatic:
        raise NotAsked
    settings = bounds.Settings(temperatures=3, chains=4, leapfrog=2)
    options = options_of(case, bounds.bidirectional)
    result = bounds.bidirectional(
        case.model, case.guide, data_of(case), settings, seed=case.d.seed, **options
    )
    refuse_numbers(case)
    gap = result.gap.values
    near("gap", gap, torch.zeros(len(gap)), torch.zeros(len(gap)), case.tolerance)


def check_training(case: Case) -> None:
    """Three steps of `EagerEngine`, against the same steps written out."""
    d = case.d
    if d.is_automatic or not _has_gradient(case):
        raise NotAsked
    final = []
    for step_by in (_steps_written_out, _steps_of_engine):
        fresh = Case(d)
        torch.manual_seed(d.seed)
        step_by(fresh)
        final.append([p.detach().clone() for p in _owned(fresh)])
        pyro.clear_param_store()
    for name, found, true in zip(("bias", "shift", "widen"), final[1], final[0], strict=True):
        if not torch.allclose(found, true, atol=1e-4):
            raise Wrong(f"{name} after training {_shown(found)} for {_shown(true)}")


def _steps_written_out(case: Case) -> None:
    objective = objectives.ELBO(num_particles=4)
    with torch.random.fork_rng():
        objective.loss(case.model, case.guide, *case.call.args, **case.call.kwargs)
    optimizer = torch.optim.Adam(_owned(case), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        objective.loss_and_grads(case.model, case.guide, *case.call.args, **case.call.kwargs)
        optimizer.step()


def _steps_of_engine(case: Case) -> None:
    engine = training.EagerEngine(case.model, case.guide, objectives.ELBO(num_particles=4), lr=0.05)
    for _ in range(3):
        engine.step(data_of(case))


def check_compiled(case: Case) -> None:
    """A compiled loss, and the programs after it. Inductor itself is left out: it is slow."""
    case = Case(case.d)  # no parameter is in Pyro's store
    with mock.patch("torch._inductor.compile", lambda graph, inputs, options=None: graph):
        objective = objectives.ELBO(num_particles=COMPILED_DRAWS)
        compiled = Compiled(partial(objective.differentiable_loss, case.model, case.guide))
        try:
            loss = compiled(*case.call.args, **case.call.kwargs)
        except CannotCompile as error:
            loss = None
            text = " ".join(str(error).split())
    for name, value in pyro.get_param_store().named_parameters():
        if type(value) not in (Tensor, torch.nn.Parameter):
            raise Wrong(f"Pyro's parameter '{name}' is a {type(value).__name__}")
    if case.pyro_error is None:
        case.pyro_loss()
    if loss is None:
        raise ValueError(text[:200])
    if case.d.point or loss.isnan():  # a point may be trained; NaN stops training, with a message
        return
    if case.d.scale == "subsample":
        losses = [compiled(*case.call.args, **case.call.kwargs).item() for _ in range(30)]
        _check_subsampled(case, 1, -torch.tensor(losses).double())
        return
    refuse_numbers(case)
    known, log_w = case.elbo_of(1), case.log_w_of(1)
    if known is None or log_w is None or case.scale is None:
        return
    error = case.scale * log_w.std(0) / COMPILED_DRAWS**0.5
    near("ELBO", -loss.reshape(1), case.scale * known[0], error + known[1], case.tolerance)


CALLS: dict[str, Callable[[Case], None]] = {
    "evaluate": check_evaluate,
    "log_weights": check_log_weights,
    "anneal": check_anneal,
    "ELBO": check_elbo_loss,
    "IWAE": check_iwae_loss,
    "gradient": check_gradient,
    "IWAE gradient": check_iwae_gradient,
    "later batch": check_later_batch,
    "objectives": check_other_objectives,
    "gaussian": check_gaussian,
    "training": check_training,
    "compiled": check_compiled,
    "bidirectional": check_bidirectional,
}
