"""Look at a model and a guide once, by running them: what are their sites, how may they be run?

All that importance-weighted bounds and objectives take for granted about programs is checked here.
Annealing asks for more, and `bounds.coordinates` checks that. The checks run the programs, because
a program that is wrong among particles or in batches raises no error.
"""

import warnings
from dataclasses import replace
from functools import partial

import torch
from pyro import poutine
from pyro.infer.util import is_validation_enabled

from pyro_vae.errors import InputError
from pyro_vae.programs.agreement import (
    between_batches,
    between_enumerated,
    between_neighbours,
    between_particles,
    is_noisy,
    on_indices,
    on_masked_values,
    on_values,
)
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.change_of_variables import check_change_of_variables, find_points
from pyro_vae.programs.compiling import CannotCompile, is_traced
from pyro_vae.programs.enumeration import check_summed_out, enumerated_sites, is_enumerated
from pyro_vae.programs.looking_once import seen
from pyro_vae.programs.masks import check_masks
from pyro_vae.programs.pair import Draws, Pair
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.sites import (
    auxiliary_sites,
    check_latent_sites,
    check_precision,
    check_values,
    computed_sites,
    plate_of_examples,
)
from pyro_vae.programs.traces import (
    Program,
    check_plate,
    plate_nesting,
    plates,
    sample_sites,
)
from pyro_vae.programs.training_mode import evaluated, state_restored

# Checks of all examples at once use only the first examples, with up to this many numbers.
MAX_NUMBERS = 10**8


def look_at(
    model: Program,
    guide: Program,
    arguments: Arguments,
    *,
    plate: str | None = None,
    vectorize: bool | None = None,
    batch_size: int | None = None,
    most_at_once: int | None = None,
) -> Pair:
    """Run a model and a guide, and return what a bound on log p(x) needs to know of them.

    Within `looking_once.looked_at_once` the same programs are looked at once.

    Args:
        model: a Pyro program.
        guide: a Pyro program, the model's guide.
        arguments: what both are called with, for all examples.
        plate: the name of the plate of the examples; by default it is found.
        vectorize: whether all draws are made at once; by default if that gives the same
            log-probabilities as one draw at a time.
        batch_size: the number of examples that are run at once. By default it is `most_at_once`;
            all examples, if batches change the log-probabilities.
        most_at_once: the default batch size; None for all examples.

    Raises:
        InputError: if no bound follows from the programs, or they cannot be run as requested.
    """
    if len(arguments) == 0 and any(tensor.dim() for tensor in arguments.tensors()):
        raise InputError("there are no examples to evaluate", "x")
    size = batch_size or most_at_once or len(arguments)
    before, key = seen(model, guide, arguments, plate, vectorize, size)
    known = before.find(key, arguments) if key else None
    limit = max(size, MAX_NUMBERS // arguments.numel_per_example)
    first = arguments if len(arguments) <= limit else arguments.take(slice(limit))
    with torch.no_grad(), preserve_rng_state(arguments), state_restored(model, guide):
        torch.manual_seed(0)  # the same programs are always found to be the same
        if known is not None:
            check_values(known.draw(arguments, 1, always_a_dimension=False).runs[0][0])
            return known
        pair, whole = _sum_out_sites_of_guide(*_structure(model, guide, first, plate), first)
        _check_scales(pair, first, whole)
        if pair.summed_out:
            _check_enumeration(pair, first)
        site = on_masked_values(pair, first, whole)
        if site:
            raise InputError(
                f"site '{site}' is masked, and other sites depend on its masked values: no bound "
                "follows, since these values have no density",
                "model",
            )
        reason = _whole_only(pair, first, whole, size)
        if pair.plate is None and (batch_size or len(arguments) > limit):
            reason = "some site is outside the plates, so that the bound is one for all data"
        if reason and batch_size:
            raise InputError(
                f"the examples cannot be taken in batches of {batch_size}: {reason}. Leave "
                "batch_size out: then all are taken at once",
                "batch_size",
            )
        if reason and len(arguments) > limit:
            raise InputError(
                f"the examples cannot be taken in batches: {reason}. All {len(arguments)} at once "
                "are too many: evaluate fewer examples",
                "x",
            )
        all_at_once = reason or pair.plate is None
        size = len(arguments) if all_at_once else min(size, len(arguments))
        pair = replace(pair, batch_size=size)
        batch = first if all_at_once else first.take(slice(size))
        _check_neighbours(pair, batch)
        if reason:
            warnings.warn(f"all examples are taken at once: {reason}", stacklevel=3)
        pair = _choose_vectorize(pair, batch, vectorize)
        for start in range(limit, len(arguments), limit):
            later = arguments.take(slice(start, start + limit))
            check_values(pair.draw(later, 1, always_a_dimension=False).runs[0][0])
    before.remember(key, pair, len(arguments), size)
    return pair


def look_at_once(
    model: Program,
    guide: Program,
    arguments: Arguments,
    *,
    plate: str | None = None,
    vectorize: bool | None = None,
    linear: bool = False,
) -> Pair:
    """Run a model and a guide, and return what a training objective needs to know of them.

    An objective is computed for one batch after another, whatever the batches are: that examples
    have the same log-probabilities in another batch is not asked for. Modules may be in training
    mode, with dropout and noise on inputs, which are off in the comparison, and batch statistics.

    Args:
        model: as in `look_at`.
        guide: as in `look_at`.
        arguments: what both are called with, for a batch of examples.
        plate: as in `look_at`.
        vectorize: as in `look_at`.
        linear: whether the objective is a mean of log-weights. Then it does not matter which of
            several plates is that of the examples, and the guide may have point estimates, such as
            those of AutoDelta, and `pyro.factor`, with which the objective is no bound.

    Raises:
        InputError: as `look_at`.
    """
    if is_traced(arguments.tensors()):
        raise CannotCompile(
            "the programs have to be run before they are compiled: make the objective outside of "
            "the function, and call it once"
        )
    with (
        torch.no_grad(),
        preserve_rng_state(arguments),
        state_restored(model, guide),
        evaluated("Dropout", model, guide),
        evaluated("InputNoise", model, guide),
    ):
        torch.manual_seed(0)
        pair, whole = _structure(model, guide, arguments, plate, linear=linear)
        _warn_of_plates(*whole.runs[0])
        if pair.summed_out or pair.guide_enumerates:
            _check_enumeration(pair, arguments)
            if linear:
                _check_names_of_plates(*whole.runs[0])
        return _choose_vectorize(pair, arguments, vectorize)


def _structure(
    model: Program,
    guide: Program,
    arguments: Arguments,
    plate: str | None,
    *,
    linear: bool = False,
) -> tuple[Pair, Draws]:
    """Run both programs once; return the pair that this run describes, and one draw from it."""
    guide_trace = arguments.call(poutine.trace(guide).get_trace)
    replayed = poutine.replay(model, trace=guide_trace)
    model_trace = arguments.call(poutine.trace(replayed).get_trace)
    summed_out = frozenset(enumerated_sites(model_trace)) - guide_trace.nodes.keys()
    check_summed_out(model_trace, summed_out)
    check_latent_sites(model_trace, guide_trace, summed_out, factors=linear)
    check_values(model_trace)
    sites = [*sample_sites(model_trace), *sample_sites(guide_trace)]
    plate = plate_of_examples(sites, arguments, plate, any_will_do=linear)
    for _, site in sites:
        check_plate(site, plate)
    pair = Pair(
        model,
        guide,
        plate,
        plate_nesting(model_trace, guide_trace),
        vectorize=False,
        summed_out=summed_out,
        guide_enumerates=is_enumerated(guide_trace),
    )
    computed = computed_sites(model_trace, guide_trace)
    auxiliary = auxiliary_sites(guide_trace)
    run_guide = partial(pair.run_guide, arguments, None)
    allowed = find_points(run_guide, guide_trace, auxiliary, computed) if linear else []
    computed = [name for name in computed if name not in allowed]
    noise: dict[str, str] = {}
    if computed or auxiliary:
        noise = check_change_of_variables(
            run_guide, guide_trace, model_trace, auxiliary, computed, pair.plate
        )
    check_masks(model_trace, guide_trace, noise, computed)
    pair = replace(pair, noise=noise)
    for trace in (model_trace, guide_trace):
        trace.compute_log_prob()
        check_precision(trace)
    if summed_out:
        whole = pair.draw(arguments, 1, always_a_dimension=False)
    else:
        whole = Draws(pair, arguments, [(model_trace, guide_trace)], None, scaled=False)
    log_p, log_q = whole.log_p(), whole.log_q()
    if log_p.shape != log_q.shape:
        raise InputError(
            f"the plate '{pair.plate}' has {log_p.shape[1]} examples in the model, and "
            f"{log_q.shape[1]} in the guide",
            "guide",
        )
    return pair, whole


def _sum_out_sites_of_guide(pair: Pair, whole: Draws, arguments: Arguments) -> tuple[Pair, Draws]:
    """Sum sites out that the guide marks for enumeration, if none of its others depends on them.

    Where another site does, q is a mixture over the marked site, and this is drawn like any other.
    """
    marked = frozenset(enumerated_sites(whole.runs[0][1]))
    if not marked or on_values(pair, arguments, whole, marked):
        return pair, whole
    pair = replace(pair, summed_out=pair.summed_out | marked)
    return pair, pair.draw(arguments, 1, always_a_dimension=False)


def _whole_only(pair: Pair, arguments: Arguments, whole: Draws, size: int) -> str | None:
    """Return why examples have to be taken all at once; None if they can be taken in batches."""
    if pair.plate is None or len(arguments) <= size:  # they are all taken at once anyway
        return None
    found = whole.log_p().shape[1]
    if found != len(arguments):
        return (
            f"the plate '{pair.plate}' has {found} examples, and the first dimension of the "
            f"arguments {len(arguments)}"
        )
    reason = between_batches(pair, arguments, whole, size)
    if reason and is_noisy(pair, arguments, whole):
        raise _noise()
    return reason


def _check_neighbours(pair: Pair, arguments: Arguments) -> None:
    """Refuse programs in which the latent values of one example change another example."""
    draw = pair.draw(arguments, 1, always_a_dimension=False)
    if pair.plate is None or draw.log_p().shape[1] < 2:
        if is_noisy(pair, arguments, draw):
            raise _noise()
        return
    difference = between_neighbours(pair, arguments, draw)
    if difference is None:
        return
    if is_noisy(pair, arguments, draw):
        raise _noise()
    raise InputError(
        f"the latent values of one example change the log-probability of others {difference}, so "
        "there is no bound for each example: call eval() if modules use batch statistics",
        "model",
    )


def _warn_of_plates(model: poutine.Trace, guide: poutine.Trace) -> None:
    """Warn of plates that the guide alone has, as Pyro's ELBOs do: their scale is on one side."""
    in_model, in_guide = (
        {name for name, site in trace.nodes.items() if poutine.util.site_is_subsample(site)}
        for trace in (model, guide)
    )
    if in_guide - in_model and is_validation_enabled():
        names = ", ".join(sorted(in_guide - in_model))
        warnings.warn(f"Found plate statements in guide but not model: {names}", stacklevel=5)


def _check_enumeration(pair: Pair, arguments: Arguments) -> None:
    """Refuse programs that are wrong if sites take all their values at once.

    Batch statistics of modules in training mode are those of all values together, as in Pyro.
    """
    with evaluated("BatchNorm", pair.model, pair.guide):
        reason = between_enumerated(pair, arguments)
    if reason:
        raise InputError(
            f"with all values of the sites that are marked for enumeration, {reason}: index "
            "dimensions from the right, or do not mark them",
            "model",
        )


def _check_names_of_plates(model: poutine.Trace, guide: poutine.Trace) -> None:
    """Refuse latent sites that are in other plates in the guide than in the model.

    With them `TraceEnum_ELBO`, which the ELBO of enumerated sites uses, returns wrong numbers.
    """
    latent = {name: site for name, site in sample_sites(model) if not site["is_observed"]}
    for name, site in sample_sites(guide):
        if name not in latent:
            continue
        here, there = (sorted(f.name for f in plates(each)) for each in (site, latent[name]))
        if here != there:
            raise InputError(
                f"site '{name}' is in the plates {here} in the guide and {there} in the model: "
                "with enumerated sites the names have to be the same",
                "guide",
            )


def _choose_vectorize(pair: Pair, arguments: Arguments, wanted: bool | None) -> Pair:
    """Return the pair, vectorised if that is right."""
    if wanted is False:
        return pair
    vectorized = replace(pair, vectorize=True)
    reason = between_particles(vectorized, arguments)
    if reason is None:
        return vectorized
    if wanted:
        raise InputError(
            f"the programs cannot make several draws at once: {reason}. Leave vectorize out: then "
            "they run once for each draw",
            "vectorize",
        )
    warnings.warn(
        f"the programs run once for each draw, which is slower: they cannot make several at once: "
        f"{reason}",
        stacklevel=4,
    )
    return pair


def _check_scales(pair: Pair, arguments: Arguments, whole: Draws) -> None:
    """Refuse sites with different scales, and plates that take some of the examples at random.

    A subsampled plate is accepted if the program never uses its indices: then it only sets a scale.
    """
    scales = [
        (name, site["scale"]) for trace in whole.runs[0] for name, site in sample_sites(trace)
    ]
    common = scales[0][1] if scales and pair.plate else 1
    for name, scale in scales:
        if torch.is_tensor(scale) or scale != common:
            raise InputError(
                f"site '{name}' has a scale of its own, by poutine.scale or a subsampled plate: "
                "with it there is no bound on log p(x)",
                "model",
            )
    count = whole.log_p().shape[1]
    if common != 1 and (count < len(arguments) or on_indices(pair, arguments, whole)):
        raise InputError(
            "a plate takes some of the examples at random, and a bound needs all of those that it "
            "is given: leave subsample_size out",
            "model",
        )


def _noise() -> InputError:
    return InputError(
        "the programs draw random numbers outside of their sample sites: call eval() if modules "
        "have dropout, or make these numbers sample sites",
        "model",
    )
