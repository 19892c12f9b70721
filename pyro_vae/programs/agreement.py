"""Do programs give the same draw the same log-probabilities, however they are run?

A program that counts its dimensions from the left is wrong among particles, and one that finds
something by the index of an example is wrong in batches. Neither raises an error. So the same
latent values are run in two ways, and both log-probabilities are compared.
"""

import math
from collections.abc import Callable

import torch
from pyro import poutine, validation_enabled
from pyro.distributions import Delta
from pyro.poutine.replay_messenger import ReplayMessenger
from torch import Tensor

from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.masks import masked_values
from pyro_vae.programs.pair import Draws, Pair
from pyro_vae.programs.sites import base
from pyro_vae.programs.traces import Site, plates, sample_sites

SAME_NOISE = 0  # a seed, for programs with noise of their own, such as a prior in training mode


def between_particles(pair: Pair, arguments: Arguments) -> str | None:
    """Compare draws that are made at once with the same draws, one at a time.

    Args:
        pair: the programs, to be vectorised.
        arguments: what they are called with.

    Returns:
        Why the programs cannot be vectorised; None if they can.
    """
    try:
        one = pair.draw(arguments, 1, always_a_dimension=False).runs[0][1]
        count = _count_unlike_sizes(one)
        together = pair.draw(arguments, count)
        if one.nodes.keys() != together.runs[0][1].nodes.keys():
            return "their sites change from one run to the next"
        # All are replayed: a flow that is inverted has another rounding error than one that draws.
        again = _replayed(pair, arguments, lambda _, value: value, together, SAME_NOISE, True)
        expected = again.log_p(), again.log_q()
        for k in range(count):

            def of_draw(name: str, value: Tensor, k: int = k) -> Tensor:
                return value[k].reshape(one.nodes[name]["value"].shape)

            alone = _replayed(pair, arguments, of_draw, together, SAME_NOISE)
            for all_values, values in zip(expected, (alone.log_p(), alone.log_q()), strict=True):
                difference = _difference(all_values[k], values[0])
                if difference:
                    return f"a draw among others has a log-probability {difference:.3g} nats away"
    except Exception as error:  # programs raise errors of any type
        return _first_line(error)
    return None


def _count_unlike_sizes(trace: poutine.Trace) -> int:
    """Return a number of particles that no dimension of a value has.

    Otherwise a program that confuses dimensions could be right by chance.
    """
    sizes = {size for _, site in sample_sites(trace) for size in site["value"].shape}
    return next(count for count in range(2, len(sizes) + 3) if count not in sizes)


def between_batches(pair: Pair, arguments: Arguments, whole: Draws, size: int) -> str | None:
    """Compare examples among all others with the same examples in each batch, and alone.

    Every batch is run: what is found by index may be wrong for a single example.

    Args:
        pair: the programs.
        arguments: what they are called with, for all examples.
        whole: one draw for all of them.
        size: the number of examples in a batch.

    Returns:
        Why examples cannot be taken in batches; None if they can.
    """
    count = len(arguments)
    rows = torch.arange(count)
    log_p, log_q = whole.log_p(), whole.log_q()
    for taken in (rows[count // 2 :][:1], *rows.split(size)):
        batch = arguments.take(taken.to(arguments.device))
        try:
            with validation_enabled(False):  # all values have been validated in `whole`
                part = _of_rows(pair, batch, whole, taken)
                pairs = [(log_p, part.log_p()), (log_q, part.log_q())]
        except Exception as error:  # programs raise errors of any type
            return _first_line(error)
        for all_values, values in pairs:
            if values.shape[1] != len(taken):
                return f"the plate '{pair.plate}' has {values.shape[1]} of {len(taken)} examples"
            difference = _difference(all_values[0][taken], values[0])
            if difference:
                return (
                    f"the same example in {len(taken)} of all {count} has a log-probability "
                    f"{difference:.3g} nats away"
                )
    return None


def between_neighbours(pair: Pair, arguments: Arguments, draw: Draws) -> str | None:
    """Compare examples among two sets of neighbours with other latent values.

    Args:
        pair: the programs.
        arguments: what they are called with, for at least two examples.
        draw: one draw for them.

    Returns:
        How the log-probability of one example depends on the latent values of another; None if it
        does not.
    """
    other = pair.draw(arguments, 1, always_a_dimension=False)
    even = torch.arange(draw.log_p().shape[1]) % 2 == 0

    for kept in (even, ~even):

        def mix(name: str, value: Tensor, kept: Tensor = kept) -> Tensor:
            site = other.runs[0][1].nodes[name]
            axis = _axis(site, pair.plate)
            shape = [1] * value.dim()
            shape[axis] = len(kept)
            return torch.where(kept.reshape(shape).to(value.device), value, site["value"])

        mixed = _replayed(pair, arguments, mix, draw)
        for before, after in ((draw.log_p(), mixed.log_p()), (draw.log_q(), mixed.log_q())):
            difference = _difference(before[0][kept], after[0][kept])
            if difference:
                return f"by {difference:.3g} nats"
    return None


def between_enumerated(pair: Pair, arguments: Arguments) -> str | None:
    """Compare the first and the last of all values of enumerated sites with each of them alone.

    Args:
        pair: the programs.
        arguments: what they are called with.

    Returns:
        Why the sites cannot be enumerated; None if they can.
    """
    try:
        return _between_enumerated(pair, arguments)
    except (RuntimeError, ValueError, IndexError) as error:  # shapes that do not fit, most often
        return f"the programs raise an error ({_first_line(error)})"


def _between_enumerated(pair: Pair, arguments: Arguments) -> str | None:
    first_dim = -1 - pair.nesting
    all_guide = poutine.enum(pair.guide, first_available_dim=first_dim)
    guide_of_all = arguments.call(poutine.trace(all_guide).get_trace)
    all_model = poutine.enum(pair.model, first_available_dim=first_dim)
    replayed = poutine.replay(all_model, guide_of_all)
    model_of_all = arguments.call(poutine.trace(replayed).get_trace)
    for trace in (guide_of_all, model_of_all):
        trace.compute_log_prob()
    for which in (0, -1):  # of the values
        given = model_of_all.copy()
        for trace in (model_of_all, guide_of_all):
            for name, site in sample_sites(trace):
                if not site["is_observed"]:
                    value = _one_value(site, pair.nesting, which)
                    given.nodes[name] = {**site, "value": value, "infer": {}}
        guide = arguments.call(poutine.trace(poutine.replay(pair.guide, given)).get_trace)
        model = arguments.call(poutine.trace(poutine.replay(pair.model, given)).get_trace)
        for alone, of_all in ((guide, guide_of_all), (model, model_of_all)):
            alone.compute_log_prob()
            for name, site in sample_sites(of_all):
                if site["infer"].get("num_samples"):
                    continue
                values = site["unscaled_log_prob"]
                one = values[(which,) * max(values.dim() - pair.nesting, 0)]
                difference = _difference(*torch.broadcast_tensors(one, _of(alone, name)))
                if difference:
                    return (
                        f"site '{name}' has a log-probability {difference:.3g} nats away from that "
                        "of one value alone"
                    )
    return None


def _of(trace: poutine.Trace, name: str) -> Tensor:
    return trace.nodes[name]["unscaled_log_prob"]


def _one_value(site: Site, nesting: int, which: int) -> Tensor:
    """Return the value of a site for the first (0) or the last (-1) of all enumerated values."""
    value, events = site["value"], site["fn"].event_dim
    value = value[(which,) * max(value.dim() - events - nesting, 0)]
    sizes = {frame.dim: frame.size for frame in plates(site) if frame.size > 0}
    batch, event = value.shape[: value.dim() - events], value.shape[value.dim() - events :]
    dims = max(len(batch), -min(sizes, default=0))
    batch = [1] * (dims - len(batch)) + [*batch]  # an unsized plate leaves the sizes as they are
    return value.expand([*(sizes.get(i - dims, size) for i, size in enumerate(batch)), *event])


def is_noisy(pair: Pair, arguments: Arguments, draw: Draws) -> bool:
    """Return whether the programs draw random numbers outside of their sample sites."""
    return _differ(*(_replayed(pair, arguments, lambda _, value: value, draw) for _ in range(2)))


def on_indices(pair: Pair, arguments: Arguments, draw: Draws) -> bool:
    """Return whether the log-probabilities depend on the indices that plates draw at random."""
    other = _replayed(pair, arguments, lambda _, value: value, draw, other_examples=True)
    return _differ(draw, other)


def on_values(pair: Pair, arguments: Arguments, draw: Draws, names: frozenset[str]) -> bool:
    """Return whether other sites of the guide depend on the values of some of its discrete sites.

    Each value is replaced by the next one of its support: another draw may be the same by chance.
    """
    guide = draw.runs[0][1]

    def replace(name: str, value: Tensor) -> Tensor:
        return _next_value(guide.nodes[name]) if name in names else value

    changed = _replayed(pair, arguments, replace, draw)

    def is_other(site: Site) -> bool:
        return site["name"] not in names

    return bool(_difference(draw.log_q(is_other), changed.log_q(is_other)))


def _next_value(site: Site) -> Tensor:
    """Return for each value of a discrete site the one that follows it in the support."""
    value, events = site["value"], site["fn"].event_dim
    support = site["fn"].enumerate_support(expand=False)
    found = value
    for here, after in zip(support, support.roll(-1, 0), strict=True):
        same = value == here
        same = same.flatten(-events).all(-1)[(..., *[None] * events)] if events else same
        found = torch.where(same, after, found)
    return found


def on_masked_values(pair: Pair, arguments: Arguments, draw: Draws) -> str | None:
    """Replace the latent values that masks take out by others.

    Returns:
        The name of a site on whose masked values the model depends; None if there is none.
    """
    model = draw.runs[0][0]
    masks = masked_values(model)
    if not masks:
        return None
    other = pair.draw(arguments, 1, always_a_dimension=False).runs[0][1]
    for name, masked in masks.items():
        if name in pair.summed_out:
            continue

        def replace(site: str, value: Tensor, name: str = name, masked: Tensor = masked) -> Tensor:
            if site not in (name, pair.noise.get(name)):
                return value
            new = other.nodes[site]["value"]
            return torch.where(masked, new, value)

        changed = _replayed(pair, arguments, replace, draw)
        if _difference(draw.log_p(), changed.log_p()):
            return name
    return None


def _replayed(
    pair: Pair,
    arguments: Arguments,
    change: Callable[[str, Tensor], Tensor],
    draw: Draws,
    seed: int | None = None,
    together: bool = False,
    *,
    other_examples: bool = False,
) -> Draws:
    """Run the programs again, with the values of a draw after a change.

    Points are left out: the guide computes them from the other values.

    Args:
        pair: the programs.
        arguments: what they are called with.
        change: a function of the name of a site and its value, which returns the new value.
        draw: the draw.
        seed: a seed for the noise that the programs have outside of their sites; None for new
            noise.
        together: whether to run all draws at once, rather than one.
        other_examples: whether the draw came from other examples; if so, plates draw new
            subsampling indices.
    """
    guide = draw.runs[0][1]
    given = guide.copy()
    drawn = {name for name, site in sample_sites(guide) if not isinstance(base(site["fn"]), Delta)}
    for name, site in guide.nodes.items():
        if name in drawn:
            given.nodes[name] = {**site, "value": change(name, site["value"])}
        elif other_examples or not poutine.util.site_is_subsample(site):
            given.remove_node(name)
    if seed is not None:
        torch.manual_seed(seed)
    return pair.draw(
        arguments,
        draw.at_once or 1 if together else 1,
        always_a_dimension=together,
        around_guide=lambda _: ReplayMessenger(given),
    )


def _of_rows(pair: Pair, batch: Arguments, whole: Draws, rows: Tensor) -> Draws:
    """Run the programs for some examples, with the values that these have among all others."""
    guide = whole.runs[0][1]

    def of_rows(name: str, value: Tensor) -> Tensor:
        return value.index_select(_axis(guide.nodes[name], pair.plate), rows.to(value.device))

    return _replayed(pair, batch, of_rows, whole, other_examples=True)


def _axis(site: Site, plate: str | None) -> int:
    """Return the dimension of the plate of the examples in the values of a site."""
    dim = next(frame.dim for frame in plates(site) if frame.name == plate)
    return len(site["fn"].batch_shape) + dim


def _differ(one: Draws, other: Draws) -> bool:
    """Return whether two draws have different log-probabilities under one of the programs."""
    return bool(_difference(one.log_p(), other.log_p()) or _difference(one.log_q(), other.log_q()))


def _difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two log-probabilities, or 0 if it is only rounding.

    It is infinite if only one of them is a number.
    """
    eps = max(torch.finfo(tensor.dtype).eps for tensor in (one, other))
    difference, allowed = (one - other).abs(), 1e3 * eps * (1 + one.abs())
    if (difference <= allowed).logical_and(one.isfinite()).all():  # by far the most frequent case
        return 0.0
    same = (one == other) | (one.isnan() & other.isnan())
    both_finite = one.isfinite() & other.isfinite()
    wrong = ~same & ~(both_finite & (difference <= allowed))
    return difference.where(both_finite, math.inf)[wrong].max().item() if wrong.any() else 0.0


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
